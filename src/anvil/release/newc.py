"""A strict reader of newc cpio archives, the form of an initramfs; the output gate's cell runs this file itself.

GNU cpio is no judge of what a kernel would unpack: it stops at the first trailer while a kernel goes on with the next
archive, leaves a name alone that is there already, and forgets the data of a second hard link. So every byte of the
archive is accounted for here (format: cpio(5); what a kernel makes of it: Linux
Documentation/driver-api/early-userspace/buffer-format.rst): it is a header, a name, a target, a member's data, or
zero, and every member's data becomes a file of its own. Links are not made: nothing can be written through one.

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER = re.compile(rb"070701([0-9A-Fa-f]{104})")
_MAX_PATH = 4096
_CHUNK = 1024 * 1024


def extract(archive: BinaryIO, members: Path) -> None:
    """Write the data of every regular file of ``archive`` below ``members``.

    Raises ValueError for whatever a kernel, cpio and this reader could understand differently, a repeated name among
    it, and OSError for a name that is a file's and a folder's, or for the disk.
    """
    seen: set[Path] = set()
    while True:
        mode, size, name = _header(archive)
        if name == "TRAILER!!!":
            break
        path = _path(members, name)
        if path in seen:
            raise ValueError(f"{name} is there twice")
        seen.add(path)
        if stat.S_ISREG(mode):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                _copy(archive, size, file.write)
            _padding(archive, size)
        elif stat.S_ISDIR(mode) and size == 0:
            path.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISLNK(mode) and 0 < size < _MAX_PATH:
            target = bytearray()
            _copy(archive, size, target.extend)
            _padding(archive, size)
            if b"\0" in target:
                raise ValueError(f"{name}: a link's target has a NUL in it")
        else:
            raise ValueError(f"{name} is neither a file, nor a folder, nor a link")
    if size:
        raise ValueError("the trailer has data")
    while chunk := archive.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise ValueError("something lies behind the archive's end")


def _header(archive: BinaryIO) -> tuple[int, int, str]:
    """The next member's mode, size and name."""
    header = archive.read(110)
    match = _HEADER.fullmatch(header)
    if match is None:
        raise ValueError("a header is damaged or missing")
    fields = [int(match[1][at : at + 8], 16) for at in range(0, 104, 8)]
    mode, size, length = fields[1], fields[6], fields[11]
    if not 2 <= length <= _MAX_PATH:
        raise ValueError("a name is too short or too long")
    name = archive.read(length)
    if len(name) != length or name.find(b"\0") != length - 1:
        raise ValueError("a name does not end where it should")
    _padding(archive, 110 + length)
    return mode, size, name[:-1].decode()


def _path(members: Path, name: str) -> Path:
    """Where a member goes: names that cpio would rewrite are refused, but for find's own "." and "./x"."""
    if name != "." and not set(name.removeprefix("./").split("/")).isdisjoint({"", ".", ".."}):
        raise ValueError(f"{name!r} is no plain relative path")
    return members / name


def _copy(archive: BinaryIO, size: int, write: Callable[[bytes], object]) -> None:
    while size:
        chunk = archive.read(min(size, _CHUNK))
        if not chunk:
            raise ValueError("the archive ends in the middle")
        write(chunk)
        size -= len(chunk)


def _padding(archive: BinaryIO, size: int) -> None:
    """Headers with their names, and data, are filled up to a multiple of four."""
    filling = archive.read(-size % 4)
    if filling != b"\0" * (-size % 4):
        raise ValueError("something lies between two members")


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as opened:
        try:
            extract(opened, Path(sys.argv[2]))
        except (ValueError, OSError) as problem:
            sys.exit(f"cpio: {problem}")
