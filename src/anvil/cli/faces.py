"""The faces of a forge: repainted lines on a terminal, one plain line per event elsewhere, or MicroJSON."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from anvil.cli import terminal
from anvil.cli.view import ForgeView, Line
from anvil.mainframe import forge
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text

HEARTBEAT_SECONDS = 60
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


class Face(forge.Face, Protocol):
    """What the forge command tells a face: what a forge does, and when it is over."""

    def end(self) -> None:
        """The forge has ended; leave the terminal as it was."""


class PlainFace:
    """One line per event, no control codes; a line each minute while nothing happens."""

    def __init__(self, jobs: int) -> None:
        self._view = ForgeView()
        self._jobs = jobs
        self._spoke = time.monotonic()

    def note(self, text: str) -> None:
        """Print a line."""
        self._say(terminal.plain(text))

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, int]) -> None:
        """Print the plan in a line."""
        self._view.begin(total=total, kept=kept, estimates=estimates)
        self._say(plan_text(self._view, self._jobs))

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Print the event's line, if it has one."""
        line = self._view.take(number, data)
        if line is not None:
            self._say(line_text(self._view, line))

    def idle(self) -> None:
        """A sign of life each minute."""
        if self._view.running and time.monotonic() - self._spoke > HEARTBEAT_SECONDS:
            now = time.monotonic()
            cards = ", ".join(f"{r.card} {terminal.seconds(now - r.since)}" for r in self._view.running.values())
            left = terminal.seconds(self._view.seconds_left(self._jobs))
            self._say(f"[{self._view.finished:3}/{self._view.total}] ...   {cards}; about {left} left")

    def end(self) -> None:
        """Nothing to restore."""

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        print(text, flush=True)


def plan_text(view: ForgeView, jobs: int) -> str:
    """The plan in a line; the cards themselves are what ``anvil plan`` prints."""
    left = terminal.seconds(view.seconds_left(jobs))
    work = f"{len(view.estimates)} run or may run"
    return f"plan: {view.total} cards, {view.kept} kept, {work}; about {left} on {jobs} jobs"


def line_text(view: ForgeView, line: Line) -> str:
    """A plain log's line for something that happened."""
    took = f" in {terminal.seconds(line.seconds)}" if line.kind in {"done", "jam"} and line.seconds else ""
    text = f"  {terminal.plain(line.text)}" if line.text and line.kind not in {"start", "done"} else ""
    mark = _MARKS.get(line.kind, line.kind)
    return f"[{view.finished:3}/{view.total}] {mark}  {line.card}{took}{text}"


class JsonFace:
    """Every event as a line of MicroJSON."""

    def note(self, text: str) -> None:
        """Notes are for people."""

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, int]) -> None:
        """The plan as a message; estimates in seconds."""
        self.event(MessageID.PLAN, {"total": total, "kept": kept, "estimates": dict(estimates)})

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Print the message."""
        sys.stdout.write(MicroJSON.message(number, data).decode() + "\n")
        sys.stdout.flush()

    def idle(self) -> None:
        """Nothing to repaint."""

    def end(self) -> None:
        """Nothing to restore."""


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

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, int]) -> None:
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
        if now - self._painted >= 0.25:
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
            gone = terminal.seconds(now - running.since)
            note = terminal.plain(running.note or _last_line(running.log))
            text.append(f"  {gone:>8}  ", style="cyan")
            text.append(f"{running.card}", style="bold")
            text.append(f"  {note}\n"[: max(1, width - 14 - len(running.card))].rstrip("\n") + "\n", style="dim")
        if view.total:
            left = terminal.seconds(view.seconds_left(self._jobs))
            gone = terminal.seconds(now - self._began)
            text.append(
                f"  {view.finished}/{view.total} cards, {view.kept} kept · {gone} gone, about {left} left", style="dim"
            )
        return text


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
        return JsonFace()
    if terminal.is_interactive():
        return LiveFace(jobs)
    return PlainFace(jobs)
