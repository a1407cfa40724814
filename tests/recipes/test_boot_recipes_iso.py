"""The whole medium, booted: four ways up, a session in the running system, and three ways to fail well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cell.spec import MiB
from anvil.machine.machine import Machine, Place, running
from anvil.machine.spec import MachineSpec
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.image.build import Image
    from anvil.machine.spec import Attach, Firmware

pytestmark = [pytest.mark.iso, pytest.mark.timeout(3600)]
CHECKOUT = Path(__file__).parents[2]
READY = "ANVILOS READY root=anvil_pool/ROOT"
PATIENCE = 180.0  # seconds to the banner; 8 on a quiet machine
DOWN = "\x1b[B"


@pytest.fixture(scope="session")
def iso() -> Path:
    """The forged medium: the one that is named, or what ``anvil forge iso`` makes (or has kept)."""
    if named := os.environ.get("ANVIL_TEST_ISO"):
        return Path(named)
    environment = {**os.environ, "ANVIL_HOME": str(user_home())}
    subprocess.run([sys.executable, "-m", "anvil.cli.main", "forge", "iso"], cwd=CHECKOUT, env=environment, check=True)
    return CHECKOUT / "build_artifacts" / "anvilos-phase2.iso"


@pytest.fixture
def place(machine_image: Image) -> Place:
    return Place(image=machine_image.rootfs)


def test_the_medium_is_small(iso: Path) -> None:
    assert iso.stat().st_size <= 30 * MiB


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("attach", ["cdrom", "disk"])
def test_it_boots(iso: Path, place: Place, tmp_path: Path, firmware: Firmware, attach: Attach) -> None:
    spec = MachineSpec(medium=iso, firmware=firmware, attach=attach)
    with running(spec, place, transcript=tmp_path / "console", wall_seconds=PATIENCE) as guest:
        verdict = guest.wait_for("ANVILOS READY", timeout=PATIENCE)
        assert (verdict.ok, verdict.line) == (True, READY), verdict


def test_a_person_at_the_serial_line_finds_a_healthy_system(iso: Path, place: Place, tmp_path: Path) -> None:
    spec = MachineSpec(medium=iso)
    with running(spec, place, transcript=tmp_path / "console", wall_seconds=2 * PATIENCE) as guest:
        assert guest.wait_for(READY, timeout=PATIENCE).ok
        shell = guest.login()
        assert shell.run("zpool status -x").output == "all pools are healthy"
        assert shell.run("zpool get -H -o value readonly,health anvil_pool").output.split() == ["on", "ONLINE"]
        assert shell.run("zfs list -H -o name").output.split() == ["anvil_pool", "anvil_pool/ROOT"]
        assert shell.run("stat -f -c %T /run/anvil/pool; id -un; hostname").output.split()[-2:] == ["root", "anvil"]
        assert "10.0.2.15" in shell.run("ip -4 address show").output
        written = shell.run("echo kept > /root/file && cat /root/file; touch /run/anvil/pool/file")
        assert written.output.startswith("kept\n")
        assert "Read-only file system" in written.output
        assert shell.run("dmesg | grep -c 'WARNING:\\|BUG:\\|Call Trace'").output == "0"
        assert guest.power_off()


def test_it_survives_the_loss_of_its_medium_when_it_runs_in_memory(iso: Path, place: Place, tmp_path: Path) -> None:
    spec = MachineSpec(medium=iso, memory_bytes=256 * MiB)
    with running(spec, place, transcript=tmp_path / "console", wall_seconds=2 * PATIENCE) as guest:
        choose(guest, 1)
        assert guest.wait_for(READY, timeout=PATIENCE).ok
        shell = guest.login()
        assert shell.run("grep -c '^anvil_pool/ROOT / zfs rw' /proc/mounts").output == "1"
        assert shell.run("eject /dev/sr0").status == 0
        assert shell.run("zfs snapshot anvil_pool/ROOT@before && touch /etc/new").status == 0
        assert shell.run("zpool scrub -w anvil_pool && zpool status -x").output == "all pools are healthy"
        guest.console.send("reboot\n")
        assert guest.ended(timeout=30)


def test_the_menu_has_an_emergency_shell(iso: Path, place: Place, tmp_path: Path) -> None:
    with running(MachineSpec(medium=iso), place, transcript=tmp_path / "console", wall_seconds=PATIENCE) as guest:
        choose(guest, 2)
        verdict = guest.wait_for(READY, timeout=PATIENCE)
        assert (verdict.reason, verdict.line) == (
            "emergency",
            "ANVIL EMERGENCY: step start: asked for on the kernel line",
        )
        assert guest.emergency().run("ls /init").output == "/init"


def choose(guest: Machine, entry: int) -> None:
    """Choose an entry of the boot menu, counted from 0, over the serial line."""
    assert guest.console.expect("be executed automatically", timeout=60, patience=0).reason == "seen"
    for _ in range(entry):
        guest.console.send(DOWN)
        guest.console.expect("\n", timeout=0.5)
    guest.console.send("\r")


def wrong_label(iso: bytes) -> bytes:
    return iso[:32808] + b"OTHER".ljust(32) + iso[32840:]


def damaged_image(iso: bytes) -> bytes:
    start = iso.index(b"hsqs")  # the squashfs; its size is at byte 40
    middle = start + int.from_bytes(iso[start + 40 : start + 48], "little") // 2
    return iso[:middle] + bytes(byte ^ 0xFF for byte in iso[middle : middle + 64]) + iso[middle + 64 :]


def missing_image(iso: bytes) -> bytes:
    return iso.replace(b"rootfs.squashfs", b"rootfs.squashed"[:15])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (wrong_label, ("step find-medium: no medium labelled 'ANVILOS'", "seen: sr0 'OTHER'")),
        (damaged_image, ("step verify-image: damaged: the root image on sr0 has sha256",)),
        (missing_image, ("step find-image: the image is missing: 'ANVILOS' (sr0) holds no anvil/rootfs.squashfs",)),
    ],
)
def test_a_failure_names_its_step_and_leaves_a_shell(
    iso: Path, place: Place, tmp_path: Path, spoil: Callable[[bytes], bytes], words: tuple[str, ...]
) -> None:
    medium = tmp_path / "spoilt.iso"
    medium.write_bytes(spoil(iso.read_bytes()))
    with running(MachineSpec(medium=medium), place, transcript=tmp_path / "console", wall_seconds=PATIENCE) as guest:
        verdict = guest.wait_for("ANVILOS READY", timeout=PATIENCE)
        assert verdict.reason == "emergency"
        assert [word for word in words if word not in verdict.line] == [], verdict.line
        shell = guest.emergency()
        assert shell.run("tty").output == "/dev/ttyS0"
        assert shell.run("blkid /dev/sr0; false").status == 1
        assert guest.power_off()
