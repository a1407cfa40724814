"""Claims and what ends them. Every change after a claim is fenced by the worker's token and the attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from anvil.cortex.faults import LeaseLost
from anvil.cortex.queries import sql
from anvil.cortex.records import Stamp
from anvil.cortex.results import Results
from anvil.cortex.store import card_of, json_list
from anvil.errors import AnvilError, UsageError
from anvil.model.card import Card, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from anvil.cortex.records import StoredResult


class Leases(Results):
    """Cards under work."""

    _idle = True
    """Whether the last claim through this object found nothing."""

    def pop_card(
        self,
        worker: str,
        *,
        only: Collection[str] | None = None,
        exclude: Collection[str] = (),
        deck: str | None = None,
        lease_seconds: float = 60.0,
    ) -> Card | None:
        """Claim the next card (0 to 1) for ``worker``; None if none can be claimed now.

        Highest priority first, then lowest seq, among cards whose needs are all punched and that are not held. only,
        exclude: operations. The claim lasts ``lease_seconds``; ``heartbeat`` makes it longer.
        """
        cards = self.pop_cards(worker, 1, only=only, exclude=exclude, deck=deck, lease_seconds=lease_seconds)
        return cards[0] if cards else None

    def pop_cards(
        self,
        worker: str,
        most: int,
        *,
        only: Collection[str] | None = None,
        exclude: Collection[str] = (),
        deck: str | None = None,
        lease_seconds: float = 60.0,
    ) -> list[Card]:
        """Claim the next cards in one commit: those that ``most`` calls of ``pop_card`` would claim, in that order.

        For work that takes less than a commit. What one worker has claimed no other can take: claim no more than is
        done in milliseconds.
        """
        if not worker:
            raise UsageError("a worker needs a token")
        parameters = (worker, self._clock.boot_id(), self._until(lease_seconds), self._clock.utc_us())
        # Who found nothing looks without the lock until there is something: it is in nobody's way meanwhile.
        if self._idle and not self._db.inside and not self._best_ready(1, only, exclude, deck):
            return []
        with self._db.transaction():
            seqs = [(seq,) for seq in self._best_ready(most, only, exclude, deck)]
            self._idle = not seqs
            self._db.rows_of_many(sql("claim_card"), ((*seq, *parameters) for seq in seqs))
            return [card_of(row) for row in self._db.rows_of_many(sql("card_of_seq"), seqs)]

    def _best_ready(
        self, most: int, only: Collection[str] | None, exclude: Collection[str], deck: str | None
    ) -> list[int]:
        # A few look-ups for each operation that has claimable cards, however many cards there are.
        scope = {} if deck is None else {"deck": deck}
        first = sql("next_ready" if deck is None else "next_ready_of_deck")
        ready = []
        op = ""
        while row := self._db.row(first, {"op": op, **scope}):
            op = row[0]
            if op not in exclude and (only is None or op in only):
                ready.append(row)
        if most > 1:
            more = sql("ready_of_op" if deck is None else "ready_of_op_of_deck")
            ready = [row for op, *_ in ready for row in self._db.rows(more, {"op": op, "most": most, **scope})]
        return [row[2] for row in sorted(ready, key=lambda row: (-row[1], row[2]))[:most]]

    def _card_of_seq(self, seq: int) -> Card:
        row = self._db.row(sql("card_of_seq"), (seq,))
        assert row is not None
        return card_of(row)

    def heartbeat(self, card: Card, lease_seconds: float = 60.0) -> None:
        """Make a claim last ``lease_seconds`` from now. Raises LeaseLost."""
        parameters = {"until": self._until(lease_seconds), "boot": self._clock.boot_id(), **fence(card)}
        with self._db.transaction():
            if not self._db.change(sql("heartbeat"), parameters):
                lost(card)

    def log_result(
        self, card: Card, *, stat: Status, ret: str, key: str = "", result: StoredResult | None = None
    ) -> Card:
        """Stamp a claimed card PUNCHED or JAMMED; the card as it now is. Raises LeaseLost.

        result: kept under its key when the card is punched; if the key has a result already, that one stays. The same
        stamp made twice (the first answer was lost) is one stamp.
        """
        with self._db.transaction():
            if not self._stamp(Stamp(card=card, stat=stat, ret=ret, key=key, result=result)):
                lost(card)
            return self._card_of_seq(card.seq)

    def log_results(self, stamps: Iterable[Stamp]) -> list[Card]:
        """Stamp claimed cards in one commit, each as ``log_result`` does; those that are no longer ours.

        These keep the state that they have, and the others are stamped all the same.
        """
        made = list(stamps)  # not under the lock
        with self._db.transaction():
            return [stamp.card for stamp in made if not self._stamp(stamp)]

    def _stamp(self, stamp: Stamp) -> bool:
        # Whether the card is stamped so now. Inside a transaction.
        card, stat, ret = stamp.card, int(stamp.stat), stamp.ret
        if stamp.stat not in {Status.PUNCHED, Status.JAMMED}:
            raise AnvilError("a card is stamped punched or jammed", where=card.id)
        now = self._clock.utc_us()
        if not self._db.change(
            sql("stamp_card"), {"stat": stat, "ret": ret, "key": stamp.key, "now": now, **fence(card)}
        ):
            again = {"seq": card.seq, "attempts": card.attempts, "stat": stat, "ret": ret}
            return self._db.row(sql("stamped_card"), again) is not None
        if stamp.stat is Status.PUNCHED and stamp.result is not None:
            self._keep(stamp.result, card=card, ret=ret, now=now)
        return True

    def release_card(self, card: Card, reason: str) -> None:
        """Give a claimed card back (1 to 0): neither an interruption nor a lack of the machine is a jam.

        Raises LeaseLost.
        """
        parameters = {"reason": reason, "now": self._clock.utc_us(), **fence(card)}
        with self._db.transaction():
            if not self._db.change(sql("release_card"), parameters):
                lost(card)

    def reclaim(self, dead: Callable[[str], bool] | None = None) -> list[Card]:
        """Put cards back to pending whose machine was restarted, or whose worker is gone.

        dead: says of a worker's token whether that worker is gone; called outside the transaction. Whoever can say
        that need not guess: a slow or sleeping worker then keeps its card. Without it an expired lease decides.
        """
        workers = [row[0] for row in self._db.rows(sql("leases"))]
        if not workers:
            return []
        gone = [worker for worker in workers if dead is not None and dead(worker)]
        parameters = {
            "dead": json_list(gone),
            "boot": self._clock.boot_id(),
            "now_boot": self._clock.boot_us() if dead is None else 0,
            "now": self._clock.utc_us(),
        }
        with self._db.transaction():
            return [card_of(row) for row in self._db.rows(sql("reclaim"), parameters)]

    def begin_key(self, key: str, card: Card) -> bool:
        """Whether the claimed ``card`` is now the one that runs ``key``. Raises LeaseLost.

        False: another claimed card runs it, or its result is there already. Then look again (``find_result``, then
        ``begin_key``), with ``reclaim`` in the loop so that nobody waits for the dead. What ends the card's lease ends
        this too.
        """
        parameters = {"key": key, "seq": card.seq, "now": self._clock.utc_us()}
        with self._db.transaction():
            if not self._db.value(sql("owns_card"), fence(card)):
                lost(card)
            self._db.change(sql("end_other_key"), {"key": key, "seq": card.seq})
            self._db.change(sql("begin_key"), parameters)
            self._db.change(sql("set_key"), {"key": key, "seq": card.seq})
            return bool(self._db.value(sql("running_seq"), {"key": key}) == card.seq)

    def _until(self, seconds: float) -> int:
        return self._clock.boot_us() + int(seconds * 1_000_000)


def fence(card: Card) -> dict[str, str | int]:
    """What every change of a claimed card is fenced by."""
    return {"seq": card.seq, "lease": card.lease, "attempts": card.attempts}


def lost(card: Card) -> NoReturn:
    """Say that a claim is no longer good."""
    raise LeaseLost("this card is no longer ours: it was reclaimed, cleared or stamped", where=card.id)
