"""A person at a terminal: a command started in a pseudo-terminal, keys typed into it, its screen's bytes read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATIENCE = 20.0
"""Seconds within which a busy machine shows what is waited for."""


class Terminal:
    """A command in a terminal of its own. ``said`` is everything it has shown, as bytes in a text (latin-1)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.said = ""
        self.code: int | None = None
        self._seen = 0
        pid, fd = pty.fork()
        if pid == 0:
            try:
                os.chdir(folder)
                os.execve(command[0], list(command), dict(environment))
            finally:
                os._exit(127)
        self.pid, self.fd = pid, fd
        self.resize(rows, columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.fd)

    def resize(self, rows: int, columns: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.fd, keys.encode("latin-1"))

    def expect(self, text: str, seconds: float = PATIENCE) -> str:
        """Wait until ``text`` is shown, after what was waited for before; what was shown up to its end."""
        deadline = time.monotonic() + seconds
        while (at := self.said.find(text, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown; what was: {self.said[self._seen :]!r}")
        shown = self.said[self._seen : at + len(text)]
        self._seen = at + len(text)
        return shown

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until the command has ended; its exit code (negative: killed by that signal)."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            self._read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise AssertionError(f"it does not end; last: {self.said[-500:]!r}")
        while self._read(0):
            pass
        return self.code

    def modes(self) -> list[object]:
        """The modes that the terminal is in now."""
        return termios.tcgetattr(self.fd)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.fd], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: nobody has the other end open
            time.sleep(min(0.05, max(0.0, seconds)))
            return False
        self.said += data.decode("latin-1")
        return bool(data)
