"""A daemon's place in a home: its folder, its socket, and the lock that lets there be one of each kind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Literal, Self

from anvil.errors import EnvironmentLack

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.mainframe.home import Home

Role = Literal["architect", "processor"]
ROLES: tuple[Role, ...] = ("architect", "processor")
SOCKET = "architect.sock"
_MOMENT_SECONDS = 0.5


def folder(home: Path) -> Path:
    """Where the daemons of a home meet; 0700, as the home is."""
    return home / "mainframe"


def at(directory: int, name: str) -> str:
    """A path to ``name`` in an open folder that a socket's address has room for (107 bytes), wherever the home is."""
    return f"/proc/self/fd/{directory}/{name}"


class Seat:
    """The one place for a daemon of its kind. The kernel gives it back when its holder is gone, however it went."""

    def __init__(self, home: Home, role: Role) -> None:
        """Raises EnvironmentLack when another process has it."""
        place = folder(home.path)
        place.mkdir(mode=0o700, exist_ok=True)
        self._fd = os.open(place / f"{role}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _taken(self._fd):
            os.close(self._fd)
            pid = holder(home.path, role)
            who = f"process {pid} is" if pid else "another process is"
            raise EnvironmentLack(f"{who} the {role} of this home", where=str(place), hint="anvil mainframe status")
        with contextlib.suppress(OSError):  # a full disk: the number only tells a person
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give it back; in a forked child: let go of it, so that it ends with the daemon itself."""
        os.close(self._fd)


def _taken(fd: int) -> bool:
    """Take the lock. Who only asks for the holder has it for a moment, too: that is waited for."""
    until = time.monotonic() + _MOMENT_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_MOMENT_SECONDS / 20)
        else:
            return True


def holder(home: Path, role: Role) -> int | None:
    """The process that is the daemon of that kind, None when there is none.

    By the number that it has where it was started: another one inside a container. 0 for one that is just starting.
    """
    path = folder(home) / f"{role}.lock"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None
