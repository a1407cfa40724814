"""Walking a directory that a card left: by descriptor, following nothing, believing nothing."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from anvil.errors import LimitExceeded, OutputForbidden
from anvil.model.layer import Digest, Entry
from anvil.vault.disk import DIRECTORY, PATH_ONLY, REGULAR, chmod_entry, open_directory, translated
from anvil.vault.manifest import MAX_DEPTH, MAX_PATH, link_entry, name_problem, target_problem

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["tree", "changes"]
"""tree: a directory as it is. changes: an overlayfs upper directory."""

_OVERLAY = ("user.overlay.", "trusted.overlay.")
_CARRIED = ("user.", "trusted.", "security.capability", "system.posix_acl")
"""Extended attributes that could mean something in a tree that is used again; a label of the host's is none."""
_HARMLESS = frozenset({"origin", "impure", "nlink", "uuid", "upper", "protattr"})
"""What overlayfs itself notes on an upper directory and does not need on a lower one."""


class Keep(Protocol):
    """What takes a file's bytes: a batch, or a mere hasher."""

    def put_descriptor(self, fd: int, size: int) -> Digest:
        """Take ``size`` bytes of an open file; their sha256."""
        ...


@dataclass(frozen=True, kw_only=True)
class OutputLimits:
    """How much a card may leave.

    total_bytes: apparent sizes summed (``st_size``: a sparse file counts with its holes, since whoever reads it
    reads them, and a hard link counts again). entries: files, folders, links and removals.
    """

    total_bytes: int
    entries: int = 2_000_000


@dataclass(kw_only=True)
class Scan:
    """What was found.

    entries and mtimes (nanoseconds): in the order found. removed: whiteouts. replaced: opaque directories. unclean:
    paths that carry what is never kept: set-id bits, extended attributes, another owner. total_bytes: as limited.
    """

    entries: list[Entry] = field(default_factory=list)
    mtimes: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)
    total_bytes: int = 0
    count: int = 0


def scan(root: Path, *, kind: Kind, limits: OutputLimits, keep: Keep, owner: int | None = None) -> Scan:
    """Walk a directory and hand every file's bytes to ``keep``. No process may still be able to change it.

    The modes of the files are left as they are (what its mode forbids to read is opened for the time of reading).
    owner: the uid everything should belong to, None if that does not matter.
    Raises OutputForbidden for what may never be kept, LimitExceeded for too much of it; both name the path.
    """
    walk = _Walk(kind=kind, limits=limits, keep=keep, owner=owner)
    with translated("collecting what a card left", root):
        fd = os.open(root, DIRECTORY)
        try:
            walk.attributes(fd, "", is_folder=True)
            walk.folder(fd, "", 1)
        finally:
            os.close(fd)
    return walk.found


class _Walk:
    def __init__(self, *, kind: Kind, limits: OutputLimits, keep: Keep, owner: int | None) -> None:
        self.kind = kind
        self.limits = limits
        self.keep = keep
        self.owner = owner
        self.found = Scan()

    def folder(self, fd: int, prefix: str, depth: int) -> None:
        """Everything below an open folder; ``prefix``: its path and a slash, or ""."""
        with os.scandir(fd) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        if entries and depth > MAX_DEPTH:
            raise _forbidden(prefix[:-1], f"is more than {MAX_DEPTH} folders deep")
        for entry in entries:
            self._entry(fd, entry, prefix, depth)

    def _entry(self, fd: int, listed: os.DirEntry[str], prefix: str, depth: int) -> None:
        name = listed.name
        path = prefix + name
        if problem := name_problem(name):
            raise _forbidden(path, f"has a name that {problem}")
        if len(path) > MAX_PATH // 4 and len(path.encode()) > MAX_PATH:
            raise _forbidden(path, f"has a path of more than {MAX_PATH} bytes")
        self._count(path)
        status = listed.stat(follow_symlinks=False)
        mode = status.st_mode
        if self.owner is not None and status.st_uid != self.owner:
            self.found.unclean.append(path)
        if stat.S_ISREG(mode):
            self._file(fd, name, path, status)
        elif stat.S_ISDIR(mode):
            self._directory(fd, name, path, status, depth)
        elif stat.S_ISLNK(mode):
            self._link(fd, name, path, status)
        elif self.kind == "changes" and stat.S_ISCHR(mode) and status.st_rdev == 0:
            self.found.removed.append(path)
        else:
            raise _forbidden(path, f"is {_kind_of(mode)}, which is never kept")

    def _count(self, path: str) -> None:
        self.found.count += 1
        if self.found.count > self.limits.entries:
            raise _too_much(path, f"more than {self.limits.entries} files")

    def _file(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        self.found.total_bytes += status.st_size
        if self.found.total_bytes > self.limits.total_bytes:
            raise _too_much(path, f"more than {self.limits.total_bytes} bytes (holes counted)")
        fd = _open_file(name, parent, status.st_mode)
        try:
            _same(fd, status, path)
            if status.st_mode & ~0o777 & 0o7777:
                self.found.unclean.append(path)
            self.attributes(fd, path, is_folder=False)
            digest = self.keep.put_descriptor(fd, status.st_size)
            _same(fd, status, path)
        finally:
            os.close(fd)
        mode = status.st_mode & 0o777
        self.found.entries.append(Entry(path=path, type="file", mode=mode, size=status.st_size, sha256=digest))
        self.found.mtimes[path] = status.st_mtime_ns

    def _directory(self, parent: int, name: str, path: str, status: os.stat_result, depth: int) -> None:
        mode = status.st_mode & 0o777
        self.found.entries.append(Entry(path=path, type="dir", mode=mode))
        self.found.mtimes[path] = status.st_mtime_ns
        # the owner's r and x are what reading it needs; root needs neither
        closed = mode & 0o500 != 0o500 and os.geteuid() != 0
        if closed:
            chmod_entry(name, parent, mode | 0o700)
        fd = open_directory(name, parent)
        try:
            if not os.path.samestat(os.fstat(fd), status):
                raise _changed(path)
            if status.st_mode & ~0o777 & 0o7777:
                self.found.unclean.append(path)
            self.attributes(fd, path, is_folder=True)
            self.folder(fd, path + "/", depth + 1)
            if closed:
                os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def _link(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        target = os.readlink(name, dir_fd=parent)
        if problem := target_problem(target):
            raise _forbidden(path, f"is a link whose target {problem}")
        self.found.entries.append(link_entry(path, target))
        self.found.mtimes[path] = status.st_mtime_ns

    def attributes(self, fd: int, path: str, *, is_folder: bool) -> None:
        """Look at an open file's extended attributes; none is kept, some mean that it must be refused."""
        names = carried_attributes(fd)
        if not names:
            return
        self.found.unclean.append(path)
        if self.kind == "changes":
            for name in names:
                if name.startswith(_OVERLAY):
                    self._overlay(fd, path, name, is_folder=is_folder)

    def _overlay(self, fd: int, path: str, name: str, *, is_folder: bool) -> None:
        short = name.split(".", 2)[2]
        if short == "opaque" and is_folder and os.getxattr(fd, name) == b"y":
            self.found.replaced.append(path)
        elif short not in _HARMLESS and not short.startswith("overlay."):
            # redirect, metacopy, whiteout, opaque=x: their meaning lies in another layer. A card's own attempt to
            # set one is stored by the kernel as overlay.overlay.…, which means nothing
            raise _forbidden(path, f"carries the overlay attribute {short!r}")


def _attributes(place: str | int) -> list[str]:
    try:
        return os.listxattr(place)
    except OSError as problem:
        if problem.errno in {errno.ENOTSUP, errno.ENOSYS}:
            return []
        raise


def _open_file(name: str, parent: int, mode: int) -> int:
    try:
        return os.open(name, REGULAR, dir_fd=parent)
    except PermissionError:
        # its own mode forbids it to its owner, which we are; the set-id bits do not come back
        chmod_entry(name, parent, 0o600)
        try:
            return os.open(name, REGULAR, dir_fd=parent)
        finally:
            chmod_entry(name, parent, mode & 0o777)


def _same(fd: int, status: os.stat_result, path: str) -> None:
    now = os.fstat(fd)
    if (now.st_ino, now.st_dev, now.st_size, now.st_mtime_ns) != (
        status.st_ino,
        status.st_dev,
        status.st_size,
        status.st_mtime_ns,
    ):
        raise _changed(path)


def _kind_of(mode: int) -> str:
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown kind")


def shown(path: str) -> str:
    """A hostile path as a short text that a terminal may show."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= 200 else f"{text[:120]}…{text[-70:]}"


def _forbidden(path: str, why: str) -> OutputForbidden:
    return OutputForbidden(f"{shown(path)!r} {why}", where=shown(path), hint="mend the step that makes it: anvil jam")


def _changed(path: str) -> OutputForbidden:
    return _forbidden(path, "was changed while it was collected")


def _too_much(path: str, what: str) -> LimitExceeded:
    return LimitExceeded(f"the card left {what}", where=shown(path), hint="leave less")


def carried_attributes(place: str | int) -> list[str]:
    """The names of the extended attributes that a kept tree must not have."""
    return [name for name in _attributes(place) if name.startswith(_CARRIED)]


def open_folder(root: int, path: str) -> int:
    """A folder below another, reached name by name without following a link; "" is the folder itself."""
    here = os.open(".", DIRECTORY, dir_fd=root)
    for name in path.split("/") if path else ():
        try:
            below = open_directory(name, here)
        finally:
            os.close(here)
        here = below
    return here


def open_entry(root: int, path: str) -> int:
    """A path-only descriptor of an entry below a folder, reached in the same way."""
    folder, _, name = path.rpartition("/")
    here = open_folder(root, folder)
    try:
        return os.open(name, PATH_ONLY, dir_fd=here)
    finally:
        os.close(here)
