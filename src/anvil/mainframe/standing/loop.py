"""What both daemons do alike: they are told to end by a signal, and have children that they must outlive or end."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anvil.cell.process import Child

END_SECONDS = 10.0
"""How long a child has to end after SIGTERM."""


class Asked:
    """Set by SIGTERM and SIGINT. SIGHUP is no reason to end: a terminal may go."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.stop = True


def send(child: Child, number: signal.Signals) -> None:
    """Signal a child that has not been waited for."""
    if child.status is None:
        signal.pidfd_send_signal(child.pidfd, number)


def end_all(children: Iterable[Child]) -> None:
    """Ask all to end, and insist after END_SECONDS."""
    children = list(children)
    for child in children:
        send(child, signal.SIGTERM)
    until = time.monotonic() + END_SECONDS
    for child in children:
        if not child.reap(max(0.0, until - time.monotonic())):
            child.kill()
            child.reap()
