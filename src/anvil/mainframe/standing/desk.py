"""One wish at work, in a process of the Architect's: it draws and pushes the deck, follows it, and publishes.

It is an ordinary forge but for its crew, which is the Processor's. The wish is in the cortex together with its deck:
from then on it outlives the client, this process and the Architect, which takes it up again.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.errors import AnvilError, EnvironmentLack, Interrupted
from anvil.mainframe.forge import Forge
from anvil.mainframe.outcome import Jam, Outcome, Published, Verdict
from anvil.mainframe.services import Services
from anvil.mainframe.standing import seat, wire
from anvil.mainframe.standing.journal import Journal
from anvil.microjson.registry import MessageID
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anvil.mainframe.settings import Settings
    from anvil.mainframe.standing.wire import Line
    from anvil.mainframe.standing.wish import Wish

_TICK_SECONDS = 0.05
_LOOK_SECONDS = 1.0


class Desk:
    """The client of a wish, if there is one (a face of the forge's), and what it and the daemon ask for."""

    def __init__(self, line: Line | None, *, asked: int = 0) -> None:
        """asked: how often the client has asked for a stop already."""
        self._line = line
        self.asked = asked
        self.leaving = False
        """The daemon ends; the wish does not."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the daemon decides

    def stopped(self) -> bool:
        """Whether nothing more is to be done here."""
        self.idle()
        return self.asked > 0 or self.leaving

    def tell(self, number: MessageID, data: Mapping[str, Any]) -> None:
        """Tell the client, if it is still there."""
        if self._line is not None:
            self._line.tell(number, data)

    def hang_up(self) -> None:
        """Send what is left to be sent."""
        if self._line is not None:
            self._line.flush()
            self._line.close()

    def note(self, text: str) -> None:
        """A sentence."""
        self.tell(MessageID.FORGE_NOTE, {"text": text})

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """The plan."""
        times = {card: list(each) for card, each in estimates.items()}
        self.tell(MessageID.PLAN, {"total": total, "kept": kept, "estimates": times})

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Something happened."""
        self.tell(number, data)

    def idle(self) -> None:
        """Hear what the client wants. One that has gone, or says what is no message, is no client any more."""
        if self._line is None:
            return
        try:
            self.asked += sum(number is MessageID.WISH_STOP for number, _ in self._line.heard())
        except AnvilError:
            self._line.open = False
        if not self._line.open:
            self._line.close()
            self._line = None

    def _on_term(self, _number: int, _frame: object) -> None:
        self.leaving = True


class StandingForge(Forge):
    """A forge whose cards the Processor runs."""

    def __init__(self, settings: Settings, desk: Desk, wish: Wish) -> None:
        super().__init__(settings, desk, stopped=desk.stopped)
        self._desk = desk
        self._wish = wish

    def take_up(self, deck: str) -> Outcome | None:
        """Follow a deck that another process pushed, which is gone, and then do what is left; None after a jam.

        A deck that has no cards was never pushed.
        """
        verdict = "interrupted"
        with Services(self._settings) as services:
            pushed = any(services.db.counts(deck).values())
            services.db.close()
            del services.__dict__["db"]
            try:
                if pushed:
                    self._follow(Journal(services.home, deck))
                    verdict = "done"
            finally:
                jammed = bool(services.db.counts(deck)[Status.JAMMED])
                self._close(services, deck, verdict)
        return None if jammed else self.run(self._wish.recipe)

    def _machine(self, services: Services) -> dict[str, Any]:
        return {**super()._machine(services), "standing": self._wish.as_data()}

    def _carry_out(self, services: Services, deck: str) -> None:
        journal = Journal(services.home, deck)
        journal.make()
        self._desk.tell(MessageID.WISH_TAKEN, {"deck": deck})
        self._follow(journal)

    def _close(self, services: Services, deck: str, verdict: str) -> None:
        if not self._desk.leaving:
            super()._close(services, deck, verdict)

    def _follow(self, journal: Journal) -> None:
        """Pass on what the Processor does until it has done. Raises what ended the deck early, or Interrupted."""
        said, asked, looked = False, 0, time.monotonic() - _LOOK_SECONDS
        home = self._settings.home
        while True:
            for number, data in journal.news():
                if number is MessageID.DECK_WORKED:
                    if error := data.get("error"):
                        raise wire.error_of(error)
                    return
                self._desk.event(number, data)
            stopped = self._desk.stopped() or journal.stops() > 0
            if self._desk.leaving:
                raise Interrupted("the architect was stopped")
            if self._desk.asked > asked:
                asked = self._desk.asked
                journal.ask_stop(asked)
            if (now := time.monotonic()) - looked > _LOOK_SECONDS:
                looked = now
                works = seat.holder(home, "processor") is not None
                if stopped and not works:
                    raise Interrupted("stopped; everything done so far is kept", hint="run the same command to go on")
                if not works and not said:
                    self._desk.note("no processor works on this home: it waits for: anvil mainframe processor")
                said = not works
            time.sleep(_TICK_SECONDS)


def work(settings: Settings, wish: Wish, desk: Desk, say: Callable[[str], None], *, deck: str = "") -> int:
    """The life of a desk. deck: one to be taken up. settings: the wish's own."""
    forge = StandingForge(settings, desk, wish)
    try:
        if deck:
            outcome = forge.take_up(deck)
        else:
            _require_output(settings.output)
            outcome = forge.run(wish.recipe)
    except AnvilError as problem:
        error = _leaving() if desk.leaving else problem
        say(f"{wish.recipe}: {error.message}")
        desk.tell(MessageID.WISH_ENDED, {"error": wire.error_data(error)})
    else:
        if outcome is not None:
            verdict = "jammed" if outcome.jams else "done"
            say(f"{wish.recipe}: {verdict}, {outcome.ran} run, {outcome.kept} kept {outcome.deck}".rstrip())
            desk.tell(MessageID.WISH_ENDED, {"outcome": outcome_data(outcome)})
    desk.hang_up()
    return 0


def _leaving() -> EnvironmentLack:
    return EnvironmentLack(
        "the architect was stopped; what is on the stack goes on without it",
        hint="start it again (anvil mainframe architect), then the same command",
    )


def _require_output(folder: Path) -> None:
    """Say before anything is made that nothing could be put there."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK, effective_ids=True):
        raise EnvironmentLack(
            f"the mainframe may not write into {there}",
            where=str(folder),
            hint="name a folder that it may write with --output DIR, or let its service write there: ReadWritePaths=",
        )


def outcome_data(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data."""
    return {
        **vars(outcome),
        "artifacts": [{**vars(artifact), "path": str(artifact.path)} for artifact in outcome.artifacts],
        "verdicts": [dict(vars(verdict)) for verdict in outcome.verdicts],
        "contested": list(outcome.contested),
        "jams": [{**vars(jam), "tail": list(jam.tail)} for jam in outcome.jams],
    }


def outcome_of(data: Mapping[str, Any]) -> Outcome:
    """The outcome that plain data says."""
    return Outcome(
        deck=data["deck"],
        ran=data["ran"],
        kept=data["kept"],
        artifacts=tuple(Published(**{**each, "path": Path(each["path"])}) for each in data["artifacts"]),
        verdicts=tuple(Verdict(**each) for each in data["verdicts"]),
        contested=tuple(data["contested"]),
        jams=tuple(Jam(**{**each, "tail": tuple(each["tail"])}) for each in data["jams"]),
    )
