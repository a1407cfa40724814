"""Manifests and their file times as canonical bytes, and strictly back.

A manifest's bytes are one canonical JSON object::

    {"entries":[["usr","d",493],["usr/a","f",420,5,"<sha256>"],["usr/b","l","a"]],"format":1,"removed":["old"]}

modes as decimal numbers, entries and removed paths each sorted by code point. Every entry's folder is listed too,
and so is every removed path's: a layer alone says which mode each of its folders has. The digest of these bytes is
the layer's identity.

The times are another blob, in no digest::

    {"format":1,"mtimes":[[1700000000,5],…],"touched":[[1700000000,6,"usr/c","f",420,5,"<sha256>"],…]}

one [seconds, nanoseconds] per entry, and the entries that a card wrote without changing them (``touch``): they are
no change, but ``make`` compares their times.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from anvil.errors import AnvilError, IntegrityError
from anvil.microjson.codec import canonical, parse_canonical
from anvil.model.layer import Digest, Entry, Manifest
from anvil.vault.digests import MEND, is_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
MAX_DEPTH = 200
"""Parts of a path. Beyond it tools break, and a walk by descriptor would run out of them."""
MAX_PATH = 3500
"""Bytes of a path: below PATH_MAX (4096) by what a home's own path may take."""
MAX_NAME = 255
NO_TIMES = Digest("")
MAX_MANIFEST = 1 << 29
"""Bytes of a manifest that is read back: about three million files."""
FIXED_TIME_NS = 315_532_800_000_000_000
"""1980-01-01, the oldest time that every archive format can tell: what has no time of its own gets this one."""

_BAD = frozenset(map(chr, (*range(32), *range(127, 160))))
_MAX_SECONDS = 1 << 53
_MAX_TARGET = 4095


class LayerRef(Protocol):
    """What names a layer: the digest of its manifest, and of its times ("" where it has none)."""

    @property
    def digest(self) -> Digest:
        """The sha256 of the manifest's bytes."""
        ...

    @property
    def times(self) -> Digest:
        """The sha256 of the times' bytes, or ""."""
        ...


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's name, for those who have no LayerRef of their own."""

    digest: Digest
    times: Digest = NO_TIMES


@dataclass(frozen=True, kw_only=True)
class Times:
    """File times of a layer, nanoseconds since 1970: one per entry of its manifest, and what was only touched."""

    mtimes: tuple[int, ...] = ()
    touched: tuple[tuple[Entry, int], ...] = ()


def name_problem(name: str) -> str:
    """Why a file name is refused; "" when it is not. Names with "/" are for ``path_problem``."""
    if name in {"", ".", ".."} or "/" in name:
        return "is not a name"
    if not _BAD.isdisjoint(name):
        return "holds a control character"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return "is too long" if length > MAX_NAME else ""


def path_problem(path: str) -> str:
    """Why a path of a manifest is refused; "" when it is not."""
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} folders deep"
    for part in parts:
        if problem := name_problem(part):
            return problem
    return f"is longer than {MAX_PATH} bytes" if len(path.encode()) > MAX_PATH else ""


def parent_of(path: str) -> str:
    """The folder a path is in, "" for the top."""
    return path.rpartition("/")[0]


# --- to bytes ------------------------------------------------------------------------------------------------


def _row(entry: Entry) -> list[Any]:
    if entry.type == "file":
        return [entry.path, "f", entry.mode, entry.size, entry.sha256]
    if entry.type == "dir":
        return [entry.path, "d", entry.mode]
    return [entry.path, "l", entry.target]


def manifest_to_bytes(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest whose entries and removed paths are sorted."""
    rows = [_row(entry) for entry in manifest.entries]
    return canonical({"entries": rows, "format": FORMAT, "removed": list(manifest.removed)}, max_bytes=MAX_MANIFEST)


def times_to_bytes(times: Times) -> bytes:
    """The canonical bytes of a layer's times."""
    rows = [list(_split(ns)) for ns in times.mtimes]
    touched = [[*_split(ns), *_row(entry)] for entry, ns in times.touched]
    return canonical({"format": FORMAT, "mtimes": rows, "touched": touched}, max_bytes=MAX_MANIFEST)


def _split(nanoseconds: int) -> tuple[int, int]:
    # a number of JSON is exact up to 2^53 only, which nanoseconds since 1970 are beyond
    return divmod(nanoseconds, 1_000_000_000)


# --- and back ------------------------------------------------------------------------------------------------


def manifest_from_bytes(data: bytes) -> Manifest:
    """A manifest from its canonical bytes.

    Raises IntegrityError for anything that ``manifest_to_bytes`` cannot have written: unsorted, doubled, absolute or
    escaping paths, a child below a file or link, a folder not listed.
    """
    value = _parsed(data, {"entries", "format", "removed"})
    entries = tuple(_entry(row) for row in _list(value["entries"]))
    removed = tuple(_path(path) for path in _list(value["removed"]))
    manifest = Manifest(entries=entries, removed=removed)
    check_manifest(manifest)
    return manifest


def times_from_bytes(data: bytes, manifest: Manifest) -> Times:
    """A manifest's times from their canonical bytes. Raises IntegrityError when they do not fit the manifest."""
    value = _parsed(data, {"format", "mtimes", "touched"})
    mtimes = tuple(_nanoseconds(row) for row in _list(value["mtimes"]))
    touched = []
    for row in _list(value["touched"]):
        if len(_list(row)) < 5:
            raise _refused("a touched entry is cut short")
        touched.append((_entry(row[2:]), _nanoseconds(row[:2])))
    if len(mtimes) != len(manifest.entries):
        raise _refused("there are not as many times as entries")
    whole = {entry.path: entry for entry in manifest.entries}
    for entry, _ in touched:
        if whole.setdefault(entry.path, entry) is not entry:
            raise _refused(f"{entry.path!r} is touched and changed")
    _check_sorted([entry.path for entry, _ in touched])
    _check_folders(whole, whole)
    return Times(mtimes=mtimes, touched=tuple(touched))


def check_manifest(manifest: Manifest) -> None:
    """Raise IntegrityError unless the entries of a manifest fit together."""
    paths = [entry.path for entry in manifest.entries]
    _check_sorted(paths)
    _check_sorted(list(manifest.removed))
    whole = {entry.path: entry for entry in manifest.entries}
    _check_folders(whole, whole)
    _check_folders(manifest.removed, whole)
    for path in manifest.removed:
        entry = whole.get(path)
        if entry is not None and entry.type != "dir":
            raise _refused(f"{path!r} is removed, and listed as a {entry.type}")


def _check_sorted(paths: list[str]) -> None:
    for one, next_one in pairwise(paths):
        if one >= next_one:
            raise _refused(f"{next_one!r} is not in its place" if one > next_one else f"{one!r} is listed twice")


def _check_folders(paths: Iterable[str], whole: dict[str, Entry]) -> None:
    for folder in {parent_of(path) for path in paths}:
        if folder:
            entry = whole.get(folder)
            if entry is None or entry.type != "dir":
                raise _refused(f"{folder!r} has something below it and is not listed as a folder")


def _parsed(data: bytes, keys: set[str]) -> dict[str, Any]:
    try:
        value = parse_canonical(data, max_bytes=MAX_MANIFEST)
    except AnvilError as problem:
        raise _refused(problem.message) from problem
    if not isinstance(value, dict) or set(value) != keys:
        raise _refused("it is not one")
    if value["format"] != FORMAT:
        raise IntegrityError(
            f"a manifest of format {value['format']!r}: this Anvil knows {FORMAT}", hint="use the Anvil that made it"
        )
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _refused("a list is missing")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str):
        raise _refused("a path is not a text")
    if problem := path_problem(value):
        raise _refused(f"path {value[:200]!r} {problem}")
    return value


def _natural(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise _refused(f"{str(value)[:40]!r} is not a number up to {limit}")
    return value


def _entry(row: object) -> Entry:
    match row:
        case [path, "f", mode, size, str(sha256)] if is_digest(sha256):
            mode, size = _natural(mode, 0o777), _natural(size, _MAX_SECONDS)
            return Entry(path=_path(path), type="file", mode=mode, size=size, sha256=Digest(sha256))
        case [path, "d", mode]:
            return Entry(path=_path(path), type="dir", mode=_natural(mode, 0o777))
        case [path, "l", str(target)] if not target_problem(target):
            return link_entry(_path(path), target)
    raise _refused(f"an entry is malformed: {str(row)[:200]!r}")


def link_entry(path: str, target: str) -> Entry:
    """The entry of a link: a link's own mode means nothing, so all have the same."""
    return Entry(path=path, type="link", mode=0o777, target=target)


def target_problem(target: str) -> str:
    """Why a link's target is refused; "" when it is not. It may point anywhere: it is never followed."""
    if not target or not _BAD.isdisjoint(target):
        return "is empty or holds a control character"
    try:
        return "is too long" if len(target.encode()) > _MAX_TARGET else ""
    except UnicodeEncodeError:
        return "is not UTF-8"


def _nanoseconds(row: object) -> int:
    match row:
        case [int(seconds), int(rest)] if abs(seconds) <= _MAX_SECONDS and 0 <= rest < 1_000_000_000:
            return seconds * 1_000_000_000 + rest
    raise _refused("a time is malformed")


def _refused(why: str) -> IntegrityError:
    return IntegrityError(f"a manifest is refused: {why}", hint=MEND)
