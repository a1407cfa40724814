"""The faces of a forge: repainted lines on a terminal, one plain line per event elsewhere, or MicroJSON."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from anvil.cli import terminal
from anvil.cli.view import ForgeView, Line, Span
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from rich.text import Text

    from anvil.mainframe import forge

    class Face(forge.Face, Protocol):
        """What the forge command tells a face: what a forge does, and when it is over."""

        def end(self) -> None:
            """The forge has ended; leave the terminal as it was."""


HEARTBEAT_SECONDS = 50.0
"""In a plain log: a sign of life at least each minute, also when the machine is slow."""

PULSE_SECONDS = 5.0
"""Between two heartbeats for a program."""

_REPAINT_SECONDS = 0.25
_MARKS = {
    "start": "run ",
    "done": "done",
    "kept": "kept",
    "wait": "wait",
    "jam": "JAM ",
    "lack": "LACK",
    "stop": "stop",
    "left": "left",
}


class PlainFace:
    """One line per event, no control codes; at least each minute a line that says how far everything is."""

    def __init__(self, jobs: int) -> None:
        self._view = ForgeView()
        self._jobs = jobs
        self._beat = time.monotonic()
        self._doing = ""
        self._since = self._beat

    def note(self, text: str) -> None:
        """Print a line."""
        self._doing, self._since = terminal.plain(text), time.monotonic()
        self._say(self._doing)

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """Print the plan in a line."""
        self._view.begin(total=total, kept=kept, estimates=estimates)
        self._doing = ""
        self._beat = time.monotonic()
        self._say(plan_text(self._view, self._jobs))

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Print the event's line, if it has one."""
        line = self._view.take(number, data)
        if line is not None:
            self._say(line_text(self._view, line))

    def idle(self) -> None:
        """A sign of life at least each minute."""
        now = time.monotonic()
        if now - self._beat < HEARTBEAT_SECONDS:
            return
        if self._view.running or self._view.waiting:
            self._say(heartbeat_text(self._view, self._jobs))
        elif self._doing:
            self._say(f"{self._doing} {terminal.seconds(now - self._since)} so far")
        self._beat = now

    def end(self) -> None:
        """Nothing to restore."""

    def _say(self, text: str) -> None:
        print(text, flush=True)


def plan_text(view: ForgeView, jobs: int) -> str:
    """The plan in a line; the cards themselves are what ``anvil plan`` prints."""
    work = f"{len(view.estimates)} run or may run"
    on = f"{jobs} job{'' if jobs == 1 else 's'}"
    return f"plan: {view.total} cards, {view.kept} kept, {work}; {span_text(view.left(jobs))} on {on}"


def line_text(view: ForgeView, line: Line) -> str:
    """A plain log's line for something that happened."""
    took = f" in {terminal.seconds(line.seconds)}" if line.kind in {"done", "jam"} and line.seconds else ""
    text = f"  {terminal.plain(line.text)}" if line.text and line.kind not in {"start", "done"} else ""
    if line.kind == "start" and (times := view.known.get(line.card)) and times.expected >= 1:
        text = f"  {span_text(times)}"
    mark = _MARKS.get(line.kind, line.kind)
    return f"{_count(view)} {mark}  {line.card}{took}{text}"


def heartbeat_text(view: ForgeView, jobs: int) -> str:
    """Which cards run, for how long and how long they were thought to take; how many are done; the time left."""
    now = view.clock()
    cards = []
    for running in view.running.values():
        times = view.known.get(running.card)
        thought = f" of {span_text(times)}" if times and times.expected >= 1 else ""
        cards.append(f"{running.card} {terminal.seconds(now - running.since)}{thought}")
    cards += [f"{card} waits" for card in view.waiting if card not in view.running]
    return f"{_count(view)} ...   {', '.join(cards)}; {span_text(view.left(jobs))} left"


def span_text(span: Span) -> str:
    """A time with its spread: "about 2:31 (2:10 to 3:05)"; without it where it says nothing more.

    What may not run at all has no lower end: "about 7.7 s (at most 15 s)".
    """
    low, expected, high = (terminal.seconds(each) for each in (span.low, span.expected, span.high))
    wide = "" if {low, high} <= {expected} else f" ({low} to {high})" if span.low >= 1 else f" (at most {high})"
    return f"about {expected}{wide}"


def _count(view: ForgeView) -> str:
    return f"[{view.finished:3}/{view.total}]"


class JsonFace:
    """Every event as a line of MicroJSON; docs/EVENTS.md says what they are."""

    def __init__(self, jobs: int = 1) -> None:
        self._view = ForgeView()
        self._jobs = jobs
        self._began = self._beat = time.monotonic()

    def note(self, text: str) -> None:
        """A sentence for a person."""
        self._write(MessageID.FORGE_NOTE, {"text": text})

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """The plan as a message."""
        self._view.begin(total=total, kept=kept, estimates=estimates)
        cards = {
            card: {"low": numbers[0], "expected": numbers[1], "high": numbers[2]}
            for card, numbers in estimates.items()
        }
        self._write(MessageID.PLAN, {"total": total, "kept": kept, "estimates": cards, "left": self._left()})

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Print the message."""
        self._view.take(number, data)
        self._write(number, data)

    def idle(self) -> None:
        """A heartbeat every few seconds while cards run."""
        now = time.monotonic()
        if not self._view.total or now - self._beat < PULSE_SECONDS:
            return
        self._beat = now
        view = self._view
        running = [
            {
                "card": each.card,
                "ms": round((view.clock() - each.since) * 1000),
                "expected": round(view.known[each.card].expected * 1000) if each.card in view.known else 0,
                "note": each.note,
            }
            for each in view.running.values()
        ]
        data = {
            "total": view.total,
            "kept": view.kept,
            "done": view.done,
            "running": running,
            "waiting": sorted(view.waiting),
            "ms": round((now - self._began) * 1000),
            "left": self._left(),
        }
        self._write(MessageID.FORGE_HEARTBEAT, data)

    def end(self) -> None:
        """Nothing to restore."""

    def _left(self) -> dict[str, int]:
        left = self._view.left(self._jobs)
        return {name: round(getattr(left, name) * 1000) for name in ("low", "expected", "high")}

    def _write(self, number: MessageID, data: dict[str, Any]) -> None:
        sys.stdout.write(MicroJSON.message(number, data).decode() + "\n")
        sys.stdout.flush()


class LiveFace:
    """The running cards repainted in place, everything that is over scrolling by above them."""

    def __init__(self, jobs: int) -> None:
        from rich.console import Console
        from rich.live import Live

        self._view = ForgeView()
        self._jobs = jobs
        self._began = time.monotonic()
        self._painted = 0.0
        self._console = Console(highlight=False, soft_wrap=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def note(self, text: str) -> None:
        """Print a line above the running cards."""
        self._console.print(terminal.plain(text), markup=False)

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """Print the plan in a line, above the running cards."""
        self._view.begin(total=total, kept=kept, estimates=estimates)
        self.note(plan_text(self._view, self._jobs))

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Print what is over; the rest is in the next repaint."""
        line = self._view.take(number, data)
        if line is not None and line.kind != "start":
            colour = {"done": "green", "jam": "bold red", "lack": "bold red", "stop": "yellow"}.get(line.kind, "dim")
            self._console.print(
                line_text(self._view, line), style=colour, markup=False, overflow="ellipsis", no_wrap=True
            )

    def idle(self) -> None:
        """Repaint four times a second at most."""
        now = time.monotonic()
        if now - self._painted >= _REPAINT_SECONDS:
            self._painted = now
            self._live.update(self._paint(now), refresh=True)

    def end(self) -> None:
        """Take the running lines away."""
        self._live.stop()

    def _paint(self, now: float) -> Text:
        from rich.text import Text

        view = self._view
        width = self._console.width
        text = Text(no_wrap=True, overflow="ellipsis")
        for running in view.running.values():
            times = view.known.get(running.card)
            gone = terminal.seconds(now - running.since)
            thought = f" of {terminal.seconds(times.expected)}" if times and times.expected >= 1 else ""
            note = terminal.plain(running.note or _last_line(running.log))
            text.append(f"  {gone:>7}{thought:<10} ", style="cyan")
            text.append(running.card, style="bold")
            text.append(f"  {note}"[: max(0, width - 21 - len(running.card))].rstrip() + "\n", style="dim")
        if view.total:
            text.append(self._last(now, width), style="dim")
        return text

    def _last(self, now: float, width: int) -> str:
        """The last line: how many cards, and the time left, as much of it as fits."""
        view = self._view
        left = view.left(self._jobs)
        gone = terminal.seconds(now - self._began)
        cards = f"{view.finished}/{view.total}"
        candidates = (
            f"  {cards} cards, {view.kept} kept · {gone} gone, {span_text(left)} left",
            f"  {cards} cards · {gone} gone, about {terminal.seconds(left.expected)} left",
            f"  {cards} · about {terminal.seconds(left.expected)} left",
        )
        return next((each for each in candidates if len(each) < width), candidates[-1])


def _last_line(log: str) -> str:
    """The last whole line of a growing log, or nothing."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400))
            lines = file.read().split(b"\n")
    except OSError:
        return ""
    return lines[-2].decode("utf-8", "replace").strip() if len(lines) > 1 else ""


def choose(*, json: bool, jobs: int) -> Face:
    """The face that fits: MicroJSON when asked, repainting on a terminal, plain elsewhere."""
    if json:
        return JsonFace(jobs)
    if terminal.is_interactive():
        return LiveFace(jobs)
    return PlainFace(jobs)
