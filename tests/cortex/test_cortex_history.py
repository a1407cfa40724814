"""What the cortex remembers of forges that are over: their cards, what keys are made of, and how long cards took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, Noted, StoredResult
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def db(tmp_path: Path) -> Iterator[CortexDB]:
    with CortexDB(tmp_path / "cortex.db") as opened:
        yield opened


def ret(milliseconds: int) -> str:
    return f'{{"@ID":202,"data":{{"ms":{milliseconds}}}}}'


def forge(db: CortexDB, deck: str, *, milliseconds: int = 1200, key: str = "k1") -> None:
    """A forge of two cards: ``a`` runs, ``b`` was kept."""
    db.begin_forge(deck, deck=deck, recipe="r")
    kept = NewCard(id="b", op="run", pld="{}", stat=Status.PUNCHED, ret=ret(7), key="kept")
    db.push_deck(deck, [NewCard(id="a", op="run", pld="{}"), kept])
    card = db.pop_card("worker", deck=deck)
    assert card is not None
    stored = StoredResult(key=key, duration_ms=milliseconds)
    db.log_result(card, stat=Status.PUNCHED, ret=ret(milliseconds), key=key, result=stored)


def test_a_cleared_deck_is_remembered_as_it_was(db: CortexDB) -> None:
    forge(db, "one")
    before = db.past_cards("one")
    assert db.clear_deck("one") == 2
    after = db.past_cards("one")
    assert [(card.id, card.key, card.ran, card.stat) for card in after] == [
        ("a", "k1", True, Status.PUNCHED),
        ("b", "kept", False, Status.PUNCHED),
    ]
    assert [(c.id, c.key, c.ran, c.ret, c.at) for c in after] == [(c.id, c.key, c.ran, c.ret, c.at) for c in before]
    assert [card.milliseconds for card in after] == [1200, 7]


def test_whether_a_card_ran_is_told_from_a_result_that_was_there(db: CortexDB) -> None:
    forge(db, "one")
    db.clear_deck("one")
    forge(db, "two")  # stamped with the same key: the first result stays, so this one did not make it
    db.clear_deck("two")
    assert [card.ran for card in db.past_cards("two")] == [False, False]
    assert [(card.deck, card.ran) for card in db.past_of_card("a")] == [("two", False), ("one", True)]


def test_cards_of_no_forge_are_not_remembered(db: CortexDB) -> None:
    db.push_card("a", "run", "{}", deck="none")
    db.clear_deck("none")
    assert db.past_cards("none") == []


def test_a_jam_and_a_card_that_never_ran_are_remembered_as_that(db: CortexDB) -> None:
    db.begin_forge("one", deck="one", recipe="r")
    db.push_deck("one", [NewCard(id="a", op="run", pld="{}"), NewCard(id="b", op="run", pld="{}", needs=("a",))])
    card = db.pop_card("worker", deck="one")
    assert card is not None
    db.log_result(card, stat=Status.JAMMED, ret="not JSON at all", key="k")
    db.clear_deck("one")
    assert [(row.id, row.stat, row.ran) for row in db.past_cards("one")] == [
        ("a", Status.JAMMED, False),
        ("b", Status.PENDING, False),
    ]
    assert [row.id for row in db.past_of_card("a")] == ["a"]
    assert db.past_of_card("b") == []


def test_durations_outlive_the_results(db: CortexDB) -> None:
    forge(db, "one", milliseconds=1000, key="k1")
    db.clear_deck("one")
    db.forget_result("k1")
    forge(db, "two", milliseconds=3000, key="k2")
    assert [(run.key, run.milliseconds) for run in db.runs(["a", "b"])["a"]] == [("k2", 3000), ("k1", 1000)]
    assert "b" not in db.runs(["a", "b"])
    db.clear_deck("two")  # now both places know of the second: it counts once
    assert len(db.runs(["a"])["a"]) == 2


def test_when_a_result_was_forgotten_is_known(db: CortexDB) -> None:
    forge(db, "one")
    assert db.forgotten("k1") == 0
    db.forget_result("k1")
    assert db.forgotten("k1") > 0


def test_an_identity_is_kept_by_key_and_card_with_its_last_origins(db: CortexDB) -> None:
    for card, origins in (("a", "{}"), ("b", "{}"), ("a", '{"base":"x"}')):
        db.note_identity(Noted(key="k", card=card, body="{}", origins=origins))
    assert [(each.card, each.origins) for each in db.identities("k", "a")] == [("a", '{"base":"x"}'), ("b", "{}")]
    assert [each.card for each in db.identities("k", "b")] == ["b", "a"]
    assert db.identities("other", "a") == []


def test_the_first_word_on_a_digest_stays(db: CortexDB) -> None:
    db.note_pins({"d": {"version": "1"}})
    db.note_pins({"d": {"version": "2"}, "e": {}})
    assert db.pin("d") == {"version": "1"}
    assert db.pin("e") == {}
    assert db.pin("f") is None


def test_history_is_part_of_the_schema_that_is_verified(db: CortexDB) -> None:
    forge(db, "one")
    db.clear_deck("one")
    assert db.verify_ledger() > 0
    found = db.forge_of("one")
    assert found is not None
    assert (found.id, found.recipe) == ("one", "r")
    assert db.forge_of("two") is None
