"""The main job through the engine: nothing runs twice, and a changed line costs no compiler."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe.book import BUILT_IN
from tests.conftest import user_home

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.iso, pytest.mark.timeout(3600)]


def anvil(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the user's own home, which keeps what was forged."""
    environment = {**os.environ, "ANVIL_HOME": str(user_home())}
    command = [sys.executable, "-m", "anvil.cli.main", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts of a forge."""
    folder = tmp_path_factory.mktemp("output")
    done = anvil("forge", "iso", "--output", str(folder), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_artifact_of_the_seed_is_there_with_its_account(output: Path) -> None:
    for name in (
        "bin/busybox",
        "bin/zpool",
        "bin/zfs",
        "bzImage",
        "rootfs.img",
        "initramfs.cpio.gz",
        "anvilos-phase2.iso",
    ):
        sidecar = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))
        assert sidecar["name"] == name
        assert sidecar["size"] == (output / name).stat().st_size
        assert sidecar["sources"]
        assert all(len(source["sha256"]) == 64 for source in sidecar["sources"])
    assert (output / "anvilos-phase2.iso").stat().st_size <= 30_000_000
    assert (output / "rootfs.img").stat().st_size == 500 * 1024 * 1024
    kernel = json.loads((output / "bzImage.json").read_text(encoding="utf-8"))
    assert (kernel["licence"], kernel["redistribution"]) == ("GPL-2.0-only AND CDDL-1.0", "contested")
    verdicts = json.loads((output / "anvilos-phase2.iso.json").read_text(encoding="utf-8"))["verdicts"]
    assert {verdict["firmware"] for verdict in verdicts} == {"bios", "uefi"}
    assert all(verdict["ok"] for verdict in verdicts)


def test_a_second_forge_runs_no_card(output: Path) -> None:
    again = anvil("forge", "iso", "--output", str(output), cwd=output)
    assert again.returncode == 0
    assert "0 cards run" in again.stdout


def test_a_changed_line_of_the_root_runs_only_what_depends_on_it_and_boots(output: Path, tmp_path: Path) -> None:
    assert output
    shutil.copytree(BUILT_IN / "monolith", tmp_path / "recipes")
    script = tmp_path / "recipes" / "rootfs" / "rcS"
    # never the same line twice: the home that is used keeps what an earlier run of the tests has forged
    changed = script.read_text(encoding="utf-8") + f"echo changed {secrets.token_hex(8)}\n"
    script.write_text(changed, encoding="utf-8")
    words = ("iso", "--project", str(tmp_path))
    plan = json.loads(anvil("plan", *words, "--json", cwd=tmp_path).stdout)
    touched = {card["card"] for card in plan["cards"] if card["fate"] != "kept"}
    assert touched == {
        "rootfs/root", "rootfs/forge-initrd", "rootfs/pool", "rootfs/artifact:rootfs.img", "iso/squash", "iso/iso",
        "iso/bios-cdrom", "iso/uefi-disk", "iso/artifact:anvilos-phase2.iso",
    }  # fmt: skip
    done = anvil("forge", *words, "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ANVILOS READY root=anvil_pool/ROOT" in done.stdout


def test_the_seed_profile_is_planned_with_the_exact_upstream_versions(tmp_path: Path) -> None:
    done = anvil("plan", "iso", "--profile", "seed", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kernel/build" in {card["card"] for card in json.loads(done.stdout)["cards"]}
