"""Debian control stanzas (deb822(5)), read one at a time from a stream of any length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from anvil.errors import IntegrityError
from anvil.model.lock import PinnedFile
from anvil.sources.lockfile import is_pool_path

Stanza = Mapping[str, str]
"""Field name in lower case to value; the lines of a long value are joined by newlines, their indent removed."""

MAX_STANZA_BYTES = 4 * 1024 * 1024


def read_stanzas(lines: Iterable[bytes]) -> Iterator[Stanza]:
    """The stanzas of a control file. Raises IntegrityError for a line that is none of it, or a stanza too large."""
    fields: dict[str, str] = {}
    size = 0
    name = ""
    for raw in lines:
        size += len(raw)
        if size > MAX_STANZA_BYTES:
            raise IntegrityError(f"a stanza of an index is larger than {MAX_STANZA_BYTES} bytes")
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line.strip():
            if fields:
                yield fields
            fields, size, name = {}, 0, ""
        elif line[0] in " \t":
            if not name:
                raise IntegrityError(f"an index begins a stanza with a continued line: {line[:60]!r}")
            fields[name] += "\n" + line[1:]
        elif line[0] != "#":
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not name or name in fields:
                raise IntegrityError(f"an index has a line that is no field, or is there twice: {line[:60]!r}")
            fields[name] = value.strip()
    if fields:
        yield fields


def field(stanza: Stanza, name: str) -> str:
    """A field that must be there."""
    value = stanza.get(name.lower(), "")
    if not value:
        raise IntegrityError(f"{stanza.get('package', 'a stanza')} of an index has no field {name}")
    return value


def sums(value: str) -> Iterator[tuple[str, int, str]]:
    """The (sha256, size, name) lines of a SHA256 or Checksums-Sha256 field."""
    for line in value.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 3:
            raise IntegrityError(f"a list of checksums has a line that is none: {line[:100]!r}")
        yield _sha256(words[0]), _size(words[1]), words[2]


def package_file(stanza: Stanza, archive: str) -> PinnedFile:
    """The .deb of a Packages stanza."""
    return _pinned(archive, field(stanza, "Filename"), _sha256(field(stanza, "SHA256")), _size(field(stanza, "Size")))


def source_files(stanza: Stanza, archive: str) -> tuple[PinnedFile, ...]:
    """The files of a Sources stanza: the .dsc, tarballs and their signatures."""
    folder = field(stanza, "Directory")
    return tuple(
        _pinned(archive, f"{folder}/{name}", sha256, size)
        for sha256, size, name in sums(field(stanza, "Checksums-Sha256"))
    )


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise IntegrityError(f"an index has a sha256 that is none: {text[:70]!r}")
    return text.lower()


def _size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise IntegrityError(f"an index has a size that is none: {text[:20]!r}")
    return int(text)


def _pinned(archive: str, path: str, sha256: str, size: int) -> PinnedFile:
    if not is_pool_path(path):
        raise IntegrityError(f"an index names a file outside its archive: {path!r}")
    return PinnedFile(name=path.rpartition("/")[2], sha256=sha256, size=size, archive=archive, path=path)
