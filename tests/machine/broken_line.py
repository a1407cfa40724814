"""A serial line whose far end is the test: it speaks in pieces, stops reading, ends."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from anvil.cell.spec import Outcome

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

GONE = Outcome(exit_code=0, signal=None, reason="exit", wall_s=0, cpu_s=0, max_rss_bytes=0)


class FakeLine:
    """Pipes in place of a cell. ``say`` is the guest's, ``heard`` what was typed to it."""

    def __init__(self) -> None:
        self.stdout, self._guest_out = os.pipe()
        self._guest_in, self.stdin = os.pipe()
        for fd in (self.stdout, self.stdin, self._guest_in):
            os.set_blocking(fd, False)
        self.ended = False
        self.pieces: list[bytes] = []  # said one at a time, one each time the console looks

    def say(self, data: bytes) -> None:
        os.write(self._guest_out, data)

    def heard(self) -> bytes:
        try:
            return os.read(self._guest_in, 1 << 20)
        except BlockingIOError:
            return b""

    def stop_reading(self) -> None:
        os.close(self._guest_in)
        self._guest_in = -1

    def read(self, size: int) -> bytes:
        try:
            return os.read(self.stdout, size)
        except BlockingIOError:
            return b""

    def tick(self, timeout: float = 0.0, *, also: int = -1) -> Outcome | None:
        if self.pieces:
            self.say(self.pieces.pop(0))
        poll = select.poll()
        poll.register(also, select.POLLIN)
        poll.poll(timeout * 1000)
        return GONE if self.ended and not self.pieces else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (self.stdout, self.stdin, self._guest_in, self._guest_out):
            if fd >= 0:
                os.close(fd)
