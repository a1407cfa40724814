"""The standing mainframe's forges, as the cortex has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.errors import AnvilError
from anvil.mainframe.standing.wish import Wish
from anvil.microjson.codec import parse_canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.cortex.db_interface import CortexDB

_FORGES_LOOKED_AT = 1000


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A wish on the stack that has not ended.

    worker: the token of the desk that pushed it. started: microseconds UTC.
    """

    deck: str
    worker: str
    wish: Wish
    started: int


def standing(db: CortexDB) -> list[Standing]:
    """The wishes on the stack that have not ended, the oldest first."""
    return [each for each in _all(db) if isinstance(each, Standing)]


def end_foreign(db: CortexDB) -> None:
    """End the wishes that another version of Anvil wrote and that nobody here can read."""
    for deck in [each for each in _all(db) if isinstance(each, str)]:
        db.end_forge(deck, verdict="killed")
        db.clear_deck(deck)


def _all(db: CortexDB) -> Iterator[Standing | str]:
    """Wishes; the deck's name for one that is not understood."""
    for forge in reversed(db.forges(_FORGES_LOOKED_AT)):
        machine = {} if forge.ended else parse_canonical(forge.machine)
        if "standing" in machine:
            try:
                wish = Wish.from_data(machine["standing"])
            except AnvilError:
                yield forge.deck
            else:
                yield Standing(deck=forge.deck, worker=machine["worker"], wish=wish, started=forge.started)
