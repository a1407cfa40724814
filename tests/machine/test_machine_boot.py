"""The real QEMU in the real cell, with guests of 512 bytes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from anvil.cell.spec import MiB
from anvil.machine import machine
from anvil.machine.machine import Place, boot, forge, running
from anvil.machine.spec import Disk, MachineSpec
from tests.machine.boot_sectors import ECHO, HALT, POWER_OFF, RESET, medium, write_self

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.image.build import Image
    from anvil.machine.verdict import BootVerdict

pytestmark = pytest.mark.cell
READY = "ANVILOS READY root=anvil_pool/ROOT"


@pytest.fixture
def place(machine_image: Image) -> Place:
    return Place(image=machine_image.rootfs)


def spec(path: Path, **more: object) -> MachineSpec:
    return MachineSpec(medium=path, attach="disk", memory_bytes=32 * MiB, nic=False, **more)  # type: ignore[arg-type]


def verdict(place: Place, path: Path, *, timeout: float = 20) -> BootVerdict:
    return boot(spec(path), place, expect="ANVILOS READY", timeout=timeout, transcript=path.with_suffix(".console"))


def test_a_guest_that_is_ready_is_seen(place: Place, tmp_path: Path) -> None:
    found = verdict(place, medium(tmp_path, f"starting\r\n{READY}\r\n"))
    assert (found.ok, found.reason, found.line) == (True, "seen", READY)
    assert (found.firmware, found.attach, found.accelerator) == ("bios", "disk", "tcg")
    assert found.as_data()["milliseconds"] == round(found.seconds * 1000)
    assert "booted in" in found.sentence
    assert READY.encode() in (tmp_path / "medium.console").read_bytes()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("[ 1.0] Kernel panic - not syncing: VFS\r\n", "panic"),
        ("ANVIL EMERGENCY: step find-medium: no medium\r\n", "emergency"),
        ("ANVIL FORGE FAILED: step create\r\n", "failed"),
    ],
)
def test_bad_news_ends_the_wait_at_once(place: Place, tmp_path: Path, words: str, reason: str) -> None:
    began = time.monotonic()
    found = verdict(place, medium(tmp_path, f"{words}{READY}\r\n"), timeout=60)
    assert (found.ok, found.reason, found.line) == (False, reason, words.strip())
    assert time.monotonic() - began < 30


def test_a_machine_that_ends_or_hangs_is_told_apart(place: Place, tmp_path: Path) -> None:
    ended = verdict(place, medium(tmp_path, "bye\r\n", RESET))
    assert (ended.ok, ended.reason, ended.tail[-1]) == (False, "ended", "bye")
    hung = verdict(place, medium(tmp_path, "zzz\r\n", HALT), timeout=3)
    assert (hung.ok, hung.reason, hung.tail[-1]) == (False, "timeout", "zzz")


def test_qemus_own_complaint_is_the_verdicts_line(place: Place, tmp_path: Path) -> None:
    nothing = tmp_path / "kernel"
    nothing.write_bytes(b"")
    machine_spec = MachineSpec(kernel=nothing, memory_bytes=32 * MiB)
    broken = boot(machine_spec, place, expect="x", timeout=20, transcript=tmp_path / "console")
    assert broken.reason == "ended"
    assert "kernel" in broken.line


def test_a_wait_can_be_cancelled(place: Place, tmp_path: Path) -> None:
    end = time.monotonic() + 1
    stoppable = Place(image=place.image, cancelled=lambda: time.monotonic() > end)
    assert verdict(stoppable, medium(tmp_path, "zzz"), timeout=60).reason == "cancelled"


def test_what_is_typed_reaches_the_guest(place: Place, tmp_path: Path) -> None:
    path = medium(tmp_path, "echo:\r\n", ECHO)
    with running(spec(path), place, transcript=tmp_path / "console", wall_seconds=30) as guest:
        assert guest.wait_for("echo:", timeout=20).ok
        guest.console.send("hammer and tongs\n")
        assert guest.console.expect("hammer and tongs", timeout=10).reason == "seen"


@pytest.mark.parametrize("attach", ["disk", "usb"])
def test_a_medium_is_not_changed_by_a_guest_that_writes_to_it(place: Place, tmp_path: Path, attach: str) -> None:
    path = medium(tmp_path, f"{READY}\r\n", first=write_self(0x80))
    before = path.read_bytes()
    assert boot(
        MachineSpec(medium=path, attach=attach, memory_bytes=32 * MiB, nic=False),  # type: ignore[arg-type]
        place,
        expect=READY,
        timeout=20,
        transcript=tmp_path / "console",
    ).ok
    assert path.read_bytes() == before


def test_a_forge_leaves_the_disk_that_the_guest_wrote(place: Place, tmp_path: Path) -> None:
    path = medium(tmp_path, "ANVIL FORGE DONE\r\n", POWER_OFF, first=write_self(0x81))
    disk = Disk(name="made.img", size=4 * MiB)
    out = tmp_path / "out"
    found = forge(
        spec(path, disks=(disk,), repeatable=True), place, out=out, done="ANVIL FORGE DONE", timeout=30,
        transcript=tmp_path / "console",
    )  # fmt: skip
    assert found.ok, found
    made = (out / "made.img").read_bytes()
    assert len(made) == disk.size
    assert made[:512] == path.read_bytes()[:512]


def test_a_forge_that_does_not_power_off_has_failed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_POWER_OFF", 1.0)
    path = medium(tmp_path, "ANVIL FORGE DONE\r\n", HALT)
    found = forge(
        spec(path, disks=(Disk(name="a", size=512),)), place, out=tmp_path / "out", done="FORGE DONE", timeout=30,
        transcript=tmp_path / "console",
    )  # fmt: skip
    assert (found.ok, found.reason) == (False, "timeout")
    assert "did not power off" in found.line
