"""A virtual machine as data, and the QEMU command that is that machine. Nothing here touches the host.

Paths of a :class:`MachineSpec` are the host's. QEMU runs in a cell and sees them as ``/in/kernel``, ``/in/initrd``,
``/in/medium`` (read-only) and its disks as ``/out/<name>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anvil.cell.spec import Bind, GiB, Limits, MiB
from anvil.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

Firmware = Literal["bios", "uefi"]
Attach = Literal["cdrom", "disk", "usb"]
Accelerator = Literal["tcg", "kvm"]

# What QEMU itself may use beyond the guest's memory: translated code (tb-size below), firmware, devices, snapshots.
_OVERHEAD = 1 * GiB
_DISK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")

# A guest that writes zeros leaves a hole: an image that is copied onto a disk stays as sparse as it was.
_SPARSE = "if=virtio,format=raw,discard=unmap,detect-zeroes=unmap"

# Disks are made in the cell, so that they belong to the user that writes them: words are size and path, "--", QEMU.
_MAKE_DISKS = 'while [ "$1" != -- ]; do truncate -s "$1" "$2"; shift 2; done; shift; exec "$@"'


@dataclass(frozen=True, kw_only=True)
class Disk:
    """An empty, sparse disk of ``size`` bytes that appears as ``name`` in the cell's output."""

    name: str
    size: int

    def __post_init__(self) -> None:
        """Refuse what is no plain file name, or no whole sectors."""
        if not _DISK_NAME.fullmatch(self.name):
            raise UsageError(f"a disk cannot be called {self.name!r}", hint="use A-Z, a-z, 0-9, _ . + -")
        if self.size <= 0 or self.size % 512:
            raise UsageError(f"the size of disk {self.name!r} is no whole number of 512-byte sectors")


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """A machine that starts a kernel, a medium, or a kernel with a medium beside it.

    kernel, initrd, append: started by QEMU itself. medium: an ISO or disk image, never written to (a write lands in a
    snapshot that dies with the machine); attach: as what. disks: made in the cell's /out, /dev/vda onwards.
    memory_bytes: of the guest. nic: one ethernet card on a network of its own, where QEMU answers DHCP and nothing
    leads out. repeatable: one processor, one thread, no HPET and no source of chance but the processor's, so that a
    guest that takes no notice of time and chance does the same each time.
    """

    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    medium: Path | None = None
    firmware: Firmware = "bios"
    attach: Attach = "cdrom"
    disks: tuple[Disk, ...] = ()
    memory_bytes: int = 512 * MiB
    cpus: int = 1
    accelerator: Accelerator = "tcg"
    nic: bool = True
    repeatable: bool = False

    def __post_init__(self) -> None:
        """Refuse what no machine can be made of."""
        if self.kernel is None and self.medium is None:
            raise UsageError("a machine needs a kernel or a medium to start from")
        if self.kernel is None and (self.initrd is not None or self.append):
            raise UsageError("an initrd and a kernel line need a kernel")
        if self.repeatable and (self.cpus != 1 or self.accelerator != "tcg"):
            raise UsageError("a repeatable machine has one emulated processor")

    def inputs(self) -> tuple[Bind, ...]:
        """What the cell binds below /in."""
        files = (("kernel", self.kernel), ("initrd", self.initrd), ("medium", self.medium))
        return tuple(Bind(name=name, source=path) for name, path in files if path is not None)

    def limits(self, *, wall_seconds: float) -> Limits:
        """The cell's limits: the guest's memory and QEMU's own, four host threads' worth of time."""
        return Limits(
            memory_bytes=self.memory_bytes + _OVERHEAD,
            processes=64,
            output_bytes=sum(disk.size for disk in self.disks) + _OVERHEAD,
            cpu_seconds=4 * wall_seconds,
            wall_seconds=wall_seconds,
        )

    def command(self) -> tuple[str, ...]:
        """What the cell runs: QEMU, after its disks were made."""
        if not self.disks:
            return self.argv()
        made = (word for disk in self.disks for word in (str(disk.size), f"/out/{disk.name}"))
        return ("sh", "-ec", _MAKE_DISKS, "sh", *made, "--", *self.argv())

    def argv(self) -> tuple[str, ...]:
        """QEMU and its words."""
        machine = "q35,hpet=off" if self.repeatable else "q35"
        return (
            "qemu-system-x86_64",
            *("-M", machine),
            *self._processor(),
            *("-m", f"{self.memory_bytes // MiB}M"),
            # Only what is named below: no default card, drive or monitor. -no-reboot: a reboot ends QEMU.
            *("-nodefaults", "-no-user-config", "-no-reboot"),
            # A screen that nobody sees, so that the guest's screen console is as real as the serial one.
            *("-display", "none", "-vga", "std", "-monitor", "none"),
            # signal=off: control characters of the console are the guest's, also ^C.
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *self._chance(),
            *self._firmware(),
            *self._kernel(),
            *self._medium(),
            *(word for disk in self.disks for word in ("-drive", f"{_SPARSE},file=/out/{disk.name}")),
            *self._network(),
        )

    def _processor(self) -> tuple[str, ...]:
        if self.accelerator == "kvm":
            return ("-accel", "kvm", "-cpu", "host", "-smp", str(self.cpus))
        # Several virtual processors run side by side on as many host threads, one is quicker without the locking.
        thread = "multi" if self.cpus > 1 else "single"
        return ("-accel", f"tcg,thread={thread},tb-size=256", "-cpu", "max", "-smp", str(self.cpus))

    def _chance(self) -> tuple[str, ...]:
        if self.repeatable:
            return ()
        return ("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng")

    def _firmware(self) -> tuple[str, ...]:
        if self.firmware == "bios":
            return ()
        # UEFI keeps variables in flash: a snapshot of the pristine ones each time, so that no run sees another's.
        code = "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"
        variables = "if=pflash,unit=1,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd"
        return ("-drive", code, "-drive", variables)

    def _kernel(self) -> tuple[str, ...]:
        if self.kernel is None:
            return ()
        initrd = ("-initrd", "/in/initrd") if self.initrd is not None else ()
        return ("-kernel", "/in/kernel", *initrd, *(("-append", self.append) if self.append else ()))

    def _medium(self) -> tuple[str, ...]:
        if self.medium is None:
            return ()
        source = "if=none,id=medium,format=raw,file=/in/medium"
        first = "" if self.kernel else ",bootindex=0"  # a kernel that QEMU starts itself comes first already
        if self.attach == "cdrom":
            return ("-drive", f"{source},media=cdrom,readonly=on", "-device", f"ide-cd,drive=medium{first}")
        # A disk must be writable to the guest; what it writes goes into a snapshot.
        drive = ("-drive", f"{source},snapshot=on")
        if self.attach == "disk":
            return (*drive, "-device", f"ide-hd,drive=medium{first}")
        return (*drive, "-device", "qemu-xhci", "-device", f"usb-storage,drive=medium{first}")

    def _network(self) -> tuple[str, ...]:
        if not self.nic:
            return ()
        # restrict=on: DHCP is answered by QEMU, every other packet is dropped. romfile=: no time spent on net boot.
        return ("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=")
