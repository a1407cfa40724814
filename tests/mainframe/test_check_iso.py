"""A check of a recipe of the main job. (The whole ISO made twice is ``anvil forge iso --check``: two kernels.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from tests.conftest import user_home

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.iso, pytest.mark.timeout(3600)]


def test_busybox_is_the_same_made_twice(tmp_path: Path) -> None:
    """Its first making is what the user's home has kept."""
    words = [
        sys.executable,
        "-m",
        "anvil.cli.main",
        "forge",
        "busybox",
        "--check",
        "--json",
        "--output",
        str(tmp_path),
    ]
    environment = {**os.environ, "ANVIL_HOME": str(user_home())}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = MicroJSON.decode(done.stdout.splitlines()[-1].encode())
    assert last["@ID"] == MessageID.CHECK_ENDED
    found = last["data"]
    assert found["same"]
    sidecar = json.loads((tmp_path / "bin" / "busybox.json").read_text(encoding="utf-8"))
    assert [(each["sha256"], each["second"]) for each in found["artifacts"]] == [(sidecar["sha256"],) * 2]
    # the trees in which it was configured and compiled are the same too
    assert found["files"] > 1000
