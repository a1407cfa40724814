"""Who is alive: a file per worker, locked as long as the worker lives.

The kernel drops the lock when the process is gone, however it went, so a dead worker is known at once and a slow one
is never taken for dead. The name is random: no host name and no process id, which come again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A living worker, for a person to find. stopped: it sleeps until it gets SIGCONT, and holds what it holds."""

    pid: int
    stopped: bool


_NEW = "new-"


class Worker:
    """This process's own token. Close it only when nothing is claimed any more."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(16)
        self._path = folder / self.token
        # Locked before it has its name: nobody may find it unlocked and take us for dead.
        new = folder / f"{_NEW}{self.token}"
        with _held(folder, fcntl.LOCK_SH):
            self._fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            with contextlib.suppress(OSError):  # a full disk: it only serves to tell a person (``holder``)
                os.write(self._fd, b"%d\n" % os.getpid())
            new.rename(self._path)
        except OSError:
            os.close(self._fd)
            new.unlink()
            raise

    def forget(self) -> None:
        """In a forked child: let go of the parent's lock, so that it ends with the parent."""
        os.close(self._fd)

    def close(self) -> None:
        """Say that this worker is gone."""
        with contextlib.suppress(OSError):  # what cannot be taken away now is swept by the next forge
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


def holder(folder: Path, token: str) -> Holder | None:
    """The process that has that token, if it lives and is seen from here. Only to tell a person: locks decide."""
    if not token or is_dead(folder, token):
        return None
    try:
        pid = int((folder / token).read_bytes())
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    return Holder(pid=pid, stopped=state in b"Tt")


def living(folder: Path, *, but: str = "") -> list[str]:
    """The tokens of living workers, without ``but``."""
    names = (entry.name for entry in folder.iterdir())
    return [name for name in names if name != but and not name.startswith(_NEW) and not is_dead(folder, name)]


def sweep(folder: Path) -> None:
    """Remove the files of dead workers."""
    with _held(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        for entry in list(folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                # while others make theirs, a new one that is not locked may be about to be
                if (alone or not entry.name.startswith(_NEW)) and is_dead(folder, entry.name):
                    entry.unlink()


@contextlib.contextmanager
def _held(folder: Path, how: int) -> Iterator[bool]:
    """Hold the folder: shared while a file is made and locked in it, exclusive to know that nobody does that now."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        held = True
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(fd)
