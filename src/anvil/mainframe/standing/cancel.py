"""Stopping a wish from elsewhere: by those who work at it, or without them when they are not there."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack, UsageError
from anvil.mainframe import liveness
from anvil.mainframe.services import Services
from anvil.mainframe.standing import seat
from anvil.mainframe.standing.journal import Journal
from anvil.mainframe.standing.records import standing

if TYPE_CHECKING:
    from anvil.mainframe.settings import Settings

_PATIENCE_SECONDS = 20.0
_TICK_SECONDS = 0.1


def cancel(settings: Settings, deck: str) -> None:
    """Stop a wish. Raises UsageError when there is no such wish, EnvironmentLack when it does not stop."""
    with Services(settings) as services:
        if deck not in _decks(services):
            raise UsageError(f"no wish on the stack is called {deck!r}", hint="anvil mainframe status")
        journal = Journal(services.home, deck)
        journal.make()
        journal.ask_stop(1)
        until = time.monotonic() + _PATIENCE_SECONDS
        while deck in _decks(services):
            if seat.holder(settings.home, "architect") is None and (
                seat.holder(settings.home, "processor") is None or journal.is_over()
            ):
                services.db.reclaim(lambda token: liveness.is_dead(services.home.workers, token))
                with contextlib.suppress(UsageError):  # an architect that has just come back was first
                    services.db.end_forge(deck, verdict="interrupted")
                services.db.clear_deck(deck)
            elif time.monotonic() > until:
                raise EnvironmentLack(f"{deck} was asked to stop and does not", hint="anvil mainframe status")
            time.sleep(_TICK_SECONDS)


def _decks(services: Services) -> list[str]:
    return [each.deck for each in standing(services.db)]
