"""A strict reader of tar archives; the output gate's cell runs this file itself, as it does newc.py.

GNU tar reads what it is asked for and passes over the rest: comments and extended attributes in pax records, whatever
fills a block up, what lies behind the end. So every byte is accounted for here (POSIX.1 pax, "ustar Interchange
Format"; GNU tar's manual, "Basic Tar Format"): it is a field of a header, a name, a member's data, or zero.
Links are not made: nothing can be written through one, and nothing may lie below one.

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import BinaryIO

_BLOCK = 512
_CHUNK = 1024 * 1024
_LONGEST = 65536  # bytes of a long name, or of a member's pax records
_MAGIC = {b"ustar\x0000", b"ustar  \0"}  # POSIX's and GNU's
_FILE, _HARD, _LINK, _FOLDER, _PAX, _GNU_NAME, _GNU_LINK = b"0", b"1", b"2", b"5", b"x", b"L", b"K"
_PAX_RECORDS = {"path", "linkpath", "size", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"}
_WHO = re.compile(r"[A-Za-z0-9_.$-]{0,64}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,12})?")


class _Header:
    """The fields of a header block. Raises ValueError for one that says anything else."""

    def __init__(self, block: bytes) -> None:
        total = 256 + sum(block[:148]) + sum(block[156:])
        if len(block) != _BLOCK or block[257:265] not in _MAGIC or _octal(block[148:156]) != total:
            raise ValueError("a header is damaged or missing")
        self.kind = block[156:157].replace(b"\0", _FILE)
        self.name = _text(block[0:100])
        self.target = _text(block[157:257])
        self.size = _number(block[124:136])
        for place in (block[100:108], block[108:116], block[116:124], block[136:148], block[329:337], block[337:345]):
            _number(place)
        if not (_WHO.fullmatch(_text(block[265:297])) and _WHO.fullmatch(_text(block[297:329]))):
            raise ValueError(f"{self.name}: an owner has a strange name")
        prefix = _text(block[345:500])
        if prefix and block[257:265] == b"ustar  \0":
            raise ValueError(f"{self.name}: there is something behind the header's fields")
        if prefix:
            self.name = f"{prefix}/{self.name}"
        if block[500:].strip(b"\0"):
            raise ValueError(f"{self.name}: there is something behind the header's fields")


def extract(archive: BinaryIO, members: Path) -> None:
    """Write the data of every regular file of ``archive`` below ``members``.

    Raises ValueError for whatever two readers could understand differently, a repeated name among it, and OSError for
    a name that is a file's and a folder's, or for the disk.
    """
    seen: dict[Path, bytes] = {}
    said: dict[str, str] = {}  # what records before a member say of it
    while (block := archive.read(_BLOCK)).strip(b"\0"):
        header = _Header(block)
        if header.kind in {_PAX, _GNU_NAME, _GNU_LINK}:
            _take(said, header, _data(archive, header.size))
            continue
        path = _path(members, said.get("path", header.name), folder=header.kind == _FOLDER)
        size = int(said["size"]) if said.get("size", "").isdecimal() else header.size
        target = said.get("linkpath", header.target)
        said = {}
        if path in seen:
            raise ValueError(f"{header.name} is there twice")
        if any(seen.get(above) in {_LINK, _HARD} for above in path.parents):
            raise ValueError(f"{header.name} lies below a link")
        seen[path] = header.kind
        if header.kind == _FILE and not target:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                _copy(archive, size, file)
        elif header.kind == _FOLDER and size == 0 and not target:
            path.mkdir(parents=True, exist_ok=True)
        elif header.kind == _HARD and seen.get(_path(members, target)) == _FILE and size == 0:
            continue
        elif header.kind != _LINK or size or not target:
            raise ValueError(f"{header.name} is neither a file, nor a folder, nor a link")
    if said:
        raise ValueError("the archive ends where a member should begin")
    rest = len(block)
    while chunk := archive.read(_CHUNK):
        rest += len(chunk)
        if chunk.strip(b"\0"):
            raise ValueError("something lies behind the archive's end")
    if rest < 2 * _BLOCK:
        raise ValueError("the archive has no end")


def _take(said: dict[str, str], header: _Header, data: bytes) -> None:
    """A record about the next member: a long name of GNU's, or pax records."""
    if header.kind == _PAX:
        while data:
            length, _, rest = data.partition(b" ")
            record = rest[: int(length) - len(length) - 1] if length.isdigit() else b""
            key, equals, value = record.partition(b"=")
            name = key.decode()
            if not record.endswith(b"\n") or not equals or name not in _PAX_RECORDS or name in said:
                raise ValueError(f"a record that no reader needs: {record[:80]!r}")
            said[name] = _plain(value[:-1])
            test = None if name in {"path", "linkpath"} else _WHO if name.endswith("name") else _NUMBER
            if test and not test.fullmatch(said[name]):
                raise ValueError(f"a strange {name}: {said[name]!r:.80}")
            data = data[int(length) :]
        return
    name = "path" if header.kind == _GNU_NAME else "linkpath"
    if header.name != "././@LongLink" or name in said or data[-1:] != b"\0":
        raise ValueError("a long name is malformed")
    said[name] = _plain(data[:-1])


def _data(archive: BinaryIO, size: int) -> bytes:
    if not 0 < size <= _LONGEST:
        raise ValueError("a name is too long")
    data = archive.read(size)
    if len(data) != size:
        raise ValueError("the archive ends in the middle")
    _padding(archive, size)
    return data


def _copy(archive: BinaryIO, size: int, file: BinaryIO) -> None:
    left = size
    while left:
        chunk = archive.read(min(left, _CHUNK))
        if not chunk:
            raise ValueError("the archive ends in the middle")
        file.write(chunk)
        left -= len(chunk)
    _padding(archive, size)


def _padding(archive: BinaryIO, size: int) -> None:
    filling = archive.read(-size % _BLOCK)
    if filling != b"\0" * (-size % _BLOCK):
        raise ValueError("something lies between two members")


def _path(members: Path, name: str, *, folder: bool = False) -> Path:
    name = name.removesuffix("/") if folder else name
    if name != "." and not set(name.removeprefix("./").split("/")).isdisjoint({"", ".", ".."}):
        raise ValueError(f"{name!r} is no plain relative path")
    return members / name


def _plain(value: bytes) -> str:
    if b"\0" in value:
        raise ValueError("a name has a NUL in it")
    return value.decode()


def _text(field: bytes) -> str:
    value, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise ValueError("there is something behind a name's end")
    return value.decode()


def _number(field: bytes) -> int:
    """Octal digits, or the base-256 form that GNU tar has for what needs more."""
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    if digits and not re.fullmatch(rb"[0-7]+", digits):
        raise ValueError("a header's number is none")
    return int(digits or b"0", 8)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as opened:
        try:
            extract(opened, Path(sys.argv[2]))
        except (ValueError, OSError) as problem:
            sys.exit(f"tar: {problem}")
