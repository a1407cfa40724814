"""The signs of life that a service manager reads, and the socket that it may have opened.

A datagram to a socket, and descriptors from 3 on (sd_notify(3), sd_listen_fds(3)): nothing of systemd's is needed.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass

FIRST_FD = 3


@dataclass(frozen=True, kw_only=True)
class Manager:
    """What the service manager said when it started this process.

    notify: the address for signs of life, "" for none. watchdog: seconds within which it wants one, 0 for never.
    listening: a descriptor that listens already, or None.
    """

    notify: str = ""
    watchdog: float = 0.0
    listening: int | None = None


class Signs:
    """Tells the manager how this daemon is. A manager that is gone does not matter."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._last = 0.0
        self._ready = False

    def ready(self) -> None:
        """It does its work from now on."""
        if not self._ready:
            self._ready = True
            self._tell("READY=1")

    def stopping(self) -> None:
        """It was asked to end."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Called in each turn of the daemon's own loop: a loop that hangs gives no sign."""
        now = time.monotonic()
        if self._manager.watchdog and now - self._last > self._manager.watchdog / 3:
            self._last = now
            self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self._manager.notify:
            return
        address = "\0" + self._manager.notify[1:] if self._manager.notify[0] == "@" else self._manager.notify
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), address)
