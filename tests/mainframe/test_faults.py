"""Disks that fail and fill up while a forge runs: a small sample of ``make campaign-fault``, and its control."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.campaigns import fault_lab
from tests.conftest import user_home

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.image.build import Image

pytestmark = [
    pytest.mark.cell,
    pytest.mark.slow,
    pytest.mark.skipif(not fault_lab.compiler(), reason="no C compiler for the shim that makes calls fail"),
]


def campaign(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Its exit code and what it found."""
    command = [sys.executable, "-m", "tests.campaigns.fault", "--folder", str(folder / "lab")]
    command += ["--result", str(folder / "result"), *words]
    environment = {**os.environ, "ANVIL_HOME": str(user_home())}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.returncode, json.loads((folder / "result").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("mode", "every", "first"),
    [("EIO", 260, 130), ("ENOSPC from then on", 260, 200), ("ENOSPC", 260, 60), ("memory", 16, 4)],
)
def test_a_fault_is_told_and_forgotten(
    tmp_path: Path, eval_image: Image, build_image: Image, machine_image: Image, mode: str, every: int, first: int
) -> None:
    assert all((eval_image, build_image, machine_image))
    code, result = campaign(tmp_path, "--mode", mode, "--every", str(every), "--first", str(first))
    assert result[mode]["cases"] >= 3
    assert "3" in result[mode]["exit_codes"]
    assert result[mode]["problems"] == []
    assert code == 0


def test_the_campaign_sees_workers_that_take_a_fault_for_a_success(
    tmp_path: Path, eval_image: Image, build_image: Image, machine_image: Image
) -> None:
    assert all((eval_image, build_image, machine_image))
    code, result = campaign(tmp_path, "--mode", "EIO", "--every", "37", "--first", "130", "--control")
    assert code == 1
    assert result["EIO"]["problems"]
