"""Giving a layer back as a directory: in overlay form, or as a plain copy."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.vault.disk import CHUNK, REGULAR, copy_and_hash, open_directory, translated, write_all
from anvil.vault.manifest import FIXED_TIME_NS, parent_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from anvil.model.layer import Digest, Entry
    from anvil.vault.store import Vault

OPAQUE = "user.overlay.opaque"
"""The name that an overlay mounted with ``userxattr`` looks at, the only kind an ordinary user may mount."""

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to plant.

    mtimes: nanoseconds by path; what has none gets a fixed one. removed: paths to cover, for an overlay.
    """

    entries: Iterable[Entry]
    mtimes: Mapping[str, int] = field(default_factory=dict)
    removed: Iterable[str] = ()


def plant(vault: Vault, plan: Plan, target: Path, *, owner: int | None) -> None:
    """Fill the empty directory ``target``; every blob's bytes are verified on the way.

    owner: the uid (and gid) that everything gets; None leaves it ours. Raises IntegrityError for a missing or damaged
    blob, DiskFull; what was planted until then is left for the caller to discard.
    """
    with translated("making a tree from the vault", target):
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _Planter(vault, plan, owner).folder(root, "")
            _finish(root, 0o755, plan.mtimes.get("", FIXED_TIME_NS), owner)
        finally:
            os.close(root)


class _Planter:
    def __init__(self, vault: Vault, plan: Plan, owner: int | None) -> None:
        self.vault = vault
        self.owner = owner
        self.mtimes = plan.mtimes
        self.removed = frozenset(plan.removed)
        self.children: defaultdict[str, list[Entry]] = defaultdict(list)
        self.whiteouts: defaultdict[str, list[str]] = defaultdict(list)
        listed = set()
        for entry in plan.entries:
            self.children[parent_of(entry.path)].append(entry)
            listed.add(entry.path)
        for path in self.removed - listed:
            self.whiteouts[parent_of(path)].append(path)

    def folder(self, fd: int, path: str) -> None:
        """Everything in one folder, and below it."""
        start = len(path) + 1 if path else 0
        for gone in self.whiteouts.get(path, ()):
            os.mknod(gone[start:], stat.S_IFCHR, 0, dir_fd=fd)
            if self.owner is not None:
                os.chown(gone[start:], self.owner, self.owner, dir_fd=fd, follow_symlinks=False)
        for entry in self.children.get(path, ()):
            name = entry.path[start:]
            if entry.type == "file":
                self._file(fd, name, entry)
            elif entry.type == "dir":
                self._directory(fd, name, entry)
            else:
                self._link(fd, name, entry)

    def _file(self, parent: int, name: str, entry: Entry) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            fill(self.vault, entry.sha256, entry.size, fd)
            _finish(fd, entry.mode, self.mtimes.get(entry.path, FIXED_TIME_NS), self.owner)
        finally:
            os.close(fd)

    def _directory(self, parent: int, name: str, entry: Entry) -> None:
        os.mkdir(name, 0o700, dir_fd=parent)
        fd = open_directory(name, parent)
        try:
            if entry.path in self.removed:
                os.setxattr(fd, OPAQUE, b"y")
            self.folder(fd, entry.path)
            _finish(fd, entry.mode, self.mtimes.get(entry.path, FIXED_TIME_NS), self.owner)
        finally:
            os.close(fd)

    def _link(self, parent: int, name: str, entry: Entry) -> None:
        os.symlink(entry.target, name, dir_fd=parent)
        if self.owner is not None:
            os.chown(name, self.owner, self.owner, dir_fd=parent, follow_symlinks=False)
        time = self.mtimes.get(entry.path, FIXED_TIME_NS)
        os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)


def fill(vault: Vault, digest: Digest, size: int, target: int) -> None:
    """Write a blob's verified bytes into an open empty file. Raises IntegrityError for wrong bytes or another size."""
    try:
        source = os.open(vault.path(digest), REGULAR)
    except FileNotFoundError:
        raise vault.missing(digest) from None
    try:
        if size <= CHUNK:
            data = os.read(source, size + 1)
            if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
                raise vault.damaged(digest)
            write_all(target, data)
        elif os.fstat(source).st_size != size or copy_and_hash(source, target, size) != digest:
            raise vault.damaged(digest)
    finally:
        os.close(source)


def export_file(vault: Vault, entry: Entry, target: Path) -> None:
    """Put a file of the vault at ``target``, replacing what is there, whole or not at all."""
    fresh = target.with_name(f".{target.name[:200]}.anvil-{os.urandom(6).hex()}")
    with translated("copying a file out of the vault", target):
        fd = os.open(fresh, _NEW, 0o600)
        try:
            fill(vault, entry.sha256, entry.size, fd)
            _finish(fd, entry.mode, FIXED_TIME_NS, None)
            os.fsync(fd)
            os.rename(fresh, target)
        except BaseException:
            os.unlink(fresh)
            raise
        finally:
            os.close(fd)


def _finish(fd: int, mode: int, time: int, owner: int | None) -> None:
    # the order matters: a change of owner may clear mode bits, every change would move the time
    if owner is not None:
        os.fchown(fd, owner, owner)
    os.fchmod(fd, mode)
    os.utime(fd, ns=(time, time))
