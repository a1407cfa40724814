"""The cortex against a plain Python model of it, in random histories."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.faults import LeaseLost
from anvil.cortex.records import NewCard, Stamp, StoredResult
from anvil.errors import UsageError
from anvil.model.card import Card, Status

from .cortex_tools import FakeClock, state_by_ledger

OPERATIONS = st.sampled_from(["boot", "fetch", "run"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
DECKS = st.sampled_from(["d", "e"])
KEYS = st.sampled_from(["k1", "k2"])
SHAPES = st.tuples(OPERATIONS, st.integers(-1, 1), st.booleans(), st.sets(st.integers(0, 5)))


@dataclass(kw_only=True)
class ModelCard:
    seq: int
    deck: str
    id: str
    op: str
    needs: tuple[str, ...]
    priority: int
    hold: bool
    stat: Status = Status.PENDING
    attempts: int = 0
    lease: str = ""
    until: int = 0
    running: str = ""


@dataclass(kw_only=True)
class Model:
    cards: dict[tuple[str, str], ModelCard] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)

    def ready(self) -> list[ModelCard]:
        found = [
            card
            for card in self.cards.values()
            if card.stat is Status.PENDING
            and not card.hold
            and all(self.cards[card.deck, need].stat is Status.PUNCHED for need in card.needs)
        ]
        return sorted(found, key=lambda card: (-card.priority, card.seq))

    def claimable(self, deck: str | None, only: set[str] | None, exclude: set[str]) -> list[ModelCard]:
        return [
            card
            for card in self.ready()
            if deck in {None, card.deck} and (only is None or card.op in only) and card.op not in exclude
        ]

    def owned(self, claim: Card) -> ModelCard | None:
        card = self.cards.get((claim.deck, claim.id))
        if card is None or (card.seq, card.stat) != (claim.seq, Status.PROCESSING):
            return None
        return card if (card.lease, card.attempts) == (claim.lease, claim.attempts) else None

    @staticmethod
    def end(card: ModelCard, stat: Status) -> None:
        card.stat, card.lease, card.running = stat, "", ""


class CortexMachine(RuleBasedStateMachine):
    claims: Bundle[Card] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        # In memory where that is possible: thousands of commits, and this is not about the disk.
        memory = Path("/dev/shm")
        self.folder = tempfile.mkdtemp(prefix="anvil-cortex-", dir=memory if memory.is_dir() else None)
        self.clock = FakeClock()
        self.db = CortexDB(f"{self.folder}/cortex.db", clock=self.clock)
        self.model = Model()
        self.names = 0

    def teardown(self) -> None:
        self.db.verify_ledger()
        self.db.close()
        shutil.rmtree(self.folder)

    @rule(
        deck=DECKS,
        shape=st.lists(SHAPES, max_size=6),
    )
    def push(self, deck: str, shape: list[tuple[str, int, bool, set[int]]]) -> None:
        there = [name for other, name in self.model.cards if other == deck][-3:]
        cards: list[NewCard] = []
        for operation, priority, hold, needs in shape:
            names = there + [card.id for card in cards]
            chosen = tuple(names[index] for index in sorted(needs) if index < len(names))
            self.names += 1
            cards.append(
                NewCard(id=f"c{self.names}", op=operation, pld="", priority=priority, hold=hold, needs=chosen)
            )
        for name, seq in self.db.push_deck(deck, cards).items():
            card = next(card for card in cards if card.id == name)
            self.model.cards[deck, name] = ModelCard(
                seq=seq,
                deck=deck,
                id=name,
                op=card.op,
                needs=card.needs,
                priority=card.priority,
                hold=card.hold,
            )

    @rule(
        target=claims,
        worker=WORKERS,
        deck=st.none() | DECKS,
        only=st.none() | st.sets(OPERATIONS),
        exclude=st.sets(OPERATIONS, max_size=1),
        seconds=st.integers(1, 100),
    )
    def pop(self, worker: str, deck: str | None, only: set[str] | None, exclude: set[str], seconds: int) -> Any:
        expected = self.model.claimable(deck, only, exclude)[:1]
        found = self.db.pop_card(worker, only=only, exclude=exclude, deck=deck, lease_seconds=seconds)
        return multiple(*self.claimed([found] if found else [], expected, worker, seconds))

    @rule(
        target=claims,
        worker=WORKERS,
        most=st.integers(0, 5),
        deck=st.none() | DECKS,
        only=st.none() | st.sets(OPERATIONS),
        exclude=st.sets(OPERATIONS, max_size=1),
    )
    def pop_several(self, worker: str, most: int, deck: str | None, only: set[str] | None, exclude: set[str]) -> Any:
        expected = self.model.claimable(deck, only, exclude)[:most]
        found = self.db.pop_cards(worker, most, only=only, exclude=exclude, deck=deck, lease_seconds=7)
        return multiple(*self.claimed(found, expected, worker, 7))

    def claimed(self, found: list[Card], expected: list[ModelCard], worker: str, seconds: int) -> list[Card]:
        assert [(card.seq, card.id, card.needs) for card in found] == [(c.seq, c.id, c.needs) for c in expected]
        for card in expected:
            card.stat, card.lease, card.attempts = Status.PROCESSING, worker, card.attempts + 1
            card.until = self.clock.boot + seconds * 1_000_000
        assert [(card.lease, card.attempts) for card in found] == [(worker, card.attempts) for card in expected]
        return found

    @rule(
        chosen=st.lists(claims, max_size=4, unique_by=id),
        stat=st.sampled_from([Status.PUNCHED, Status.JAMMED]),
        key=KEYS,
    )
    def stamp_several(self, chosen: list[Card], stat: Status, key: str) -> None:
        lost = []
        for claim in chosen:
            card = self.model.owned(claim)
            if card is not None:
                self.model.end(card, stat)
                if stat is Status.PUNCHED:
                    self.model.results.setdefault(key, "z")
            elif not self.is_stamped(claim, stat):
                lost.append(claim)
        stamps = [
            Stamp(card=card, stat=stat, ret="z", key=key, result=StoredResult(key=key, out="z")) for card in chosen
        ]
        assert self.db.log_results(stamps) == lost

    def is_stamped(self, claim: Card, stat: Status) -> bool:
        """Whether the card has that stamp, of that claim, already."""
        card = self.db.card(claim.deck, claim.id)
        return card is not None and (card.seq, card.attempts, card.stat, card.ret) == (
            claim.seq,
            claim.attempts,
            stat,
            "z",
        )

    @rule(claim=claims, stat=st.sampled_from([Status.PUNCHED, Status.JAMMED]), key=KEYS, ret=st.sampled_from("xy"))
    def stamp(self, claim: Card, stat: Status, key: str, ret: str) -> None:
        before = self.db.card(claim.deck, claim.id)
        card = self.model.owned(claim)
        try:
            now = self.db.log_result(claim, stat=stat, ret=ret, key=key, result=StoredResult(key=key, out=ret))
        except LeaseLost:
            assert card is None
            assert self.db.card(claim.deck, claim.id) == before
            return
        if card is None:  # the same stamp again
            assert now == before
            assert (now.attempts, now.stat, now.ret) == (claim.attempts, stat, ret)
            return
        self.model.end(card, stat)
        if stat is Status.PUNCHED:
            self.model.results.setdefault(key, ret)

    @rule(claim=consumes(claims))
    def release(self, claim: Card) -> None:
        card = self.model.owned(claim)
        try:
            self.db.release_card(claim, "released")
        except LeaseLost:
            assert card is None
        else:
            assert card is not None
            self.model.end(card, Status.PENDING)

    @rule(claim=claims, seconds=st.integers(1, 100))
    def heartbeat(self, claim: Card, seconds: int) -> None:
        card = self.model.owned(claim)
        try:
            self.db.heartbeat(claim, seconds)
        except LeaseLost:
            assert card is None
        else:
            assert card is not None
            card.until = self.clock.boot + seconds * 1_000_000

    @rule(claim=claims, key=KEYS)
    def begin(self, claim: Card, key: str) -> None:
        card = self.model.owned(claim)
        try:
            begun = self.db.begin_key(key, claim)
        except LeaseLost:
            assert card is None
            return
        assert card is not None
        card.running = card.running if card.running == key else ""
        taken = any(other.running == key for other in self.model.cards.values() if other is not card)
        expected = card.running == key or (not taken and key not in self.model.results)
        assert begun is expected
        card.running = key if begun else ""

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        assert self.db.forget_result(key) is (self.model.results.pop(key, None) is not None)

    @rule(seconds=st.integers(1, 60), dead=st.none() | st.sets(WORKERS, max_size=1))
    def reclaim(self, seconds: int, dead: set[str] | None) -> None:
        self.clock.pass_seconds(seconds)
        expected = [
            card
            for card in self.model.cards.values()
            if card.stat is Status.PROCESSING
            and (card.until < self.clock.boot if dead is None else card.lease in dead)
        ]
        found = self.db.reclaim(None if dead is None else lambda worker: worker in dead)
        assert sorted(card.seq for card in found) == sorted(card.seq for card in expected)
        for card in expected:
            self.model.end(card, Status.PENDING)

    @rule(data=st.data())
    def retry_or_approve(self, data: st.DataObject) -> None:
        if not self.model.cards:
            return
        card = data.draw(st.sampled_from(list(self.model.cards.values())))
        try:
            self.db.retry(card.deck, card.id)
        except UsageError:
            assert card.stat is not Status.JAMMED
        else:
            assert card.stat is Status.JAMMED
            card.stat = Status.PENDING
        try:
            self.db.approve(card.deck, card.id)
        except UsageError:
            assert not card.hold
        else:
            card.hold = False

    @rule(deck=st.none() | DECKS)
    def clear(self, deck: str | None) -> None:
        gone = [
            name
            for name, card in self.model.cards.items()
            if deck in {None, card.deck} and (card.stat is not Status.PROCESSING or card.until < self.clock.boot)
        ]
        assert self.db.clear_deck(deck) == len(gone)
        for name in gone:
            del self.model.cards[name]
        for card in self.model.cards.values():  # a card that runs on needs nothing that is gone
            card.needs = tuple(need for need in card.needs if (card.deck, need) in self.model.cards)

    @invariant()
    def the_same(self) -> None:
        for deck in ("d", "e"):
            cards = self.db.cards(deck)
            expected = [card for card in self.model.cards.values() if card.deck == deck]
            assert [(c.id, c.stat, c.attempts, c.lease, c.hold) for c in cards] == [
                (c.id, c.stat, c.attempts, c.lease, c.hold) for c in sorted(expected, key=lambda card: card.seq)
            ]
        assert {key: self.db.find_results([key])[key].out for key in self.model.results} == self.model.results
        running = {card.running: card.seq for card in self.model.cards.values() if card.running}
        assert dict(self.db._db.rows("SELECT key, card FROM running")) == running

    @invariant()
    def the_ledger_tells_it_all(self) -> None:
        told = state_by_ledger(self.db.events())
        assert told == {name: (card.stat, card.attempts) for name, card in self.model.cards.items()}


TestCortexMachine = pytest.mark.filterwarnings("error")(CortexMachine.TestCase)
TestCortexMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
