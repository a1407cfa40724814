"""A terminal for a cell: a pseudo-terminal of its own, with the owner in the middle.

The cell gets one end of a pair that was made for it and holds nothing of the caller's terminal, so it can neither
type into that (TIOCSTI, which the filter refuses besides), nor change its modes, nor read what is typed when the cell
is gone. The owner passes bytes on, both ways, as they are: what a tree's output does to a screen, it does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import termios
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from anvil.cell import run
from anvil.cell.running import TICK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.cell.running import Cell
    from anvil.cell.spec import CellSpec, Outcome

LEAVE_KEY = b"\x1d"
LEAVE_PRESSES, LEAVE_SECONDS = 3, 1.0
"""Ctrl-] three times within a second ends the cell, whatever it does (systemd's machinectl has the same)."""

_BLOCK = 1 << 14
_PENDING = 1 << 16
"""Bytes that were typed and that the cell has not read yet: above that the keyboard is not read."""

_CALM = b"\x1b[0m\x1b[?25h\x1b[?1000;1002;1003;1006;2004l"
"""Plain letters, a cursor, no mouse reports, no bracketed paste (xterm's control sequences, "DECSET")."""
MAIN_SCREEN = b"\x1b[?1049l"
"""Away from the screen that full-screen programs draw on."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A window's size in characters."""

    rows: int = 24
    columns: int = 80

    @classmethod
    def of(cls, fd: int) -> Self:
        """The size of a terminal; 24 by 80 for one that does not say."""
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
        return cls(rows=rows or 24, columns=columns or 80)

    def put(self, fd: int) -> None:
        """Set the size of a terminal; the foreground processes of it are told."""
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", self.rows, self.columns, 0, 0))


@dataclass(kw_only=True)
class Caller:
    """The caller's side.

    keyboard: is read; -1 for none. screen: is written. resized: says once that the window has another size now.
    idle: called about ten times a second.
    """

    keyboard: int
    screen: int
    resized: Callable[[], Size | None] = lambda: None
    idle: Callable[[], None] = lambda: None


def converse(spec: CellSpec, log: Path, caller: Caller, size: Size) -> Outcome:
    """Run a cell in a terminal of its own until it ends; the caller's terminal is to be :func:`raw` meanwhile.

    The command is given the terminal as its standard streams, not as its controlling one: it begins with
    ``setsid --ctty``. When an exception (an interrupt) leaves this function, the cell is gone.
    """
    master, slave = os.openpty()
    try:
        size.put(slave)
        os.set_blocking(master, False)
        with run.enter(spec, log, slave) as cell:
            os.close(slave)
            slave = -1
            return _Relay(cell, master, caller).run()
    finally:
        for fd in (master, slave):
            if fd >= 0:
                os.close(fd)


class _Relay:
    """Passes bytes between the caller and a cell."""

    def __init__(self, cell: Cell, master: int, caller: Caller) -> None:
        self._cell = cell
        self._master = master
        self._caller = caller
        self._typed = bytearray()
        self._keyboard = caller.keyboard
        self._silent = False
        self._leaving: list[float] = []
        self._due = time.monotonic()

    def run(self) -> Outcome:
        while (outcome := self._cell.tick(TICK if self._silent else 0)) is None:
            self._step(0 if self._silent else TICK)
        while not self._silent and self._listen():
            pass  # what it said at the end
        if outcome.exit_code is None:
            _put(self._caller.screen, MAIN_SCREEN)  # who was ended could not leave the other one
        return outcome

    def _step(self, seconds: float) -> None:
        poll = select.poll()
        if not self._silent:
            poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if self._keyboard >= 0 and len(self._typed) < _PENDING:
            poll.register(self._keyboard, select.POLLIN)
        ready = dict(poll.poll(seconds * 1000))
        if self._keyboard in ready:
            self._read_keys()
        if self._typed:
            self._type()
        if ready.get(self._master, 0) & ~select.POLLOUT:
            self._listen()
        if size := self._caller.resized():
            size.put(self._master)
        if (now := time.monotonic()) >= self._due:
            self._due = now + TICK
            self._caller.idle()

    def _listen(self) -> bool:
        """Show what the cell says; False when there is nothing, now or ever."""
        try:
            data = os.read(self._master, _BLOCK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the other end open any more
            self._silent = True
            return False
        _put(self._caller.screen, data)
        return bool(data)

    def _read_keys(self) -> None:
        keys = os.read(self._keyboard, _BLOCK)
        if not keys:  # the keyboard is gone: so is who sat there
            self._keyboard = -1
            self._cell.end("cancelled")
            return
        self._typed += keys
        presses = len(keys) - len(keys.rstrip(LEAVE_KEY))
        if presses < len(keys):
            self._leaving.clear()
        now = time.monotonic()
        self._leaving = [at for at in self._leaving if now - at < LEAVE_SECONDS] + [now] * presses
        if len(self._leaving) >= LEAVE_PRESSES:
            self._cell.end("cancelled")

    def _type(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            del self._typed[: os.write(self._master, self._typed)]


def _put(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def raw(keyboard: int, screen: int) -> Iterator[None]:
    """Pass every key on as it is while the block lasts; afterwards the terminal is as before, and calm.

    Keys that wait unread are thrown away: they may be the terminal's answers to questions of the cell's.
    """
    before = termios.tcgetattr(keyboard)
    ending = _CALM + MAIN_SCREEN
    try:
        tty.setraw(keyboard)
        yield
        ending = _CALM
    finally:
        with contextlib.suppress(OSError):
            _put(screen, ending)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)
