"""Strict readers of gzip and bzip2 files; the output gate's cell runs this file itself, as it does newc.py.

``gzip -dc`` passes over a header's comment and its extra field, which hold what they like, and bzip2 over whatever
follows a stream. Here nothing may lie in a file but streams, one behind the other (RFC 1952; bzip2 has no other
specification than its source), and zeros at the end of gzip's, as media pad it.

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import bz2
import re
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1024 * 1024
_NAME_FLAG = 8
_NAME = re.compile(rb"[ -~]{1,255}\0")


def extract(archive: BinaryIO, members: Path) -> None:
    """Write what a gzip or bzip2 file holds to ``members/content``. Raises ValueError, EOFError, OSError."""
    with (members / "content").open("xb") as file:
        start = archive.peek(3)[:3] if hasattr(archive, "peek") else b""
        if start == b"BZh":
            _bzip2(archive, file)
        else:
            _gzip(archive, file)


def _gzip(archive: BinaryIO, file: BinaryIO) -> None:
    rest = archive.read(_CHUNK)
    while rest.strip(b"\0"):
        rest = _member(archive, _behind_header(rest), file)
    while rest:
        if rest.strip(b"\0"):
            raise ValueError("something lies behind the end")
        rest = archive.read(_CHUNK)


def _behind_header(data: bytes) -> bytes:
    """What follows a member's header: magic, method, flags, time, extra flags, system, and perhaps the file's name."""
    if data[:3] != b"\x1f\x8b\x08" or len(data) < 18:
        raise ValueError("something lies behind the end")
    if data[3] & ~_NAME_FLAG:
        raise ValueError("the header has a comment or an extra field")
    if not data[3]:
        return data[10:]
    name = _NAME.match(data, 10)
    if name is None:
        raise ValueError("the header has a strange name")
    return data[name.end() :]


def _member(archive: BinaryIO, data: bytes, file: BinaryIO) -> bytes:
    """Write a member's content; what follows it, at least a header's worth if the archive has that."""
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    checksum, size = 0, 0
    while not reader.eof:
        content = reader.decompress(data, _CHUNK)
        checksum, size = zlib.crc32(content, checksum), size + len(content)
        file.write(content)
        data = reader.unconsumed_tail or (b"" if reader.eof else archive.read(_CHUNK))
        if not data and not reader.eof and not content:
            raise ValueError("it ends in the middle")
    rest = reader.unused_data
    while len(rest) < 8 + 300 and (more := archive.read(_CHUNK)):  # the trailer, and the next header with its name
        rest += more
    if rest[:8] != (checksum & 0xFFFFFFFF).to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        raise ValueError("its checksum is wrong")
    return rest[8:] or archive.read(_CHUNK)


def _bzip2(archive: BinaryIO, file: BinaryIO) -> None:
    data = archive.read(_CHUNK)
    while data:
        reader = bz2.BZ2Decompressor()
        while not reader.eof:
            file.write(reader.decompress(data, _CHUNK))
            data = b""
            if reader.needs_input and not reader.eof:
                data = archive.read(_CHUNK)
                if not data:
                    raise ValueError("it ends in the middle")
        data = reader.unused_data or archive.read(_CHUNK)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as opened:
        try:
            extract(opened, Path(sys.argv[2]))
        except (ValueError, EOFError, OSError, zlib.error) as problem:
            sys.exit(f"stream: {problem}")
