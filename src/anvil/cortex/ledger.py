"""The ledger: reading it, adding to it, and checking that nobody changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anvil.cortex.ledger_chain import GENESIS, event_hash
from anvil.cortex.queries import sql
from anvil.cortex.records import Event
from anvil.cortex.schema import known, verify_schema
from anvil.cortex.sqlite_errors import RESTORE
from anvil.cortex.store import Store
from anvil.errors import IntegrityError
from anvil.microjson.codec import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = 10_000


class Ledger(Store):
    """The chain of events."""

    def log_event(self, kind: int, data: dict[str, Any]) -> int:
        """Add an event that is not a change of a card (those are added by the database itself); its seq."""
        body = canonical(data).decode()
        with self._db.transaction():
            self._db.change(sql("append_event"), {"now": self._clock.utc_us(), "kind": int(kind), "body": body})
            return self.ledger_head()[0]

    def ledger_head(self) -> tuple[int, bytes]:
        """Number and hash of the last event; (0, zeros) if there is none. What a checkpoint signs."""
        row = self._db.row(sql("ledger_head"))
        return (row[0], row[1]) if row else (0, GENESIS)

    def events(
        self,
        *,
        kind: int | None = None,
        card: str | None = None,
        deck: str | None = None,
        after: int = 0,
        limit: int = -1,
    ) -> list[Event]:
        """Events in their order, of one kind, card id or deck if given, after number ``after``; -1: without limit."""
        parameters = {"after": after, "kind": kind, "card": card, "deck": deck, "limit": limit}
        return [_event(row) for row in self._db.rows(sql("events_after"), parameters)]

    def verify_ledger(self, from_seq: int = 1, *, head: tuple[int, bytes] | None = None) -> int:
        """Check the seals and the chain from event ``from_seq`` to the end; how many events were checked.

        head: a number and hash known from elsewhere (a signed checkpoint) that the chain must pass through. Raises
        IntegrityError naming the first broken event. Without ``head``, a whole chain that was written anew, or a tail
        cut off by someone who also edited SQLite's own book-keeping, cannot be told: that is what checkpoints are for.
        """
        verify_schema(self._db, known())
        # Read first: events that others add meanwhile are checked too, but are not asked for.
        ever = max(self._db.value(sql("ledger_last_number")), head[0] if head else 0)
        last, prev, count = from_seq - 1, GENESIS, 0
        if last > 0:
            before = self.events(after=last - 1, limit=1)
            if not before or before[0].seq != last:
                _broken(last, "is missing", self.path)
            prev = before[0].hash
        for event in self._stream(last):
            if event.seq != last + 1:
                _broken(last + 1, "is missing", self.path)
            if event.prev != prev:
                _broken(event.seq, "does not follow the one before", self.path)
            if event.hash != event_hash(event.prev, event.seq, event.at_us, event.kind, event.body):
                _broken(event.seq, "was changed", self.path)
            if head is not None and event.seq == head[0] and event.hash != head[1]:
                _broken(event.seq, "is not the one of the checkpoint", self.path)
            last, prev, count = event.seq, event.hash, count + 1
        if last < ever:
            _broken(last + 1, f"is missing: there were {ever}", self.path)
        return count

    def _stream(self, after: int) -> Iterator[Event]:
        while page := self.events(after=after, limit=_PAGE):
            yield from page
            after = page[-1].seq


def _event(row: tuple[Any, ...]) -> Event:
    return Event(seq=row[0], at_us=row[1], kind=row[2], body=row[3], prev=row[4], hash=row[5])


def _broken(seq: int, how: str, path: str) -> None:
    raise IntegrityError(f"the ledger is broken: event {seq} {how}", where=path, hint=RESTORE)
