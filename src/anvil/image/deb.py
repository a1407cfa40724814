"""Read a binary package: an ``ar`` archive of debian-binary, control.tar.* and data.tar.* (deb(5)).

Nothing here writes a file except the spool that the caller hands in, and everything read is capped: a package is
pinned by its hash, but the unpacker does not rely on that.
"""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Protocol

from anvil.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60
MAX_MEMBERS = 16
MAX_CONTROL = 16 << 20
CHUNK = 1 << 20


class _Decompressor(Protocol):
    """What bz2, lzma and zlib agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Control:
    """The control part: its fields as written (continuation lines kept), and its other files by name."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class Deb:
    """An open package. Every method raises IntegrityError, naming the file, when the package is not as deb(5) says."""

    def __init__(self, path: Path, *, max_unpacked: int, name: str = "") -> None:
        """path, and what people call it (where path is a content store's).

        max_unpacked: the most bytes that data.tar may have when it is decompressed.
        """
        self._path = path
        self._name = name or path.name
        self._max = max_unpacked

    def control(self) -> Control:
        """The control fields and the maintainer scripts beside them."""
        with self._path.open("rb") as file:
            spool = io.BytesIO()
            self._expand(file, self._find(file, "control.tar"), spool, MAX_CONTROL)
        spool.seek(0)
        files: dict[str, bytes] = {}
        for entry, body in members(spool, where=self._name):
            name = entry.name.removeprefix("./")
            if entry.isreg() and body is not None and "/" not in name:
                files[name] = body.read(MAX_CONTROL)
        return Control(fields=parse_stanza(self._text(files.pop("control", b""))), files=files)

    def expand_data(self, spool: IO[bytes]) -> None:
        """Decompress data.tar into spool (a writable binary file) and rewind it."""
        with self._path.open("rb") as file:
            self._expand(file, self._find(file, "data.tar"), spool, self._max)
        spool.seek(0)

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._bad("its control file is not UTF-8") from None

    def _find(self, file: IO[bytes], stem: str) -> _Member:
        for member in self._members(file):
            if member.name == stem or member.name.startswith(f"{stem}."):
                return member
        raise self._bad(f"it has no {stem}")

    def _members(self, file: IO[bytes]) -> Iterator[_Member]:
        if file.read(len(AR_MAGIC)) != AR_MAGIC:
            raise self._bad("it does not begin with the ar magic")
        offset = len(AR_MAGIC)
        end = self._path.stat().st_size
        for _ in range(MAX_MEMBERS):
            file.seek(offset)
            header = file.read(AR_HEADER)
            if not header:
                return
            size_text = header[48:58].strip()
            if len(header) < AR_HEADER or header[58:] != b"`\n" or not size_text.isdigit():
                raise self._bad("an ar header is damaged")
            size = int(size_text)
            offset += AR_HEADER
            if offset + size > end:
                raise self._bad("it is cut short")
            yield _Member(name=header[:16].decode("latin-1").rstrip().rstrip("/"), offset=offset, size=size)
            offset += size + (size & 1)
        raise self._bad("it has too many ar members")

    def _expand(self, file: IO[bytes], member: _Member, spool: IO[bytes], limit: int) -> None:
        reader = self._decompressor(member.name)
        file.seek(member.offset)
        left, written = member.size, 0
        try:
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise self._bad("it is cut short")
                left -= len(data)
                for piece in [data] if reader is None else _pieces(reader, data):
                    written += len(piece)
                    if written > limit:
                        raise self._bad(f"{member.name} unpacks to more than {limit} bytes")
                    spool.write(piece)
        except (lzma.LZMAError, zlib.error, OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self._bad(f"{member.name} is damaged ({error})") from error
        if reader is not None and not reader.eof:
            raise self._bad(f"{member.name} is cut short")

    def _decompressor(self, name: str) -> _Decompressor | None:
        if name.endswith(".tar"):
            return None
        if name.endswith(".xz"):
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        if name.endswith(".gz"):
            return _Gzip()
        if name.endswith(".bz2"):
            return bz2.BZ2Decompressor()
        raise self._bad(f"{name} has a compression that is not supported (xz, gz and bz2 are)")

    def _bad(self, why: str) -> IntegrityError:
        return IntegrityError(
            f"the package {self._name} cannot be unpacked: {why}",
            where=str(self._path),
            hint="fetch it again; if it stays so, make a new lock: anvil sources update",
        )


class _Gzip:
    """zlib's decompressor with bz2's and lzma's way of keeping what max_length held back."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _pieces(reader: _Decompressor, data: bytes) -> Iterator[bytes]:
    """What data decompresses to, in pieces of bounded size: a bomb never gets to fill the memory."""
    while not reader.eof:
        piece = reader.decompress(data, CHUNK)
        data = b""
        yield piece
        if not piece and reader.needs_input:
            return


def members(tar: IO[bytes], *, where: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each member of an uncompressed tar and, for a plain file, its bytes. IntegrityError if the tar is damaged."""
    try:
        with tarfile.open(fileobj=tar, mode="r:", encoding="utf-8", errors="strict") as archive:
            for entry in archive:
                yield entry, archive.extractfile(entry) if entry.isreg() else None
    except (tarfile.TarError, UnicodeError, ValueError, OverflowError) as error:
        raise IntegrityError(f"a tar archive is damaged: {error}", where=where) from error


def parse_stanza(text: str) -> dict[str, str]:
    """One deb822 paragraph. Continuation lines are kept with their line breaks, so that it can be written again."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip():
            continue
        if line[0] in " \t":
            if name:
                fields[name] += f"\n{line}"
            continue
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    return fields
