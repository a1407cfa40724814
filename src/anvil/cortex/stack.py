"""The card stack: pushing, looking, clearing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cortex.deck_order import check_deck
from anvil.cortex.queries import sql
from anvil.cortex.records import NewCard
from anvil.cortex.store import Store, card_of, json_list
from anvil.errors import UsageError
from anvil.model.card import Card, Status

if TYPE_CHECKING:
    from collections.abc import Sequence


class Stack(Store):
    """Cards, whoever may be working on them."""

    def push_card(
        self,
        id: str,  # noqa: A002 (the seed's name)
        op: str,
        pld: str,
        *,
        ret: str = "",
        timestamp: int | None = None,
        deck: str = "",
        needs: Sequence[str] = (),
        hold: bool = False,
        stat: Status = Status.PENDING,
        key: str = "",
        priority: int = 0,
    ) -> int:
        """Push one card; its seq. timestamp: microseconds UTC, now if None. Errors: as ``push_deck``."""
        card = NewCard(
            id=id, op=op, pld=pld, needs=tuple(needs), key=key, ret=ret, stat=stat, hold=hold, priority=priority
        )
        return self.push_deck(deck, [card], timestamp=timestamp)[id]

    def push_deck(self, deck_name: str, cards: Sequence[NewCard], *, timestamp: int | None = None) -> dict[str, int]:
        """Push cards in one transaction; the seq of each by id.

        Raises RecipeError, and pushes nothing, if an id is there twice (or already in the deck), a need is in neither
        the push nor the deck, or cards need each other in a circle.
        """
        now = self._clock.utc_us() if timestamp is None else timestamp
        named = list({name: None for card in cards for name in (card.id, *card.needs)})
        with self._db.transaction():
            present = self._seqs(deck_name, named)
            check_deck(deck_name, cards, present)
            first = self._db.value(sql("last_seq")) + 1
            pushed = {card.id: first + index for index, card in enumerate(cards)}
            seqs = present | pushed
            needs = [tuple(dict.fromkeys(card.needs)) for card in cards]
            self._db.rows_of_many(
                sql("push_card"),
                (
                    (
                        *(pushed[c.id], deck_name, c.id, c.op, c.pld, int(c.stat), c.ret, now, c.key),
                        *(json_list(need) if need else "[]", c.priority, int(c.hold)),
                    )
                    for c, need in zip(cards, needs, strict=True)
                ),
            )
            if any(needs):
                self._db.rows_of_many(
                    sql("push_need"),
                    ((pushed[c.id], seqs[each]) for c, need in zip(cards, needs, strict=True) for each in need),
                )
        return pushed

    def _seqs(self, deck: str, ids: Sequence[str]) -> dict[str, int]:
        # Those of the ids that the deck has.
        return dict(self._db.rows_of_many(sql("seq_of_id"), ((deck, each) for each in ids)))

    def peek_stack(self, limit: int = 12, deck: str | None = None) -> list[Card]:
        """The last cards, newest first."""
        name = "peek_stack" if deck is None else "peek_stack_of_deck"
        parameters = {"limit": limit} if deck is None else {"limit": limit, "deck": deck}
        return [card_of(row) for row in self._db.rows(sql(name), parameters)]

    def card(self, deck: str, id: str) -> Card | None:  # noqa: A002 (the seed's name)
        """One card."""
        row = self._db.row(sql("card"), {"deck": deck, "id": id})
        return card_of(row) if row else None

    def cards(self, deck: str) -> list[Card]:
        """All cards of a deck, in the order of their seq."""
        return [card_of(row) for row in self._db.rows(sql("cards_of_deck"), {"deck": deck})]

    def counts(self, deck: str | None = None) -> dict[Status, int]:
        """How many cards have each status; every status is there."""
        name = "counts" if deck is None else "counts_of_deck"
        found: dict[int, int] = dict(self._db.rows(sql(name), {} if deck is None else {"deck": deck}))
        return {status: found.get(int(status), 0) for status in Status}

    def standing(self, card: Card) -> float:
        """A claimed card's priority as a share of the highest among its deck's cards that are not done: 0 to 1.

        Priorities are lengths of ways to the deck's end, so 1 says that nothing has a longer one before it.
        """
        own, highest = self._db.row(sql("standing"), {"seq": card.seq}) or (1, 1)
        return own / highest if highest else 1.0

    def retry(self, deck: str, id: str) -> None:  # noqa: A002 (the seed's name)
        """Put a jammed card back to pending. Raises UsageError if it is not jammed."""
        with self._db.transaction():
            if not self._db.change(sql("retry_card"), {"deck": deck, "id": id, "now": self._clock.utc_us()}):
                raise UsageError("there is no such jammed card", where=id, hint="anvil jam")

    def approve(self, deck: str, id: str, *, reason: str = "") -> None:  # noqa: A002 (the seed's name)
        """Let a held card run. Raises UsageError if it is not held."""
        parameters = {"deck": deck, "id": id, "reason": reason, "now": self._clock.utc_us()}
        with self._db.transaction():
            if not self._db.change(sql("approve_card"), parameters):
                raise UsageError("there is no such held card", where=id, hint="anvil stack")

    def clear_deck(self, deck: str | None = None) -> int:
        """Remove the cards of a deck (of all decks if None); how many. The ledger keeps their history.

        Cards under a live lease stay.
        """
        parameters = {"deck": deck, "boot": self._clock.boot_id(), "now_boot": self._clock.boot_us()}
        with self._db.transaction():
            return self._db.change(sql("clear_deck"), parameters)
