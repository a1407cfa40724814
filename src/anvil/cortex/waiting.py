"""Who waits for whom: a card whose key another card runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cortex.leases import fence, lost
from anvil.cortex.queries import sql
from anvil.cortex.records import Waiter
from anvil.cortex.store import Store, json_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anvil.model.card import Card


class Waiting(Store):
    """Keys that are awaited."""

    def await_key(self, key: str, card: Card) -> None:
        """Note that the claimed ``card`` waits for ``key``, which another card runs. Raises LeaseLost.

        It holds until ``begin_key`` gives the key to this card, or its lease ends.
        """
        with self._db.transaction():
            if not self._db.value(sql("owns_card"), fence(card)):
                lost(card)
            self._db.change(sql("await_key"), {"key": key, "seq": card.seq})

    def waiters(self, workers: Sequence[str]) -> list[Waiter]:
        """The cards that wait for what these workers run; the waiting ones' workers may be dead."""
        names = ("worker", "card", "waiter", "waiter_deck", "waiter_card")
        rows = self._db.rows(sql("waiters"), {"workers": json_list(workers)})
        return [Waiter(**dict(zip(names, row, strict=True))) for row in rows]

    def runner(self, key: str) -> str:
        """The token of the worker that runs a key; "" when nobody does."""
        return str(self._db.value(sql("runner"), {"key": key}) or "")
