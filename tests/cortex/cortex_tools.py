"""What the cortex tests share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from anvil.cortex.clock import Clock
from anvil.cortex.kinds import EventKind
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anvil.cortex.records import Event


class FakeClock(Clock):
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.utc = 1_700_000_000_000_000
        self.boot = 5_000_000
        self.id = "boot-1"

    def utc_us(self) -> int:
        self.utc += 1
        return self.utc

    def boot_us(self) -> int:
        return self.boot

    def boot_id(self) -> str:
        return self.id

    def pass_seconds(self, seconds: float) -> None:
        self.boot += int(seconds * 1_000_000)


def state_by_ledger(events: Iterable[Event]) -> dict[tuple[str, str], tuple[Status, int]]:
    """Status and attempts of every card, told from the ledger alone."""
    moves = {
        EventKind.CARD_CLAIMED: Status.PROCESSING,
        EventKind.CARD_PUNCHED: Status.PUNCHED,
        EventKind.CARD_JAM: Status.JAMMED,
        EventKind.CARD_CANCELLED: Status.PENDING,
        EventKind.LEASE_RECLAIMED: Status.PENDING,
        EventKind.CARD_RETRIED: Status.PENDING,
    }
    state: dict[tuple[str, str], tuple[Status, int]] = {}
    for event in events:
        body = json.loads(event.body)
        name = (body.get("deck", ""), body.get("id", ""))
        if event.kind == EventKind.CARD_PUSHED:
            state[name] = (Status(body["stat"]), 0)
        elif event.kind == EventKind.CARD_CLEARED:
            del state[name]
        elif event.kind in moves:
            state[name] = (moves[EventKind(event.kind)], body["attempt"])
    return state
