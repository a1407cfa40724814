"""A fixed, printed sample of the campaign of kills, and the controls that turn each of its checks red."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.campaigns import fault_lab, kill, kill_plan
from tests.campaigns.kill_controls import CONTROLS

if TYPE_CHECKING:
    from anvil.image.build import Image

KILLS = 30
SEED = 3


def campaign(folder: Path, image: Image, *words: str) -> subprocess.CompletedProcess[str]:
    """The campaign in a process of its own, which becomes the parent of all orphans."""
    command = [sys.executable, "-m", "tests.campaigns.kill", "--folder", str(folder), "--seed", str(SEED), *words]
    more = ["--images", str(image.rootfs.parents[1]), "--result", str(folder / "result.json")]
    done = subprocess.run(
        [*command, *more], cwd=Path(kill.__file__).parents[2], capture_output=True, text=True, check=False
    )
    sys.stdout.write(done.stdout + done.stderr)
    return done


@pytest.mark.cell
@pytest.mark.slow
@pytest.mark.skipif(not fault_lab.compiler(), reason="no C compiler for the shim")
def test_every_run_after_a_kill_ends_well_and_nothing_is_left(
    tmp_path: Path, build_image: Image, machine_image: Image
) -> None:
    assert machine_image.rootfs.parents[1] == build_image.rootfs.parents[1]
    done = campaign(tmp_path, build_image, "--kills", str(KILLS), "--shards", "2")
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["small_deck"]
    assert (done.returncode, result["failures"]) == (0, [])
    assert result["kills"] >= KILLS
    assert result["cards_run"] >= 9 * result["turns"]
    assert len(result["by_target"]) >= 5


@pytest.mark.cell
@pytest.mark.slow
def test_each_check_of_the_campaign_can_fail(tmp_path: Path, build_image: Image, machine_image: Image) -> None:
    assert machine_image.rootfs.parents[1] == build_image.rootfs.parents[1]
    done = campaign(tmp_path, build_image, "--controls")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(CONTROLS)
    assert "GREEN" not in done.stdout


def test_a_turn_is_drawn_from_its_seed_and_number_alone() -> None:
    assert kill_plan.turn(1, 5) == kill_plan.turn(1, 5)
    assert kill_plan.turn(1, 5) != kill_plan.turn(1, 6)
    assert kill_plan.turn(1, 5) != kill_plan.turn(2, 5)


def test_every_kind_of_target_and_moment_is_drawn() -> None:
    kills = [each for number in range(200) for each in kill_plan.turn(1, number)[1]]
    assert {each.target for each in kills} == set(kill_plan._TARGETS)
    assert {each.moment for each in kills} == {"time", "event", "call"}
