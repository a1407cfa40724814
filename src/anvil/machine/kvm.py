"""Whether KVM runs a guest here. Asked of a guest, never of the device node.

``/dev/kvm`` exists on machines where guests abort, hang or are emulated into a crash; there even a boot sector in
real mode prints its letter. So the probe is a Linux: it must come up with ``-cpu host`` and run a program of ours.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from anvil.machine.machine import boot
from anvil.machine.spec import MachineSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anvil.machine.machine import Place
    from anvil.machine.spec import Accelerator

_WORDS = b"ANVIL KVM GUEST RUNS\n"
_PATIENCE = 8.0  # seconds; under a KVM that works a kernel is up in one


def accelerator(
    place: Place, *, kernel: Path, scratch: Path, recall: Callable[[], str], remember: Callable[[str], None]
) -> Accelerator:
    """The accelerator to use on this machine: what is remembered, or else what a probe finds, which is remembered.

    recall: gives "kvm", "tcg", or "" when nothing is known (of this host and this base image). scratch: a folder.
    """
    known = recall()
    if known in {"kvm", "tcg"}:
        return "kvm" if known == "kvm" else "tcg"
    found: Accelerator = "kvm" if kvm_runs(place, kernel=kernel, scratch=scratch) else "tcg"
    remember(found)
    return found


def kvm_runs(place: Place, *, kernel: Path, scratch: Path) -> bool:
    """Boot ``kernel`` under KVM with a first program that says a line and switches off; at most _PATIENCE seconds."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    initrd = scratch / "probe.cpio"
    initrd.write_bytes(probe_initrd())
    spec = MachineSpec(
        kernel=kernel, initrd=initrd, append="console=ttyS0,115200 quiet panic=-1", accelerator="kvm", nic=False
    )
    transcript = scratch / "probe.console"
    return boot(spec, place, expect=_WORDS.decode().strip(), timeout=_PATIENCE, transcript=transcript).ok


def probe_initrd() -> bytes:
    """A cpio archive ("newc", see the kernel's buffer-format.rst) with /init and nothing else."""
    return newc("init", 0o100755, _probe_program()) + newc("TRAILER!!!", 0, b"")


def newc(name: str, mode: int, data: bytes) -> bytes:
    """A member of such an archive; mode: with the bits of its type."""
    # magic, then inode, mode, uid, gid, links, mtime, size, device x2, rdevice x2, name size, checksum
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _probe_program() -> bytes:
    """A static x86-64 ELF: write(1, words), reboot(POWER_OFF), and wait for ever should that fail."""
    code = (
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1 (the console: the kernel opens it for its first program)
        b"\x48\x8d\x35\x22\x00\x00\x00"  # lea rsi, [rip + 34] (the words, behind the code)
        b"\xba" + struct.pack("<I", len(_WORDS)) + b"\x0f\x05"  # mov edx, length; syscall
        b"\xb8\xa9\x00\x00\x00"  # mov eax, 169 (reboot)
        b"\xbf\xad\xde\xe1\xfe"  # mov edi, 0xfee1dead
        b"\xbe\x69\x19\x12\x28"  # mov esi, 672274793
        b"\xba\xdc\xfe\x21\x43"  # mov edx, 0x4321fedc (power off)
        b"\x0f\x05"  # syscall
        b"\xf3\x90\xeb\xfc\x90"  # pause; jmp back; nop
    )
    base, headers = 0x400000, 64 + 56
    size = headers + len(code) + len(_WORDS)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    # type EXEC, machine x86-64, version, entry, program headers at 64, no sections, flags, sizes and counts
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    # one segment, read and execute, from the file's start
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + load + code + _WORDS
