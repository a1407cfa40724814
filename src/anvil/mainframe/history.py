"""Earlier forges, as the cortex remembers them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from anvil.errors import UsageError
from anvil.mainframe.keys import Identity
from anvil.mainframe.results import StepResult
from anvil.microjson.codec import MicroJSON, parse_canonical
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anvil.cortex.db_interface import CortexDB
    from anvil.cortex.records import ForgeRun, PastCard

_MOST_FORGES = 100_000


class Past:
    """One forge that was, or that is on the stack still."""

    def __init__(self, db: CortexDB, deck: str) -> None:
        self.deck = deck
        self._db = db

    @cached_property
    def rows(self) -> dict[str, PastCard]:
        """Its cards by id, in their order."""
        return {row.id: row for row in self._db.past_cards(self.deck)}

    @cached_property
    def began(self) -> int:
        """When it began, microseconds UTC."""
        forge = self._db.forge_of(self.deck)
        return forge.started if forge else 0

    def ran(self, card: str) -> bool:
        """Whether the card made its result in it."""
        return card in self.rows and self.rows[card].ran

    def identity(self, card: str) -> Identity | None:
        """What a card was given in it; None where that was not noted, or what was noted is not what the key says."""
        row = self.rows.get(card)
        if row is None or not row.key:
            return None
        noted = (Identity.from_noted(each) for each in self._db.identities(row.key, card))
        return next((identity for identity in noted if identity is not None), None)

    def result(self, card: str) -> StepResult | None:
        """What a card left in it."""
        row = self.rows.get(card)
        if row is None or row.stat is not Status.PUNCHED:
            return None
        return StepResult.from_data(MicroJSON.decode(row.ret)["data"])


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which forges are looked at first: those of this recipe, profile and project; then of the two; then any."""

    db: CortexDB
    recipe: str
    profile: str
    project: str

    def forges(self) -> list[ForgeRun]:
        """Every forge, nearest first, then newest."""
        return sorted(self.db.forges(_MOST_FORGES), key=self._distance)

    def sorted(self, rows: Sequence[PastCard]) -> list[PastCard]:
        """A card's rows, newest first, of the nearest forges."""
        distances: dict[str, int] = {}
        for row in rows:
            if row.deck not in distances:
                forge = self.db.forge_of(row.deck)
                distances[row.deck] = self._distance(forge) if forge else 2
        return sorted(rows, key=lambda row: (distances[row.deck], -row.seq))

    def _distance(self, forge: ForgeRun) -> int:
        machine = parse_canonical(forge.machine)
        near = (machine.get("profile", ""), machine.get("project", "")) == (self.profile, self.project)
        return 2 if not near else int(forge.recipe != self.recipe)


def find_forge(db: CortexDB, word: str) -> tuple[int, ForgeRun]:
    """A forge and its number, by number, by "last" or "last~N", or by its id or the beginning of that.

    The first forge of a home has number 1. Raises UsageError when there is none or more than one.
    """
    forges = db.forges(_MOST_FORGES)[::-1]
    hint = "anvil forges lists them"
    if not forges:
        raise UsageError("there is no forge in this home yet", hint="anvil forge")
    head, _, back = word.partition("~")
    if head == "last" and (not back or back.isdecimal()):
        index = len(forges) - 1 - int(back or 0)
    elif word.isdecimal():
        index = int(word) - 1
    else:
        found = [number for number, forge in enumerate(forges) if word and forge.id.startswith(word)]
        if len(found) != 1:
            problem = "no forge" if not found else f"{len(found)} forges"
            raise UsageError(f"{problem} called {word!r}", hint=hint)
        index = found[0]
    if not 0 <= index < len(forges):
        raise UsageError(f"there is no forge {word!r}: there are {len(forges)}", hint=hint)
    return index + 1, forges[index]
