"""What the engine itself takes while it runs trivial cards, beside build tools: not what the cards take."""

from __future__ import annotations

import contextlib
import os
import select
from collections import Counter
from typing import TYPE_CHECKING

from anvil.cell.process import children_of
from bench import homes
from bench.part import Facts, Rounds
from bench.peers import Peer, peers

if TYPE_CHECKING:
    from bench.part import Scale

NAME = "memory"
WHAT = "peak memory of the engine's own processes over a whole run of trivial cards"

_LOOK_SECONDS = 0.02
_LEAST_LOOKS = 5
"""Seen less often, a child is one of a card's, not yet become its command."""


def measure(scale: Scale) -> Facts:
    """Megabytes: the sum of each process's peak, and the peak of what they hold together (shared pages once)."""
    borrowed = homes.images(scale)
    peaks, together = Rounds(unit="MB"), Rounds(unit="MB")
    lacks: dict[str, str] = {}
    with homes.folder(scale) as top:
        for number in range(scale.rounds):
            here = top / str(number)
            project = homes.Project.make(here / "anvil", scale, borrowed)
            runs = {"anvil": Peer(argv=project.command, folder=project.top), **peers(here, scale, lacks)}
            for name, run in runs.items():
                watch = _Watch()
                run.run(watch)
                high, shared = watch.peaks()
                peaks.add(name, high)
                together.add(name, shared)
    others = [name for name in peaks.taken if name != "anvil"]
    return {
        "cards": scale.cards,
        "figures": peaks.figures(),
        "together": together.figures(),
        "ratios": {f"anvil / {name}": peaks.ratio("anvil", name) for name in others}
        | {f"anvil / {name}, together": together.ratio("anvil", name) for name in others},
        "lacks": lacks,
    }


class _Watch:
    """Looks at a run's processes until its first one has ended.

    Sampled: what is gone before the next look counts in VmHWM, a peak that the kernel keeps, and not in Pss.
    """

    def __init__(self) -> None:
        self._high: Counter[int] = Counter()
        self._looks: Counter[int] = Counter()
        self._together = 0

    def __call__(self, first: int) -> None:
        """Look on."""
        fd = os.pidfd_open(first)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._look(first)
        while not poll.poll(_LOOK_SECONDS * 1000):
            self._look(first)
        os.close(fd)

    def _look(self, first: int) -> None:
        together = 0
        for pid in _engine(first):
            with contextlib.suppress(OSError):
                self._high[pid] = max(self._high[pid], _kilobytes(pid, "status", "VmHWM:"))
                self._looks[pid] += 1 if pid != first else _LEAST_LOOKS
                if self._looks[pid] >= _LEAST_LOOKS:
                    together += _kilobytes(pid, "smaps_rollup", "Pss:")
        self._together = max(self._together, together)

    def peaks(self) -> tuple[float, float]:
        """Megabytes: (the sum of each process's peak, the peak of their sum with shared pages counted once)."""
        high = sum(self._high[pid] for pid, looks in self._looks.items() if looks >= _LEAST_LOOKS)
        return high * 1024 / 1e6, self._together * 1024 / 1e6


def _engine(first: int) -> list[int]:
    """The first process and its children that run the same program."""
    found = []
    with contextlib.suppress(OSError):
        program = os.readlink(f"/proc/{first}/exe")
        for pid in (first, *children_of(first)):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe") == program:
                    found.append(pid)
    return found


def _kilobytes(pid: int, file: str, word: str) -> int:
    with open(f"/proc/{pid}/{file}", encoding="ascii") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith(word)), 0)
