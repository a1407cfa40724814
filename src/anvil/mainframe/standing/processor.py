"""The Processor as a daemon: it finds the standing mainframe's decks in the cortex and has each worked by a crew.

A deck has a process of its own, its foreman, which is the parent of the crew: killing the daemon kills the foremen,
the crews and their cells, and the next daemon goes on from what the cortex has.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from anvil.cell.process import fork_worker
from anvil.errors import AnvilError, Interrupted
from anvil.mainframe.crew import Crew
from anvil.mainframe.home import Home
from anvil.mainframe.services import Services
from anvil.mainframe.standing.journal import Journal
from anvil.mainframe.standing.loop import Asked, end_all
from anvil.mainframe.standing.records import standing
from anvil.mainframe.standing.seat import Seat
from anvil.mainframe.standing.signs import Manager, Signs
from anvil.mainframe.standing.wire import error_data
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.process import Child
    from anvil.mainframe.settings import Settings
    from anvil.mainframe.standing.records import Standing

DECKS = 2
"""So many decks are worked at once, unless it is told otherwise; the others wait in the order in which they came."""

_TICK_SECONDS = 0.1
_PAUSE_SECONDS = 0.3
_LOOK_SECONDS = 5.0
_TRIES = 3


class ProcessorDaemon:
    """One per home."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], manager: Manager, *, decks: int = DECKS
    ) -> None:
        """settings: home, and what holds for every deck. say: told what happens, in a line."""
        self._settings = settings
        self._say = say
        self._manager = manager
        self._decks = decks
        self._foremen: dict[str, Child] = {}
        self._worked: set[str] = set()
        self._tries: dict[str, int] = {}
        self._seen: tuple[tuple[int, int], ...] = ()
        self._looked = 0.0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; then cards that run are given back, but for those that a forge awaits.

        Raises EnvironmentLack when another one does so here.
        """
        asked = Asked()
        signs = Signs(self._manager)
        self._home = Home.open(self._settings.home)
        with Seat(self._home, "processor") as self._seat:
            signs.ready()
            self._say(f"processor: at work on {self._home.path}, process {os.getpid()}")
            while not asked.stop:
                ended = self._reap()
                if ended or self._has_changed():
                    self._look()
                signs.alive()
                time.sleep(_TICK_SECONDS)
            signs.stopping()
            end_all(self._foremen.values())
        self._say("processor: ended; what it was at is pending again")

    def _has_changed(self) -> bool:
        """Whether the cortex may have: its files say so without a query. Looked at now and then all the same."""
        since = time.monotonic() - self._looked
        if since < _PAUSE_SECONDS:
            return False
        seen = tuple(_stamp(f"{self._home.cortex}{suffix}") for suffix in ("", "-wal"))
        changed = seen != self._seen or since > _LOOK_SECONDS
        self._seen = seen
        return changed

    def _look(self) -> None:
        """Give a foreman to the oldest decks that have none."""
        self._looked = time.monotonic()
        try:
            with Services(self._settings) as services:
                found = [
                    each
                    for each in standing(services.db)
                    if each.deck not in self._foremen
                    and each.deck not in self._worked
                    and any(services.db.counts(each.deck).values())  # none: it is about to be pushed
                ]
        except AnvilError as error:
            self._say(f"processor: {error.message}")
            return
        for each in found:
            journal = Journal(self._home, each.deck)
            if journal.is_over():
                self._worked.add(each.deck)
            elif journal.stops():
                _be_over(journal, Interrupted("stopped before it began", hint="run the same command to go on"))
                self._worked.add(each.deck)
            elif len(self._foremen) < self._decks:
                self._begin(each)

    def _begin(self, deck: Standing) -> None:
        tries = self._tries[deck.deck] = self._tries.get(deck.deck, 0) + 1
        if tries > _TRIES:
            error = AnvilError(f"its crew was killed {_TRIES} times", hint="look for what kills it (memory?)")
            _be_over(Journal(self._home, deck.deck), error)
            return
        self._say(f"processor: begins {deck.deck}")
        settings = deck.wish.settings(self._settings)

        def life() -> int:
            self._seat.leave()
            for other in self._foremen.values():
                os.close(other.pidfd)
            return _foreman(settings, deck.deck)

        self._foremen[deck.deck] = fork_worker(life)

    def _reap(self) -> bool:
        ended = [deck for deck, child in self._foremen.items() if child.reap(0)]
        for deck in ended:
            code = self._foremen.pop(deck).exit_code
            self._say(f"processor: {deck} " + (f"lost its crew ({code})" if code else "is worked"))
        return bool(ended)


def _foreman(settings: Settings, deck: str) -> int:
    """Have a deck worked, and say in its journal when it is over: not when the daemon ends, for then it goes on."""
    told = False

    def on_term(_number: int, _frame: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the daemon decides
    journal = Journal(Home(path=settings.home), deck)
    journal.make()
    journal.begin()
    crew = Crew(settings, deck, observer=journal.write)
    crew.start()
    error: AnvilError | None = None
    try:
        crew.watch(lambda: told or journal.stops() > 0, lambda: None, insisted=lambda: journal.stops() > 1)
    except AnvilError as problem:
        error = problem
    if not told:
        _be_over(journal, error)
    return 0


def _be_over(journal: Journal, error: AnvilError | None) -> None:
    journal.write(MessageID.DECK_WORKED, {"error": error_data(error)} if error else {})


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
