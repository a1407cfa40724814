"""The kill campaign's part that forges real recipes, on one that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from anvil.image.build import Image


@pytest.mark.iso  # it fetches a source
def test_killed_forges_of_a_real_recipe_end_well_with_the_report_in_a_file(tmp_path: Path, build_image: Image) -> None:
    report, result = tmp_path / "report", tmp_path / "result.json"
    with report.open("w") as file:  # a stream with a position, as in "make campaign-kill > report"
        done = subprocess.run(
            [sys.executable, "-m", "tests.campaigns.kill", "--iso", "3", "--recipe", "zlib", "--folder", tmp_path,
             "--images", build_image.rootfs.parents[1], "--result", result],
            cwd=Path(__file__).parents[2], stdout=file, stderr=subprocess.STDOUT, timeout=600, check=False,
        )  # fmt: skip
    assert done.returncode == 0, report.read_text()
    [found] = [part for name, part in json.loads(result.read_text()).items() if name != "machine"]
    assert found["problems"] == []
    assert len(found["kills"]) == 3
    assert found["cards_run"] > 0
