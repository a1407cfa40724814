"""One make jobserver per cell, all fed from one pool, so that cells share the machine and cannot speak to each other.

GNU make 4.4's protocol (manual, "POSIX Jobserver Interaction"): a job beyond a make's first needs a byte read from
the FIFO, and the byte is written back when the job ends. The first job of every cell is free, so with ``n`` cells the
pool holds ``total - n`` tokens. Cells in the background do not count and get none while there are others: with their
one job each, niced, they fill the gaps that the others leave. A cell may eat or forge tokens, but only its own: it
never gets back into the pool more than it was given.
"""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN = b"+"


@dataclass(kw_only=True)
class _Account:
    """A cell's FIFO.

    given: tokens that are in it or that its jobs hold. used: of these, held by jobs. hungry: it had taken all that
    was there at the last look. background: it gets tokens only where all cells are so.
    """

    fd: int
    background: bool
    given: int = 0
    used: int = 0
    hungry: bool = True


def make_fifo(path: Path, *, owner: int | None) -> None:
    """A FIFO that a cell of host uid ``owner`` (None: this user's) may use."""
    os.mkfifo(path, 0o600)
    if owner is not None:
        os.chown(path, owner, owner)


class JobServer:
    """Shares ``total`` jobs among cells.

    Belongs to one process; :meth:`tick` is called by its loop, ten times a second or so.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._cells: dict[str, _Account] = {}

    def add(self, cell: str, path: Path, *, background: bool = False) -> None:
        """Feed a cell's FIFO, made with :func:`make_fifo`; ``cell`` is any name that is not in use."""
        # read and write: never blocks on opening, and keeps the FIFO open when the cell's makes come and go
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._cells[cell] = _Account(fd=fd, background=background)
        self.tick()

    def remove(self, cell: str) -> None:
        """The cell is gone, and whatever it held is back in the pool. Harmless when it is not known."""
        if account := self._cells.pop(cell, None):
            os.close(account.fd)
            self.tick()

    def close(self) -> None:
        """Remove all cells."""
        for cell in list(self._cells):
            self.remove(cell)

    def tick(self, patience: float = 0.0) -> None:
        """Take back unused tokens and hand them out again, the poorest and hungriest cell first.

        With ``patience`` (seconds) a cell that holds more than its share is watched for a token coming back, since
        its make would else take it again between two ticks.
        """
        if patience > 0:
            self._snatch(patience)
        for account in self._cells.values():
            self._reclaim(account)
        self._share()

    def held(self, cell: str) -> int:
        """How many tokens the cell's jobs held at the last tick (its free first job not counted)."""
        return self._cells[cell].used

    def _spare(self) -> int:
        return max(0, self._total - len(self._served()))

    def _served(self) -> dict[str, _Account]:
        """The cells that tokens are for."""
        front = {name: account for name, account in self._cells.items() if not account.background}
        return front or self._cells

    def _snatch(self, patience: float) -> None:
        """Wait until a cell that holds more than another's share gives a token back."""
        held = [account.used for account in self._cells.values()]
        if not held or max(held) < min(held) + 2:
            return
        poll = select.poll()
        for account in self._cells.values():
            if account.used > min(held) + 1:
                poll.register(account.fd, select.POLLIN)
        poll.poll(patience * 1000)

    def _reclaim(self, account: _Account) -> None:
        found = 0
        with contextlib.suppress(BlockingIOError):
            # one read takes all that a pipe of this size can hold; forged tokens are dropped here
            found = len(os.read(account.fd, 1 << 16))
        account.hungry = found == 0
        account.used = max(0, account.given - found)
        account.given = account.used

    def _share(self) -> None:
        if not self._cells:
            return
        served = self._served()
        pool = self._spare() - sum(account.used for account in self._cells.values())
        fresh = dict.fromkeys(served, 0)

        def hand_out(names: list[str], limit: int) -> None:
            nonlocal pool
            for _ in range(min(pool, limit)):
                fresh[min(names, key=lambda name: served[name].used + fresh[name])] += 1
                pool -= 1

        for name in sorted(served, key=lambda name: served[name].used):
            hand_out([name], 1)  # a first token for each, the poorest first, so that an idle cell can begin
        hand_out([name for name, account in served.items() if account.hungry] or list(served), pool)
        for name, count in fresh.items():
            account = served[name]
            with contextlib.suppress(BlockingIOError):
                account.given += os.write(account.fd, _TOKEN * count)
