"""Deleting a tree that may be hostile: by descriptor, across no mount and through no link, at speed."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from anvil.vault.disk import chmod_entry, open_directory, translated

if TYPE_CHECKING:
    from pathlib import Path

_DEEPEST = 64
"""Directories below this depth are first moved up, so that no tree needs more descriptors than a process has."""


def discard(path: Path) -> None:
    """Delete a file, a link or a whole directory tree; what is not there, or vanishes meanwhile, is already gone.

    Modes do not stop it (read-only directories, mode 000). A link is deleted, never followed. A mount point
    below ``path`` is never entered: it, and what leads to it, stay, and EnvironmentLack says so.
    """
    with translated("deleting a tree", path):
        try:
            parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            _delete(path.name, parent)
        finally:
            os.close(parent)


def _delete(name: str, parent: int) -> None:
    """Delete one entry of a directory that can be written."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        with contextlib.suppress(FileNotFoundError):  # another process deletes it, too
            top = _enter(name, parent)
            try:
                _Emptier(top).empty()
            finally:
                os.close(top)
            os.rmdir(name, dir_fd=parent)


def _enter(name: str, parent: int) -> int:
    """A descriptor of a directory, made readable and writable for its owner."""
    try:
        fd = open_directory(name, parent)
    except PermissionError:
        chmod_entry(name, parent, 0o700)
        fd = open_directory(name, parent)
    if os.geteuid() != 0:
        os.fchmod(fd, 0o700)
    return fd


class _Emptier:
    """Empties one directory; deep ones below are moved up into it and emptied in turn."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.moved = 0

    def empty(self) -> None:
        # moving up adds names to the top directory while it is listed: go on until a listing is empty
        while self._empty(self.top, 0):
            pass

    def _empty(self, fd: int, depth: int) -> bool:
        """Delete everything in a directory; whether something was."""
        found = False
        with os.scandir(fd) as listing:
            # the names are taken first: deleting while reading may skip some on some file systems
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
        for name, is_directory in names:
            found = True
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                if is_directory:
                    self._delete_directory(name, fd, depth)
                else:
                    os.unlink(name, dir_fd=fd)
        return found

    def _delete_directory(self, name: str, parent: int, depth: int) -> None:
        if depth >= _DEEPEST and not self._is_empty(name, parent):
            self._move_up(name, parent)
            return
        try:
            os.rmdir(name, dir_fd=parent)  # often empty, and then one call is enough
        except OSError as problem:
            if problem.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM}:
                raise
        else:
            return
        fd = _enter(name, parent)
        try:
            self._empty(fd, depth + 1)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)

    @staticmethod
    def _is_empty(name: str, parent: int) -> bool:
        fd = _enter(name, parent)
        try:
            with os.scandir(fd) as listing:
                return next(listing, None) is None
        finally:
            os.close(fd)

    def _move_up(self, name: str, parent: int) -> None:
        while True:
            self.moved += 1
            # a name that the tree itself cannot have guessed
            new = f".anvil-{os.getpid()}-{self.moved}-{os.urandom(8).hex()}"
            try:
                os.rename(name, new, src_dir_fd=parent, dst_dir_fd=self.top)
            except FileExistsError:
                continue
            return
