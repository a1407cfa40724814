"""Who is alive: a file per worker, locked as long as the worker lives.

The kernel drops the lock when the process is gone, however it went, so a dead worker is known at once and a slow one
is never taken for dead. The name is random: no host name and no process id, which come again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


_NEW = "new-"
_NEW_SECONDS = 60


class Worker:
    """This process's own token. Close it only when nothing is claimed any more."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(16)
        self._path = folder / self.token
        # Locked before it has its name: nobody may find it unlocked and take us for dead.
        new = folder / f"{_NEW}{self.token}"
        self._fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        new.rename(self._path)

    def close(self) -> None:
        """Say that this worker is gone."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._fd)


def is_dead(folder: Path, token: str) -> bool:
    """True when no living process holds that token."""
    try:
        fd = os.open(folder / token, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, IsADirectoryError):
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask at once do not disturb each other
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def sweep(folder: Path) -> None:
    """Remove the files of dead workers."""
    for entry in list(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            young = entry.name.startswith(_NEW) and time.time() - entry.stat().st_mtime < _NEW_SECONDS
            if not young and is_dead(folder, entry.name):
                entry.unlink()
