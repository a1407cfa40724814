"""The QEMU command is the machine: pure, and printed before anyone runs it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from anvil.cell.spec import MiB
from anvil.errors import UsageError
from anvil.machine.spec import Attach, Disk, MachineSpec

ISO = Path("/somewhere/a.iso")
KERNEL = Path("/somewhere/bzImage")


def pairs(argv: tuple[str, ...], word: str) -> list[str]:
    """What follows each ``word``."""
    return [after for before, after in pairwise(argv) if before == word]


def test_nothing_of_the_host_is_in_the_command() -> None:
    spec = MachineSpec(kernel=KERNEL, initrd=KERNEL, append="quiet", medium=ISO, disks=(Disk(name="d", size=512),))
    assert not [word for word in spec.command() if "somewhere" in word]
    assert [(bind.name, bind.source) for bind in spec.inputs()] == [
        ("kernel", KERNEL),
        ("initrd", KERNEL),
        ("medium", ISO),
    ]


def test_the_guest_has_one_serial_line_and_nothing_by_default() -> None:
    argv = MachineSpec(medium=ISO).argv()
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert pairs(argv, "-serial") == ["chardev:console"]
    assert pairs(argv, "-chardev") == ["stdio,id=console,signal=off"]
    assert pairs(argv, "-monitor") == ["none"]


@pytest.mark.parametrize(
    ("attach", "drive", "device"),
    [
        ("cdrom", "media=cdrom,readonly=on", "ide-cd"),
        ("disk", "snapshot=on", "ide-hd"),
        ("usb", "snapshot=on", "usb-storage"),
    ],
)
def test_a_medium_is_never_written_to(attach: Attach, drive: str, device: str) -> None:
    argv = MachineSpec(medium=ISO, attach=attach).argv()
    assert [word for word in pairs(argv, "-drive") if "/in/medium" in word and drive in word]
    assert [word for word in pairs(argv, "-device") if word.startswith(f"{device},drive=medium")]


def test_uefi_gets_read_only_code_and_fresh_variables() -> None:
    code, variables = (d for d in pairs(MachineSpec(medium=ISO, firmware="uefi").argv(), "-drive") if "pflash" in d)
    assert "readonly=on" in code
    assert "CODE" in code
    assert "snapshot=on" in variables
    assert "VARS" in variables
    assert not [word for word in MachineSpec(medium=ISO).argv() if "pflash" in word]


def test_the_network_leads_nowhere() -> None:
    assert pairs(MachineSpec(medium=ISO).argv(), "-netdev") == ["user,id=net,restrict=on"]
    assert pairs(MachineSpec(medium=ISO, nic=False).argv(), "-netdev") == []


def test_a_repeatable_machine_has_one_processor_and_one_thread() -> None:
    argv = MachineSpec(kernel=KERNEL, repeatable=True).argv()
    assert pairs(argv, "-M") == ["q35,hpet=off"]
    assert pairs(argv, "-accel") == ["tcg,thread=single,tb-size=256"]
    assert pairs(argv, "-smp") == ["1"]
    assert not [word for word in argv if "rng" in word]
    assert [word for word in MachineSpec(kernel=KERNEL).argv() if "virtio-rng-pci" in word]
    for more in ({"cpus": 2}, {"accelerator": "kvm"}):
        with pytest.raises(UsageError, match="repeatable"):
            MachineSpec(kernel=KERNEL, repeatable=True, **more)


def test_disks_are_made_in_the_cell_before_qemu_starts() -> None:
    disks = (Disk(name="a.img", size=1024), Disk(name="b.img", size=2048))
    spec = MachineSpec(kernel=KERNEL, disks=disks, memory_bytes=256 * MiB)
    assert spec.command()[:2] == ("sh", "-ec")
    assert spec.command()[4:9] == ("1024", "/out/a.img", "2048", "/out/b.img", "--")
    assert [word for word in pairs(spec.argv(), "-drive") if "/out/" in word] == [
        "if=virtio,format=raw,discard=unmap,detect-zeroes=unmap,file=/out/a.img",
        "if=virtio,format=raw,discard=unmap,detect-zeroes=unmap,file=/out/b.img",
    ]
    assert MachineSpec(medium=ISO).command()[0] == "qemu-system-x86_64"


@pytest.mark.parametrize("name", ["", "../a", "a,b", "/a", ".a", "a b"])
def test_a_disk_name_cannot_leave_its_folder_or_its_word(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        Disk(name=name, size=512)


def test_what_is_no_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="kernel or a medium"):
        MachineSpec()
    with pytest.raises(UsageError, match="need a kernel"):
        MachineSpec(medium=ISO, append="quiet")
    with pytest.raises(UsageError, match="sectors"):
        Disk(name="a", size=100)


def test_the_cell_is_given_the_guests_memory_and_more() -> None:
    limits = MachineSpec(medium=ISO, memory_bytes=512 * MiB).limits(wall_seconds=100)
    assert limits.memory_bytes > 512 * MiB
    assert limits.wall_seconds == 100
