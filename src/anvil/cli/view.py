"""What a forge looks like right now: built from events alone, printed by the faces. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_OVERDUE = 0.1
"""A card that has taken longer than it was thought to is expected to take so much of what has gone, again."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Seconds: at least, most likely and at most, as far as earlier runs tell."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Times(Span):
    """How long a card takes. way: seconds until all that needs it is done, were nothing else to do."""

    way: float


@dataclass(kw_only=True)
class Running:
    """A card that runs: since when (monotonic seconds), what it last said of itself, and where its output goes."""

    card: str
    since: float
    note: str = ""
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that happened. kind: "start", "done", "kept", "wait", "jam", "lack", "stop", "left" or "note"."""

    kind: str
    card: str
    text: str
    seconds: float = 0.0


@dataclass(kw_only=True)
class ForgeView:
    """Follows a forge. ``clock`` gives monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    total: int = 0
    kept: int = 0
    done: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    estimates: dict[str, Times] = field(default_factory=dict)
    known: dict[str, Times] = field(default_factory=dict)
    """Of every card of the plan, also of those that are done."""

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """A plan is about to be carried out; estimates: as the mainframe's ``forecast`` gives them."""
        self.total, self.kept, self.done = total, kept, 0
        self.known = {card: _times(numbers) for card, numbers in estimates.items()}
        self.estimates = dict(self.known)

    def take(self, number: MessageID, data: Mapping[str, Any]) -> Line | None:
        """Take an event in; the line that a plain log shows of it, if any."""
        card = str(data.get("card", ""))
        if number is MessageID.CARD_CLAIMED:
            self.waiting.pop(card, None)
            self.running[card] = Running(card=card, since=self.clock(), log=str(data.get("log", "")))
            return Line(kind="start", card=card, text=str(data.get("op", "")))
        if number is MessageID.CARD_PROGRESS:
            if card in self.running and "note" in data:
                self.running[card].note = str(data["note"])
            return None
        if number in {MessageID.CARD_PUNCHED, MessageID.CARD_KEPT}:
            began = self.running.pop(card, None)
            self.estimates.pop(card, None)
            self.waiting.pop(card, None)
            if number is MessageID.CARD_KEPT:
                self.kept += 1
                return Line(kind="kept", card=card, text="made already")
            self.done += 1
            return Line(kind="done", card=card, text="", seconds=self.clock() - began.since if began else 0.0)
        if number is MessageID.CARD_WAITING:
            text = _maker(data)
            if self.waiting.get(card) == text:
                return None
            self.waiting[card] = text
            return Line(kind="wait", card=card, text=text)
        if number is MessageID.CARD_LEFT:
            self.running.pop(card, None)
            return Line(kind="left", card=card, text=f"goes on in process {data['pid']}: another forge waits for it")
        if 500 <= number < 600:
            began = self.running.pop(card, None)
            kind = "jam" if number < 540 else "stop" if number == MessageID.INTERRUPTED else "lack"
            took = self.clock() - began.since if began else 0.0
            return Line(kind=kind, card=card, text=str(data.get("message", "")), seconds=took)
        return None

    @property
    def finished(self) -> int:
        """Cards that need no more work."""
        return self.kept + self.done

    def left(self, jobs: int) -> Span:
        """The wall time left: the work that is left, spread over the jobs, or the longest way if that is longer."""
        now = self.clock()
        sums = [
            sum(each) for each in zip(*((t.low, t.expected, t.high) for t in self.estimates.values()), strict=True)
        ]
        work = [0.0, 0.0, 0.0]
        longest = [0.0, 0.0, 0.0]
        for card, times in self.estimates.items():
            gone = now - self.running[card].since if card in self.running else 0.0
            behind = times.way - times.expected  # what needs this card, after it; it varies as all cards together do
            for number, whole in enumerate((times.low, times.expected, times.high)):
                rest = _rest(whole, gone)
                work[number] += rest
                longest[number] = max(longest[number], rest + behind * _ratio(sums[number], sums[1]))
        low, expected, high = (max(each / max(1, jobs), way) for each, way in zip(work, longest, strict=True))
        return Span(low=min(low, expected), expected=expected, high=max(high, expected))


def _times(numbers: Sequence[int]) -> Times:
    low, expected, high, way = (number / 1000 for number in numbers)
    return Times(low=low, expected=expected, high=high, way=way)


def _rest(whole: float, gone: float) -> float:
    return whole - gone if whole >= gone * (1 + _OVERDUE) else gone * _OVERDUE


def _ratio(one: float, other: float) -> float:
    return one / other if other else 1.0


def _maker(data: Mapping[str, Any]) -> str:
    """Who makes a card that is waited for."""
    if "pid" not in data:
        return "another forge is making it"
    if data["asleep"]:
        return f"process {data['pid']}, which makes it, is stopped; kill -CONT {data['pid']} lets it go on"
    return f"another forge is making it, in process {data['pid']}"
