"""The trusted unpacker: a package's data.tar into a directory, by descriptor.

It runs on the host, before there is any cell, on archives whose bytes are pinned but which it does not trust:

- every name is resolved inside the root, one component at a time, and never through a link by the kernel; a link on
  the way (``/lib -> usr/lib`` of Debian's merged ``/usr``) is read and resolved as if the root were ``/``;
- a name with ``..``, an absolute name and a name with a control character are refused;
- set-id and sticky bits are dropped, owners are ignored, devices, FIFOs and sockets are left out;
- bytes and entries are counted against caps.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from dataclasses import dataclass, field
from typing import IO, Self

from anvil.errors import DiskFull, IntegrityError
from anvil.image.deb import members

MAX_LINKS = 40
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What all packages of an image may have in all: bytes (of files) and entries."""

    unpacked_bytes: int = 8 << 30
    entries: int = 400_000


@dataclass(kw_only=True)
class Tally:
    """What has been unpacked so far; newest: the latest file time seen, seconds (a function of the lock)."""

    unpacked_bytes: int = 0
    entries: int = 0
    newest: int = 0
    skipped: list[str] = field(default_factory=list)


class Tree:
    """A directory that is being filled. Only this process writes there while it is open."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.open(root, DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def resolve(self, path: str, *, create: bool = False) -> int:
        """A descriptor of the directory ``path`` names inside the root; the caller closes it.

        Links are resolved with the root as ``/`` and ``..`` of a link stops there. create: make what is missing.
        OSError as of openat(2); ELOOP for too many links.
        """
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        trail = [os.dup(self._root)]
        links = 0
        try:
            while pending:
                part = pending.pop()
                if part == "..":
                    if len(trail) > 1:
                        os.close(trail.pop())
                    continue
                try:
                    trail.append(os.open(part, DIRECTORY, dir_fd=trail[-1]))
                except FileNotFoundError:
                    if not create:
                        raise
                    os.mkdir(part, 0o755, dir_fd=trail[-1])
                    pending.append(part)
                except OSError as error:
                    # O_DIRECTORY with O_NOFOLLOW answers ENOTDIR for a link, ELOOP on some file systems.
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    target = _readlink(part, trail[-1])
                    if target is None:
                        raise
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                    if target.startswith("/"):
                        while len(trail) > 1:
                            os.close(trail.pop())
                    pending.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
            return trail.pop()
        finally:
            for descriptor in trail:
                os.close(descriptor)

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write (or replace) a plain file; the directories above it are made."""
        folder, name = os.path.split(path)
        parent = self.resolve(folder, create=True)
        try:
            _remove(name, parent)
            descriptor = os.open(name, CREATE, mode, dir_fd=parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), mode)
        finally:
            os.close(parent)


def _readlink(name: str, parent: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None


def _remove(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def unpack(tree: Tree, data_tar: IO[bytes], *, where: str, caps: Caps, tally: Tally) -> list[str]:
    """Unpack an uncompressed data.tar into the tree; give the paths it holds, as dpkg's ``.list`` writes them.

    Raises IntegrityError for a name, a link or a size that is not allowed, DiskFull when there is no room.
    """
    names = ["/."]
    for entry, body in members(data_tar, where=where):
        path = _checked(entry.name, where)
        tally.entries += 1
        if tally.entries > caps.entries:
            raise IntegrityError(f"an image may have {caps.entries} entries, this one has more", where=where)
        if not path:
            continue
        names.append(f"/{path}")
        tally.newest = max(tally.newest, int(entry.mtime))
        try:
            _place(tree, path, entry, body, where=where, caps=caps, tally=tally)
        except tarfile.TarError as error:
            raise IntegrityError(f"/{path} cannot be unpacked: {error}", where=where) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("no room is left for the base image", where=where, hint="free some space") from error
            raise IntegrityError(f"/{path} cannot be unpacked: {error.strerror}", where=where) from error
    return names


def _checked(name: str, where: str) -> str:
    """The member's name without ``./``, refused if it could mean something outside or cannot be shown."""
    if name.startswith("/"):
        raise IntegrityError(f"an archive holds an absolute name: {name!r}", where=where)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise IntegrityError(f"an archive holds a name with '..': {name!r}", where=where)
    if not name.isprintable():
        raise IntegrityError(f"an archive holds a name that cannot be printed: {name!r}", where=where)
    return "/".join(parts)


def _place(
    tree: Tree, path: str, entry: tarfile.TarInfo, body: IO[bytes] | None, *, where: str, caps: Caps, tally: Tally
) -> None:
    folder, name = os.path.split(path)
    parent = tree.resolve(folder, create=True)
    try:
        if entry.isdir():
            _directory(tree, path, name, parent, entry.mode)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        elif entry.islnk():
            _hard_link(tree, entry.linkname, name, parent, where=where)
        elif entry.issparse():
            raise IntegrityError(f"/{path} is stored sparse, which a package may not do", where=where)
        elif body is not None:
            tally.unpacked_bytes += entry.size
            if tally.unpacked_bytes > caps.unpacked_bytes:
                raise IntegrityError(f"the image unpacks to more than {caps.unpacked_bytes} bytes", where=where)
            _file(name, parent, entry, body)
        elif entry.isdev():
            tally.skipped.append(f"/{path}")
        else:
            raise IntegrityError(f"/{path} is of an unknown type {entry.type!r}", where=where)
    finally:
        os.close(parent)


def _directory(tree: Tree, path: str, name: str, parent: int, mode: int) -> None:
    """A directory; where one (or a link to one, as /lib is) stands already, that one is kept, as dpkg does."""
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        os.close(tree.resolve(path))
        return
    os.chmod(name, 0o700 | mode & 0o777, dir_fd=parent)


def _file(name: str, parent: int, entry: tarfile.TarInfo, body: IO[bytes]) -> None:
    with os.fdopen(os.open(name, CREATE, 0o600, dir_fd=parent), "wb", buffering=0) as file:
        while data := body.read(CHUNK):
            file.write(data)
        os.fchmod(file.fileno(), entry.mode & 0o777)
        os.utime(file.fileno(), (entry.mtime, entry.mtime))


def _hard_link(tree: Tree, target: str, name: str, parent: int, *, where: str) -> None:
    folder, base = os.path.split(_checked(target, where))
    source = tree.resolve(folder)
    try:
        if not stat.S_ISREG(os.stat(base, dir_fd=source, follow_symlinks=False).st_mode):
            raise IntegrityError(f"A hard link points to {target!r}, which is not a plain file", where=where)
        os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(source)
