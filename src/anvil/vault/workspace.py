"""Folders for what is being written: locked while their writer lives, swept by anyone when it is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from typing import TYPE_CHECKING, Self

from anvil.errors import AnvilError
from anvil.vault.discard import discard
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Workspace:
    """A folder ``path`` of its own (descriptor ``fd``), deleted with all that is left in it on ``close``.

    The lock on the folder says that its writer lives: a process that is killed loses it, whatever its pid or host.
    """

    def __init__(self, path: Path, fd: int) -> None:
        """Take a locked folder; ``make_workspace`` and ``abandoned`` give them."""
        self.path = path
        self.fd = fd

    def close(self) -> None:
        """Delete the folder and give up the lock. What cannot be deleted now is left to the next sweep."""
        if self.fd < 0:
            return
        try:
            with contextlib.suppress(AnvilError, OSError):
                discard(self.path)
        finally:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_workspace(parent: Path) -> Workspace:
    """A new, empty workspace below ``parent``."""
    with translated("writing into the vault", parent):
        # shared with other makers, exclusive to sweepers: a folder is never seen between its making and its lock
        guard = os.open(parent, _FOLDER)
        try:
            fcntl.flock(guard, fcntl.LOCK_SH)
            path = parent / secrets.token_hex(8)
            path.mkdir(mode=0o700)
            fd = os.open(path, _FOLDER)
            fcntl.flock(fd, fcntl.LOCK_EX)
        finally:
            os.close(guard)
        return Workspace(path, fd)


def abandoned(parent: Path) -> list[Workspace]:
    """The workspaces of dead writers below ``parent``, locked now by us; stray files are deleted.

    Living writers are not disturbed. Not looking at all, because others make workspaces now, is right too.
    """
    with translated("sweeping the vault", parent):
        guard = os.open(parent, _FOLDER)
        try:
            names = os.listdir(guard)
            if not names or not _try_lock(guard):
                return []
            return [work for name in names if (work := _take_over(parent / name)) is not None]
        finally:
            os.close(guard)


def _take_over(path: Path) -> Workspace | None:
    try:
        fd = os.open(path, _FOLDER | os.O_NOFOLLOW)
    except NotADirectoryError:
        discard(path)
        return None
    except FileNotFoundError:
        return None
    if _try_lock(fd):
        return Workspace(path, fd)
    os.close(fd)
    return None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
