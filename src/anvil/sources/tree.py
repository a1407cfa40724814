"""Whether an unpacked source tree is what its pinned archive holds, file by file.

Of a file, its bytes and whether its owner may run it are compared; of a link, its target; of a folder, that it is one.
Left out are times, owners and the other mode bits: unpacking sets them by the umask and the user, and no card sees
them. No link is followed, and nothing in the tree is changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anvil.errors import EnvironmentLack, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

MOST_NAMES = 2_000_000
_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FIELDS = 5


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A name of an archive. mark: a file's sha256, a link's target, "" of a folder. size: bytes."""

    kind: Literal["file", "dir", "link"]
    executable: bool
    size: int
    mark: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A name that differs. kind: "missing" from the tree, "extra" in it, or "changed"; what: in which way."""

    kind: Literal["missing", "extra", "changed"]
    path: str
    what: str = ""


def parse(said: bytes) -> dict[str, Listed]:
    """The answer of ``listing.py``, and the folders that an archive has names in without listing them.

    It comes out of a cell and is believed in nothing. Raises IntegrityError.
    """
    listed: dict[str, Listed] = {}
    try:
        for line in said.splitlines():
            path, kind, executable, size, mark = json.loads(line)
            if (type(path), type(executable), type(size), type(mark)) != (str, bool, int, str):
                raise TypeError(line)
            if kind not in {"file", "dir", "link"} or {"", ".", ".."} & set(path.split("/")) or path in listed:
                raise ValueError(line)
            listed[path] = Listed(kind=kind, executable=executable, size=size, mark=mark)
    except (ValueError, TypeError, RecursionError) as error:
        raise IntegrityError("the archive could not be read", detail=f"{error!r:.500}") from error
    if not 0 < len(listed) <= MOST_NAMES:
        raise IntegrityError(f"the archive holds {len(listed)} names")
    for path in list(listed):
        while (path := path.rpartition("/")[0]) and path not in listed:
            listed[path] = Listed(kind="dir", executable=False, size=0, mark="")
    return listed


def compare(
    listed: Mapping[str, Listed], tree: Path, tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Difference]:
    """Every difference, in the order of the paths found, then what is missing, sorted.

    A folder too many is told once, without what is in it. tell: called with each folder. Raises EnvironmentLack for a
    tree that cannot be read.
    """
    met: set[str] = set()
    told: set[str] = set()
    try:
        root = os.open(tree, _DIRECTORY)
    except OSError as error:
        raise EnvironmentLack(
            f"{tree} cannot be read: {error.strerror}", hint="name a folder that is there"
        ) from error
    try:
        for difference in _folder(listed, root, "", met, tell):
            told.add(difference.path)
            yield difference
    except OSError as error:
        raise EnvironmentLack(
            f"{tree} cannot be read: {error.strerror}", where=str(error.filename or ""), hint="mend that, then again"
        ) from error
    finally:
        os.close(root)
    for path in sorted(listed.keys() - met):
        above = path.rpartition("/")[0]
        if above not in told:  # else it is told with its folder
            yield Difference(kind="missing", path=path)
        told.add(path)


def _folder(
    listed: Mapping[str, Listed], fd: int, prefix: str, met: set[str], tell: Callable[[str], None]
) -> Iterator[Difference]:
    tell(prefix)
    with os.scandir(fd) as entries:
        names = sorted(os.fsencode(entry.name) for entry in entries)
    for raw in names:
        path = prefix + os.fsdecode(raw)
        status = os.stat(raw, dir_fd=fd, follow_symlinks=False)
        expected = listed.get(path)
        if stat.S_ISDIR(status.st_mode):
            if expected is None:
                yield Difference(kind="extra", path=f"{path}/")
                continue
            met.add(path)
            if expected.kind != "dir":
                yield Difference(kind="changed", path=path, what=f"a folder in the place of a {expected.kind}")
                continue
            inner = os.open(raw, _DIRECTORY, dir_fd=fd)
            try:
                yield from _folder(listed, inner, f"{path}/", met, tell)
            finally:
                os.close(inner)
        elif expected is None:
            yield Difference(kind="extra", path=path)
        else:
            met.add(path)
            if what := _other(fd, raw, status, expected):
                yield Difference(kind="changed", path=path, what=what)


def _other(fd: int, name: bytes, status: os.stat_result, expected: Listed) -> str:
    """How something that is no folder differs from what the archive holds; "" for not at all."""
    if stat.S_ISLNK(status.st_mode):
        if expected.kind != "link":
            return f"a link in the place of a {expected.kind}"
        target = os.fsdecode(os.readlink(name, dir_fd=fd))
        return "" if target == expected.mark else f"leads to {target!r} instead of {expected.mark!r}"
    if not stat.S_ISREG(status.st_mode):
        return "neither a file, a folder nor a link"
    if expected.kind != "file":
        return f"a file in the place of a {expected.kind}"
    if status.st_size != expected.size:
        return f"{status.st_size} bytes instead of {expected.size}"
    if _sha256(fd, name) != expected.mark:
        return "other bytes"
    if bool(status.st_mode & 0o100) != expected.executable:
        return "may not be run" if expected.executable else "may be run"
    return ""


def _sha256(folder: int, name: bytes) -> str:
    digest = hashlib.sha256()
    fd = os.open(name, _FILE, dir_fd=folder)
    try:
        while block := os.read(fd, _CHUNK):
            digest.update(block)
    finally:
        os.close(fd)
    return digest.hexdigest()
