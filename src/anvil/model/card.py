"""Cards: the atoms of a deck."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """A card's state, with the seed's numbers."""

    PENDING = 0
    PROCESSING = 1
    PUNCHED = 2
    JAMMED = 9


@dataclass(frozen=True, kw_only=True)
class Card:
    """One row of the card stack.

    seq: position in the cortex, rising. id: "recipe/step". op: the operation. pld: its payload, MicroJSON text.
    ret: the result or the error, MicroJSON text ("" until stamped). timestamp: of the last change, microseconds
    since 1970 UTC. deck: the deck's digest or name. key: what the result is kept by ("" until it is known).
    needs: ids of cards of the same deck. attempts: how often it was claimed; with ``lease`` (the claiming worker's
    token) this is the fence of every later update. hold: a person must approve before it runs.
    """

    seq: int
    id: str
    op: str
    pld: str
    stat: Status
    ret: str
    timestamp: int
    deck: str
    key: str
    needs: tuple[str, ...]
    attempts: int
    lease: str
    hold: bool
