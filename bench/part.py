"""The contract between the bench and its parts.

A part is a module with ``NAME``, ``WHAT`` (one line), and ``measure(scale) -> Facts``. What it makes, it makes below
``scale.scratch``, and removes. Contestants take turns, round by round, so that a busy moment hits all alike.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Facts = dict[str, Any]
"""{"figures": {name: a summary}, "ratios": {name: a summary}, "lacks": {peer: why it was not measured}}; JSON.

Ratios are what can be compared from one run to another; other groups of summaries may stand beside them.
"""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured, and where.

    cards: of a trivial deck. rounds: how often everything is done. lanes: how many at a time. images_from: a home
    whose base images are borrowed (None: see homes.images). scratch: a folder of a real file system, not of memory.
    """

    cards: int = 1000
    rounds: int = 3
    lanes: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    images_from: Path | None = None
    scratch: Path = Path("/var/tmp")


QUICK = Scale(cards=200, rounds=2)


def summary(values: Iterable[float], unit: str) -> Facts:
    """Median, least and most of some measurements, and all of them as they came."""
    taken = list(values)
    shown = [float(f"{value:.5g}") for value in taken]
    return {
        "unit": unit,
        "median": float(f"{statistics.median(taken):.5g}"),
        "min": min(shown),
        "max": max(shown),
        "values": shown,
    }


@dataclass(kw_only=True)
class Rounds:
    """What contestants took, round by round."""

    unit: str = "s"
    taken: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Take down one figure."""
        self.taken.setdefault(name, []).append(value)

    def figures(self) -> Facts:
        """A summary of each contestant."""
        return {name: summary(values, self.unit) for name, values in self.taken.items()}

    def ratio(self, above: str, below: str) -> Facts:
        """One contestant's figures over another's, round by round, as far as both took part."""
        return summary((a / b for a, b in zip(self.taken[above], self.taken[below], strict=False)), "x")

    def difference(self, above: str, below: str, *, per: float, unit: str) -> Facts:
        """One contestant's figures less another's, round by round, each multiplied by ``per``."""
        pairs = zip(self.taken[above], self.taken[below], strict=False)
        return summary(((a - b) * per for a, b in pairs), unit)
