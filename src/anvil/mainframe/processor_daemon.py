"""The Processor: polls the cortex, claims a card (0 to 1), runs it, stamps it (2 or 9).

It claims only cards whose needs are punched. When the card's key has a result already, the card is stamped with that
and nothing runs; when a living worker is at the same key, the card goes back and waits. A card's own failure is a
jam; the machine's failure (no space, no network, a stop) is none: the card goes back to pending, and the next run
goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anvil.cortex.faults import LeaseLost
from anvil.cortex.records import StoredResult
from anvil.errors import AnvilError, EnvironmentLack, IntegrityError, Interrupted
from anvil.mainframe import liveness
from anvil.mainframe.context import Context
from anvil.mainframe.graph import Node
from anvil.mainframe.home import log_path
from anvil.mainframe.ops import operation
from anvil.mainframe.plan import node_identity
from anvil.mainframe.results import StepResult
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID, message_id
from anvil.model.card import Status
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anvil.mainframe.keys import Identity
    from anvil.mainframe.services import Services
    from anvil.model.card import Card

LEASE_SECONDS = 120
"""How long a claim holds without a heartbeat. A dead worker is seen at once by its lock, whatever its lease says."""

_HEARTBEAT_SECONDS = 20
_POLL_SECONDS = 0.05
_WAIT_SECONDS = 0.2
_RECLAIM_SECONDS = 1.0
_LONG_SECONDS = 5  # what is expected to end sooner holds nobody up
_BEHIND = 0.7
"""A long card whose way to the end is shorter than this share of the longest goes on in the background: it must not
hold up the longest way, at whose end processors would be idle."""


class Processor:
    """One worker. Not for use across a fork."""

    def __init__(
        self,
        services: Services,
        *,
        report: Callable[[MessageID, dict[str, Any]], None],
        stopped: Callable[[], bool],
        deck: str = "",
        ops: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """deck: only that deck's cards. ops/without: only these, all but these.

        stopped: says that nothing more is to be claimed. cancelled: that the card under work is to be given up, which
        is the same when it is not given.
        """
        self._services = services
        self._db = services.db
        self._token = services.worker.token
        self._report = report
        self._stopped = stopped
        self._cancelled = cancelled or stopped
        self._deck = deck
        self._ops = ops
        self._without = without
        self._ahead: Card | None = None
        self._claims_ahead = False
        self.draining = False
        """Set to claim nothing more: after a jam what runs may end, and nothing new begins."""

    def run(self, finished: Callable[[], bool]) -> None:
        """Work until stopped or drained, or until nothing is ready and ``finished`` says that nothing will come.

        A card is stamped and the next one claimed in one commit. Raises EnvironmentLack when the machine lacks
        something; the card is pending again, or will be.
        """
        looked = time.monotonic()
        self._claims_ahead = True
        try:
            while self._goes_on():
                if self.run_one():
                    continue
                if finished():
                    return
                time.sleep(_POLL_SECONDS)
                if time.monotonic() - looked > _RECLAIM_SECONDS:
                    looked = time.monotonic()
                    self._reclaim()
        finally:
            self._claims_ahead = False
            self._give_back()

    def _goes_on(self) -> bool:
        return not self._stopped() and not self.draining

    def _give_back(self) -> None:
        """The card that was claimed and not begun is pending again; if that cannot be, when our lock is gone."""
        card, self._ahead = self._ahead, None
        if card is not None:
            with contextlib.suppress(AnvilError):
                self._db.release_card(card, reason="nothing more was to be begun")

    def _claim(self) -> Card | None:
        return self._db.pop_card(
            self._token,
            only=self._ops or None,
            exclude=self._without,
            deck=self._deck or None,
            lease_seconds=LEASE_SECONDS,
        )

    def run_one(self) -> bool:
        """Claim and do one card; False when none was ready."""
        self._services.vault.generations.renew()  # nothing is in hand
        card, self._ahead = self._ahead or self._claim(), None
        if card is None:
            return False
        node = Node.from_data(MicroJSON.decode(card.pld)["data"])
        try:
            with translated("running a card", card.id):
                return self._process(card, node)
        except LeaseLost as error:
            # Somebody took the card for ours no longer (cleared, or given to another): what we made is not lost, its
            # layers are in the vault, but it is not ours to stamp.
            self._report(MessageID.CARD_CANCELLED, {"card": card.id, "message": error.message})
            return True
        except Interrupted as error:
            with contextlib.suppress(LeaseLost):
                self._db.release_card(card, reason=error.message)
            self._report(message_id(error.message_id), {"card": card.id, **error.as_data()})
            return True
        except EnvironmentLack as error:
            error.where = error.where or card.id
            # A full disk may refuse this too; then the card is taken back when our lock is gone.
            with contextlib.suppress(AnvilError):
                self._db.release_card(card, reason=error.message)
            raise
        except AnvilError as error:
            with contextlib.suppress(LeaseLost):
                self._jam(card, error)
            return True
        except BaseException as error:
            # A bug of ours is neither the card's success nor its failure.
            with contextlib.suppress(AnvilError):
                self._db.release_card(card, reason=f"internal error: {error!r}")
            raise

    def _process(self, card: Card, node: Node) -> bool:
        results = {need: self._result(card, need) for need in node.needs}
        identity = node_identity(node, results, self._services.reference)
        key = identity.key
        tick = self._ticker(card)
        if self._is_kept(card, node, identity, tick):
            return True
        log = log_path(self._services.home, card.deck, card.id)
        self._report(MessageID.CARD_CLAIMED, {"card": card.id, "op": card.op, "key": key, "log": str(log)})
        started = time.monotonic()
        context = Context(
            services=self._services,
            node=node,
            results=results,
            report=lambda data: self._report(MessageID.CARD_PROGRESS, {"card": card.id, **data}),
            tick=tick,
            log=log,
            background=node.expect >= _LONG_SECONDS and self._db.standing(card) < _BEHIND,
        )
        log.parent.mkdir(exist_ok=True)
        with _one_processor() if node.id in self._services.settings.narrow else contextlib.nullcontext():
            result = operation(node.op).run(context)
        took = round((time.monotonic() - started) * 1000)
        self._stamp(card, replace(result, milliseconds=took), key=key, kept=False)
        return True

    def _is_kept(self, card: Card, node: Node, identity: Identity, tick: Callable[[], bool]) -> bool:
        """Whether the key has a result, which the card now has too; else this worker is the one to make it now.

        While another living worker is at the key this waits in place: that worker waits for nobody, so the wait ends.
        """
        key = identity.key
        forced = node.id in self._services.settings.forced
        waits = False
        told: liveness.Holder | None = None
        while True:
            if not forced and self._keep(card, node, key):
                return True
            with self._db.batch():  # in one commit: whatever comes of the card, what went into it is known
                self._db.note_identity(identity.noted())
                begun = self._db.begin_key(key, card)
            if begun:
                return False
            if self._db.find_result(key) is not None:
                # somebody made it since we looked; or forced, or what it left is gone: a source that was deleted
                if not forced and self._keep(card, node, key):
                    return True
                self._db.forget_result(key)
                continue
            holder = liveness.holder(self._services.home.workers, self._db.runner(key))
            if not waits or (holder and holder != told):
                if not waits:
                    self._db.await_key(key, card)
                waits, told = True, holder
                maker = {"pid": holder.pid, "asleep": holder.stopped} if holder else {}
                self._report(MessageID.CARD_WAITING, {"card": card.id, "key": key, **maker})
            if tick():
                raise Interrupted(f"{card.id} was stopped while it waited")
            self._reclaim()
            time.sleep(_WAIT_SECONDS)

    def _keep(self, card: Card, node: Node, key: str) -> bool:
        """Stamp the card with its key's result, if there is one; no garbage collection comes between the two."""
        with self._services.vault.generations.steady():
            kept = self._services.known(node, key)
            if kept is not None:
                self._stamp(card, kept, key=key, kept=True)
            return kept is not None

    def _reclaim(self) -> None:
        """Nobody waits for the dead: what they had claimed is pending again."""
        self._db.reclaim(lambda token: liveness.is_dead(self._services.home.workers, token))

    def _result(self, card: Card, need: str) -> StepResult:
        found = self._db.card(card.deck, need)
        if found is None:
            raise IntegrityError(f"{need}, which {card.id} needs, is not in the deck", where=card.deck)
        return StepResult.from_data(MicroJSON.decode(found.ret)["data"])

    def _stamp(self, card: Card, result: StepResult, *, key: str, kept: bool) -> None:
        ret = MicroJSON.message(MessageID.CARD_RESULT, result.as_data()).decode()
        work, out = (result.stack[0] if result.stack else None), result.out
        stored = (
            None
            if kept
            else StoredResult(
                key=key,
                work=work.digest if work else "",
                work_times=work.times if work else "",
                out=out.digest if out else "",
                out_times=out.times if out else "",
                log=result.log,
                duration_ms=result.milliseconds,
            )
        )
        with self._db.batch():
            self._db.log_result(card, stat=Status.PUNCHED, ret=ret, key=key, result=stored)
            following = self._claim() if self._claims_ahead and self._goes_on() else None
        self._ahead = following  # not before it is on the disk
        data = {"card": card.id, "key": key, "ms": result.milliseconds, "facts": dict(result.facts)}
        self._report(MessageID.CARD_KEPT if kept else MessageID.CARD_PUNCHED, data)

    def _jam(self, card: Card, error: AnvilError) -> None:
        ret = MicroJSON.message(message_id(error.message_id), {"card": card.id, **error.as_data()}).decode()
        self._db.log_result(card, stat=Status.JAMMED, ret=ret)
        self._report(message_id(error.message_id), {"card": card.id, **error.as_data()})
        self.draining = True

    def _ticker(self, card: Card) -> Callable[[], bool]:
        last = time.monotonic()

        def tick() -> bool:
            nonlocal last
            now = time.monotonic()
            if now - last > _HEARTBEAT_SECONDS:
                last = now
                self._db.heartbeat(card, lease_seconds=LEASE_SECONDS)
            return self._cancelled()

        return tick


@contextlib.contextmanager
def _one_processor() -> Iterator[None]:
    """Stay, with all that is started meanwhile, on one of the processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
