"""The Processor: a card is stamped and the next one claimed in one commit, and nothing is kept that is not begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anvil.cortex.records import NewCard
from anvil.errors import DiskFull
from anvil.mainframe.graph import Node
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from anvil.model.card import Card, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.mainframe.context import Context


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    (tmp_path / "home").mkdir(mode=0o700)
    with Services(Settings(home=tmp_path / "home", output=tmp_path)) as opened:
        cards = []
        for name in ("r/a", "r/b", "r/c"):
            node = Node(id=name, recipe="r", op="run", script=f"true {name}")
            pld = MicroJSON.message(MessageID.CARD_PAYLOAD, node.as_data()).decode()
            cards.append(NewCard(id=name, op="run", pld=pld))
        opened.db.push_deck("d", cards)
        yield opened


class Line:
    """A processor whose cards do nothing. during, after: called while a card is under work, and when it is punched."""

    def __init__(self, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
        self.db = services.db
        self.during: Callable[[str], object] = lambda _card: None
        self.after: Callable[[str], object] = lambda _card: None
        self.ran: list[str] = []
        self.stop = False
        self.events: list[tuple[MessageID, str]] = []
        self.processor = Processor(services, report=self.report, stopped=lambda: self.stop, deck="d")
        line = self

        class Operation:
            @staticmethod
            def run(context: Context) -> StepResult:
                line.ran.append(context.node.id)
                line.during(context.node.id)
                return StepResult()

        monkeypatch.setattr("anvil.mainframe.processor_daemon.operation", lambda _op: Operation)

    def report(self, number: MessageID, data: dict[str, Any]) -> None:
        self.events.append((number, data["card"]))
        if number is MessageID.CARD_PUNCHED:
            self.after(data["card"])

    def states(self) -> dict[str, tuple[Status, int]]:
        return {card.id[2:]: (card.stat, card.attempts) for card in self.db.cards("d")}

    def run(self) -> None:
        self.processor.run(lambda: True)


def test_the_next_card_is_claimed_with_the_stamp(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(services, monkeypatch)
    seen = {}

    def after(card: str) -> None:
        seen[card] = line.states()

    line.after = after
    line.run()
    assert line.ran == ["r/a", "r/b", "r/c"]
    punched, claimed, pending = (Status.PUNCHED, 1), (Status.PROCESSING, 1), (Status.PENDING, 0)
    assert seen["r/a"] == {"a": punched, "b": claimed, "c": pending}
    assert seen["r/c"] == {"a": punched, "b": punched, "c": punched}
    kinds = [event.kind for event in services.db.events() if event.kind in {110, 112}]
    assert kinds == [110, 112] * 3


def test_a_claim_that_fails_takes_the_stamp_with_it(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(services, monkeypatch)
    real = services.db.pop_card
    calls = []

    def pop(*args: Any, **more: Any) -> Card | None:
        calls.append(args)
        found = real(*args, **more)
        if len(calls) == 2:
            raise DiskFull("no space left", where="cortex.db")
        return found

    monkeypatch.setattr(services.db, "pop_card", pop)
    with pytest.raises(DiskFull):
        line.run()
    assert line.ran == ["r/a"]
    assert MessageID.CARD_PUNCHED not in [number for number, _ in line.events]
    assert line.states() == {"a": (Status.PENDING, 1), "b": (Status.PENDING, 0), "c": (Status.PENDING, 0)}
    assert services.db.all_results() == []


@pytest.mark.parametrize("how", ["stopped", "drained"])
def test_nothing_is_claimed_ahead_when_nothing_is_to_be_begun(
    services: Services, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    line = Line(services, monkeypatch)
    line.during = lambda _card: end(line, how)
    line.run()
    assert line.ran == ["r/a"]
    assert line.states() == {"a": (Status.PUNCHED, 1), "b": (Status.PENDING, 0), "c": (Status.PENDING, 0)}


@pytest.mark.parametrize("how", ["stopped", "drained"])
def test_a_card_that_is_claimed_and_not_begun_is_given_back(
    services: Services, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    line = Line(services, monkeypatch)
    line.after = lambda _card: end(line, how)
    line.run()
    assert line.ran == ["r/a"]
    assert line.states() == {"a": (Status.PUNCHED, 1), "b": (Status.PENDING, 1), "c": (Status.PENDING, 0)}
    assert "nothing more was to be begun" in services.db.events(card="r/b")[-1].body


def test_a_card_that_was_taken_away_meanwhile_is_not_given_back(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(services, monkeypatch)

    def after(_card: str) -> None:
        (taken,) = services.db.reclaim(lambda token: token == services.worker.token)
        assert taken.id == "r/b"
        assert services.db.pop_card("another", deck="d")
        end(line, "stopped")

    line.after = after
    line.run()
    assert line.states()["b"] == (Status.PROCESSING, 2)


def test_one_card_alone_claims_no_other(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(services, monkeypatch)
    assert line.processor.run_one()
    assert line.states() == {"a": (Status.PUNCHED, 1), "b": (Status.PENDING, 0), "c": (Status.PENDING, 0)}


def end(line: Line, how: str) -> None:
    line.stop = how == "stopped"
    line.processor.draining = how == "drained"
