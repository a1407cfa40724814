"""What a forge looks like right now: built from events alone, printed by the faces. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
    estimates: dict[str, int] = field(default_factory=dict)

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, int]) -> None:
        """A plan is about to be carried out; estimates: seconds of each card that will or may run."""
        self.total, self.kept, self.done = total, kept, 0
        self.estimates = dict(estimates)

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

    def seconds_left(self, jobs: int) -> float:
        """A guess of the wall time left: what is known to be left, spread over the cores, less what has gone."""
        now = self.clock()
        left = 0.0
        longest = 0.0
        for card, estimate in self.estimates.items():
            gone = now - self.running[card].since if card in self.running else 0.0
            rest = max(0.0, estimate - gone)
            left += rest
            longest = max(longest, rest)
        return max(left / max(1, jobs), longest)


def _maker(data: Mapping[str, Any]) -> str:
    """Who makes a card that is waited for."""
    if "pid" not in data:
        return "another forge is making it"
    if data["asleep"]:
        return f"process {data['pid']}, which makes it, is stopped; kill -CONT {data['pid']} lets it go on"
    return f"another forge is making it, in process {data['pid']}"
