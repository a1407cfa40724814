"""Guests of 512 bytes: they say what a test wants on the first serial port, and then do one more thing."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HALT = b"\xf4\xeb\xfd"  # hlt; jmp back
RESET = b"\xb0\xfe\xe6\x64" + HALT  # out 0x64, 0xfe: the keyboard controller resets the machine
POWER_OFF = b"\xba\x04\x06\xb8\x00\x20\xef" + HALT  # out 0x604, 0x2000: ACPI S5 on QEMU's q35
ECHO = (
    b"\xba\xfd\x03\xec\xa8\x01\x74\xf8"  # wait for bit 0 of port 0x3fd: a byte has come
    b"\xba\xf8\x03\xec\xee\xeb\xf1"  # in al, 0x3f8; out 0x3f8, al; again
)


def write_self(drive: int) -> bytes:
    """Write this sector to the first one of a BIOS drive (0x80 the first disk)."""
    return (
        b"\x31\xc0\x8e\xc0\xbb\x00\x7c"  # es:bx = 0:0x7c00
        b"\xb8\x01\x03\xb9\x01\x00"  # write one sector; cylinder 0, sector 1
        b"\xb6\x00\xb2" + bytes([drive]) + b"\xcd\x13"  # head 0, the drive; int 0x13
    )


def sector(words: str, then: bytes = HALT, *, first: bytes = b"") -> bytes:
    """A boot sector, padded to a small disk: ``first``, then the words, then ``then``."""
    say = (
        b"\x31\xc0\x8e\xd8\xfc"  # ds = 0; cld
        b"\xbe%s"  # si = the words
        b"\xac\x84\xc0\x74\x11"  # lodsb; at the zero go on below
        b"\x88\xc4\xba\xfd\x03\xec\xa8\x20\x74\xfb"  # wait for bit 5 of port 0x3fd: the port can take a byte
        b"\x88\xe0\xb2\xf8\xee\xeb\xea"  # out 0x3f8; again
    )
    length = len(first) + len(say) + len(then)
    place = struct.pack("<H", 0x7C00 + length)
    code = first + say.replace(b"%s", place) + then
    assert len(code) == length, "%s is as long as what replaces it"
    data = code + words.encode() + b"\0"
    return (data.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")


def medium(folder: Path, words: str, then: bytes = HALT, *, first: bytes = b"") -> Path:
    """The same as a file."""
    path = folder / "medium.img"
    path.write_bytes(sector(words, then, first=first))
    return path
