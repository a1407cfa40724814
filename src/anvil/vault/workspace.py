"""Folders for what is being written: locked while their writer lives, swept by anyone when it is gone."""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING, Self

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

    def __init__(self, parent: Path) -> None:
        with translated("writing into the vault", parent):
            # shared with other makers, exclusive to sweepers: a folder is never seen between its making and lock
            guard = os.open(parent, _FOLDER)
            try:
                fcntl.flock(guard, fcntl.LOCK_SH)
                self.path = parent / secrets.token_hex(8)
                self.path.mkdir(mode=0o700)
                self.fd = os.open(self.path, _FOLDER)
                fcntl.flock(self.fd, fcntl.LOCK_EX)
            finally:
                os.close(guard)

    def close(self) -> None:
        """Delete the folder and give up the lock."""
        if self.fd < 0:
            return
        try:
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


def sweep(parent: Path) -> int:
    """Delete what dead writers left under ``parent``; how many there were. Living writers are not disturbed."""
    with translated("sweeping the vault", parent):
        guard = os.open(parent, _FOLDER)
        dead: list[tuple[Path, int]] = []
        try:
            names = os.listdir(guard)
            if not names or not _try_lock(guard):
                return 0
            for name in names:
                path = parent / name
                held = _take_over(path)
                if held is not None:
                    dead.append((path, held))
        finally:
            os.close(guard)
        # the lock of each dead folder is ours now, so the slow part needs no guard
        for path, held in dead:
            discard(path)
            if held >= 0:
                os.close(held)
        return len(dead)


def _take_over(path: Path) -> int | None:
    """A locked descriptor of a dead writer's folder, -1 for a stray file, None for what lives or is gone."""
    try:
        fd = os.open(path, _FOLDER | os.O_NOFOLLOW)
    except NotADirectoryError:
        return -1
    except FileNotFoundError:
        return None
    if _try_lock(fd):
        return fd
    os.close(fd)
    return None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
