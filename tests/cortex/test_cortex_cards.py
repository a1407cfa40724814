"""The card stack one call at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.faults import LeaseLost
from anvil.cortex.records import NewCard, Stamp, StoredResult
from anvil.errors import AnvilError, IntegrityError, RecipeError, UsageError
from anvil.model.card import Card, Status

from .cortex_tools import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = "w1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def db(tmp_path: Path, clock: FakeClock) -> Iterator[CortexDB]:
    with CortexDB(tmp_path / "cortex.db", clock=clock) as cortex:
        yield cortex
        cortex.verify_ledger()


def pop(db: CortexDB, worker: str = WORKER, deck: str | None = None) -> Card:
    card = db.pop_card(worker, deck=deck)
    assert card is not None
    return card


def punch(db: CortexDB, card: Card) -> Card:
    return db.log_result(card, stat=Status.PUNCHED, ret="{}")


# -- pushing ---------------------------------------------------------------------------------------------------------


def test_push_and_look(db: CortexDB) -> None:
    seq = db.push_card("a", "run", '{"x":1}', ret="r", timestamp=5, deck="d", key="k")
    assert db.card("d", "a") == Card(
        seq=seq,
        id="a",
        op="run",
        pld='{"x":1}',
        stat=Status.PENDING,
        ret="r",
        timestamp=5,
        deck="d",
        key="k",
        needs=(),
        attempts=0,
        lease="",
        hold=False,
    )
    assert db.card("d", "b") is None
    assert db.card("e", "a") is None


def test_push_takes_any_text(db: CortexDB) -> None:
    text = 'ü\u2028"\\\x01\n𝄞' * 1000
    db.push_card(text[:100], text[:50], text, ret=text)
    card = db.card("", text[:100])
    assert card is not None
    assert (card.pld, card.ret, card.op) == (text, text, text[:50])


def test_push_deck_gives_seqs_in_order(db: CortexDB) -> None:
    first = db.push_card("other", "run", "{}")
    seqs = db.push_deck("d", [NewCard(id=name, op="run", pld="{}") for name in "cab"])
    assert seqs == {"c": first + 1, "a": first + 2, "b": first + 3}
    assert [card.id for card in db.cards("d")] == ["c", "a", "b"]
    assert db.push_deck("empty", []) == {}


def test_needs_may_come_in_any_order_and_from_before(db: CortexDB) -> None:
    db.push_card("old", "run", "{}", deck="d")
    db.push_deck(
        "d",
        [
            NewCard(id="top", op="run", pld="{}", needs=("left", "right", "left")),
            NewCard(id="left", op="run", pld="{}", needs=("old",)),
            NewCard(id="right", op="run", pld="{}"),
        ],
    )
    order = []
    while card := db.pop_card(WORKER):
        order.append(card.id)
        punch(db, card)
    assert order == ["old", "left", "right", "top"]
    top = db.card("d", "top")
    assert top is not None
    assert top.needs == ("left", "right")


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ([NewCard(id="a", op="run", pld=""), NewCard(id="a", op="run", pld="")], "one id"),
        ([NewCard(id="there", op="run", pld="")], "one id"),
        ([NewCard(id="a", op="run", pld="", needs=("b",))], "'b'"),
        ([NewCard(id="a", op="run", pld="", needs=("a",))], "a needs a"),
        (
            [
                NewCard(id="x", op="run", pld="", needs=("c",)),
                NewCard(id="a", op="run", pld="", needs=("b", "there")),
                NewCard(id="b", op="run", pld="", needs=("c",)),
                NewCard(id="c", op="run", pld="", needs=("a",)),
            ],
            "a needs b needs c needs a",
        ),
        ([NewCard(id="a", op="run", pld="", stat=Status.PROCESSING)], "processing"),
    ],
)
def test_a_bad_deck_is_refused_whole(db: CortexDB, cards: list[NewCard], words: str) -> None:
    db.push_card("there", "run", "{}", deck="d")
    before = db.ledger_head()
    with pytest.raises(RecipeError, match=words):
        db.push_deck("d", [NewCard(id="good", op="run", pld=""), *cards])
    assert [card.id for card in db.cards("d")] == ["there"]
    assert db.ledger_head() == before


def test_a_card_may_be_pushed_punched(db: CortexDB) -> None:
    db.push_deck(
        "d",
        [
            NewCard(id="b", op="run", pld="", needs=("a",)),
            NewCard(id="a", op="run", pld="", stat=Status.PUNCHED, ret="kept", key="k"),
        ],
    )
    assert pop(db).id == "b"


def test_seqs_are_never_used_twice(db: CortexDB) -> None:
    first = db.push_card("a", "run", "{}")
    db.clear_deck()
    assert db.push_card("a", "run", "{}") == first + 1


# -- claiming --------------------------------------------------------------------------------------------------------


def test_priority_then_seq(db: CortexDB) -> None:
    for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)]:
        db.push_card(name, "run" if name != "d" else "boot", "{}", priority=priority)
    assert [pop(db).id for _ in range(5)] == ["b", "d", "a", "c", "e"]
    assert db.pop_card(WORKER) is None


def test_filters(db: CortexDB) -> None:
    for deck in ("d", "e"):
        for op in ("fetch", "run", "boot"):
            db.push_card(f"{op}", op, "{}", deck=deck)
    assert db.pop_card(WORKER, only=()) is None
    assert db.pop_card(WORKER, only=("sign",)) is None
    assert db.pop_card(WORKER, deck="nowhere") is None
    found = [db.pop_card(WORKER, only=("run", "boot"), exclude=("run",), deck="e")]
    found += [db.pop_card(WORKER, exclude=("fetch",)), db.pop_card(WORKER, deck="e"), db.pop_card(WORKER, deck="e")]
    found += [db.pop_card(WORKER, deck="e")]
    assert [card and (card.deck, card.op) for card in found] == [
        ("e", "boot"),
        ("d", "run"),
        ("e", "fetch"),
        ("e", "run"),
        None,
    ]


def test_a_claim_is_marked(db: CortexDB) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    assert (card.stat, card.lease, card.attempts) == (Status.PROCESSING, WORKER, 1)
    assert db.card("", "a") == card
    with pytest.raises(UsageError):
        db.pop_card("")


def test_held_cards_wait_for_a_person(db: CortexDB) -> None:
    db.push_card("a", "sign", "{}", hold=True, deck="d")
    assert db.pop_card(WORKER) is None
    db.approve("d", "a", reason="seen")
    assert pop(db).id == "a"
    with pytest.raises(UsageError):
        db.approve("d", "a")


# -- ending a claim --------------------------------------------------------------------------------------------------


def test_stamps(db: CortexDB) -> None:
    db.push_deck("d", [NewCard(id="a", op="run", pld=""), NewCard(id="b", op="run", pld="", needs=("a",))])
    done = db.log_result(pop(db), stat=Status.JAMMED, ret="broken")
    assert (done.stat, done.ret, done.lease) == (Status.JAMMED, "broken", "")
    assert db.pop_card(WORKER) is None
    db.retry("d", "a")
    with pytest.raises(UsageError):
        db.retry("d", "a")
    again = pop(db)
    assert (again.id, again.attempts, again.ret) == ("a", 2, "")
    punch(db, again)
    assert pop(db).id == "b"


def test_a_stamp_is_one_of_two(db: CortexDB) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    with pytest.raises(AnvilError, match="punched or jammed"):
        db.log_result(card, stat=Status.PENDING, ret="")


def test_the_same_stamp_twice_is_one(db: CortexDB) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    first = db.log_result(card, stat=Status.PUNCHED, ret="r", key="k", result=StoredResult(key="k"))
    head = db.ledger_head()
    assert db.log_result(card, stat=Status.PUNCHED, ret="r", key="k", result=StoredResult(key="k")) == first
    assert db.ledger_head() == head
    with pytest.raises(LeaseLost):
        db.log_result(card, stat=Status.PUNCHED, ret="another")
    with pytest.raises(LeaseLost):
        db.log_result(card, stat=Status.JAMMED, ret="r")


def test_release_is_no_jam(db: CortexDB) -> None:
    db.push_card("a", "run", "{}")
    db.release_card(pop(db), "stopped by the person")
    card = pop(db)
    assert (card.id, card.attempts) == ("a", 2)
    assert '"reason":"stopped by the person"' in db.events(card="a")[-2].body


# -- several at once -------------------------------------------------------------------------------------------------


def test_several_are_claimed_as_they_would_be_one_by_one(db: CortexDB) -> None:
    for deck in ("one", "several"):
        db.push_deck(
            deck,
            [
                NewCard(id="held", op="run", pld="", hold=True, priority=9),
                NewCard(id="low", op="run", pld=""),
                NewCard(id="boot", op="boot", pld="", priority=1),
                NewCard(id="fetch", op="fetch", pld="", priority=2),
                NewCard(id="high", op="run", pld="", priority=2),
                NewCard(id="waits", op="run", pld="", priority=9, needs=("low",)),
                NewCard(id="last", op="run", pld=""),
            ],
        )
    singly = [pop(db, deck="one").id for _ in range(4)]
    cards = db.pop_cards(WORKER, 4, deck="several", lease_seconds=9)
    assert [card.id for card in cards] == singly == ["fetch", "high", "boot", "low"]
    assert [db.card("several", card.id) for card in cards] == cards
    assert {(card.stat, card.lease, card.attempts) for card in cards} == {(Status.PROCESSING, WORKER, 1)}
    assert [card.id for card in db.pop_cards(WORKER, 4, deck="several")] == ["last"]
    assert db.pop_cards(WORKER, 4, deck="several") == []
    assert db.pop_cards(WORKER, 0) == []
    with pytest.raises(UsageError):
        db.pop_cards("", 4)


def test_several_stamps_are_one_commit_and_each_is_fenced(db: CortexDB) -> None:
    db.push_deck("d", [NewCard(id=name, op="run", pld="") for name in "abcd"])
    cards = db.pop_cards(WORKER, 4)
    released, stamped = cards[1], cards[2]
    db.release_card(released, "taken away")
    db.log_result(stamped, stat=Status.JAMMED, ret="r")
    stamps = [
        Stamp(card=cards[0], stat=Status.PUNCHED, ret="r", key="k", result=StoredResult(key="k", out="o")),
        Stamp(card=released, stat=Status.PUNCHED, ret="r", key="l", result=StoredResult(key="l")),
        Stamp(card=stamped, stat=Status.JAMMED, ret="r"),
        Stamp(card=cards[3], stat=Status.JAMMED, ret="broken"),
    ]
    assert db.log_results(stamps) == [released]
    assert [card.stat for card in db.cards("d")] == [Status.PUNCHED, Status.PENDING, Status.JAMMED, Status.JAMMED]
    assert {key: result.worker for key, result in db.find_results(["k", "l"]).items()} == {"k": WORKER}
    head = db.ledger_head()
    assert db.log_results(stamps) == [released], "the same stamps again"
    assert db.ledger_head() == head


def test_several_stamps_are_made_or_none(db: CortexDB) -> None:
    db.push_deck("d", [NewCard(id=name, op="run", pld="") for name in "ab"])
    one, other = db.pop_cards(WORKER, 2)
    with pytest.raises(AnvilError, match="punched or jammed"):
        db.log_results(
            Stamp(card=card, stat=stat, ret="") for card, stat in ((one, Status.PUNCHED), (other, Status.PENDING))
        )
    assert db.cards("d") == [one, other]


def lose_by_release(db: CortexDB, card: Card) -> None:
    db.release_card(card, "x")


def lose_by_other_claim(db: CortexDB, card: Card) -> None:
    db.release_card(card, "x")
    assert pop(db, "w2").id == card.id


def lose_by_own_new_claim(db: CortexDB, card: Card) -> None:
    db.release_card(card, "x")
    assert pop(db).id == card.id


def lose_by_clearing(db: CortexDB, card: Card) -> None:
    assert db.reclaim(lambda worker: worker == card.lease)
    db.clear_deck()


@pytest.mark.parametrize("lose", [lose_by_release, lose_by_other_claim, lose_by_own_new_claim, lose_by_clearing])
def test_a_lost_lease_changes_nothing(db: CortexDB, lose: object) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    assert callable(lose)
    lose(db, card)
    state, head = db.card("", "a"), db.ledger_head()
    for attempt in (
        lambda: db.heartbeat(card),
        lambda: db.release_card(card, "again"),
        lambda: db.begin_key("k", card),
        lambda: db.log_result(card, stat=Status.PUNCHED, ret="{}", key="k", result=StoredResult(key="k")),
        lambda: db.log_result(card, stat=Status.JAMMED, ret="{}"),
    ):
        with pytest.raises(LeaseLost, match="no longer ours"):
            attempt()
    assert (db.card("", "a"), db.ledger_head(), db.find_result("k")) == (state, head, None)


def test_a_forged_token_is_no_lease(db: CortexDB) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    with pytest.raises(LeaseLost):
        db.heartbeat(replace(card, lease="w2"))
    with pytest.raises(LeaseLost):
        db.heartbeat(replace(card, attempts=2))


# -- leases and time -------------------------------------------------------------------------------------------------


def test_an_expired_lease_is_reclaimed(db: CortexDB, clock: FakeClock) -> None:
    db.push_card("a", "run", "{}")
    card = db.pop_card(WORKER, lease_seconds=10)
    assert card is not None
    clock.pass_seconds(9)
    assert db.reclaim() == []
    db.heartbeat(card, 10)
    clock.pass_seconds(9)
    assert db.reclaim() == []
    clock.pass_seconds(2)
    assert [(each.id, each.stat, each.lease) for each in db.reclaim()] == [("a", Status.PENDING, "")]
    assert "the lease expired" in db.events()[-1].body
    assert db.reclaim() == []
    with pytest.raises(LeaseLost):
        punch(db, card)


def test_an_expired_lease_that_nobody_took_may_still_be_stamped(db: CortexDB, clock: FakeClock) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    clock.pass_seconds(1_000)
    assert punch(db, card).stat is Status.PUNCHED


def test_setting_the_clock_ends_no_lease(db: CortexDB, clock: FakeClock) -> None:
    db.push_card("a", "run", "{}")
    card = pop(db)
    for jump in (10**15, -(10**15)):
        clock.utc += jump
        assert db.reclaim() == []
    punch(db, card)


def test_a_restart_of_the_machine_ends_every_lease(db: CortexDB, clock: FakeClock) -> None:
    db.push_card("a", "run", "{}")
    pop(db)
    clock.id, clock.boot = "boot-2", 1
    assert [card.id for card in db.reclaim()] == ["a"]
    assert "restarted" in db.events()[-1].body


def test_a_dead_worker_is_known_by_its_token(db: CortexDB) -> None:
    for name in "abc":
        db.push_card(name, "run", "{}")
    mine, theirs, theirs_too = pop(db, "live"), pop(db, "dead"), pop(db, "dead")
    asked: list[str] = []

    def dead(worker: str) -> bool:
        asked.append(worker)
        return worker == "dead"

    assert [card.id for card in db.reclaim(dead)] == [theirs.id, theirs_too.id]
    assert sorted(asked) == ["dead", "live"]
    db.heartbeat(mine)


# -- keys and results ------------------------------------------------------------------------------------------------


def test_one_card_runs_a_key(db: CortexDB) -> None:
    for deck in ("d", "e"):
        db.push_card("a", "run", "{}", deck=deck)
    one, two = pop(db), pop(db, "w2")
    assert db.begin_key("k", one)
    assert db.begin_key("k", one)
    assert not db.begin_key("k", two)
    db.log_result(one, stat=Status.PUNCHED, ret="r", key="k", result=StoredResult(key="k", out="o", duration_ms=7))
    assert not db.begin_key("k", two), "its result is there: it must not run again"
    kept = db.find_result("k")
    assert kept is not None
    assert (kept.out, kept.ret, kept.card, kept.op, kept.worker, kept.duration_ms) == ("o", "r", "a", "run", WORKER, 7)
    assert db.forget_result("k")
    assert not db.forget_result("k")
    assert db.begin_key("k", two)


def test_waiting_for_a_key_writes_nothing(db: CortexDB) -> None:
    for deck in ("d", "e"):
        db.push_card("a", "run", "{}", deck=deck)
    one, two = pop(db), pop(db, "w2")
    assert db.begin_key("k", one)
    assert not db.begin_key("k", two)
    before = Path(f"{db.path}-wal").read_bytes()
    for _ in range(3):
        assert not db.begin_key("k", two)
        assert db.pop_card("w3") is None
    assert Path(f"{db.path}-wal").read_bytes() == before


@pytest.mark.parametrize("how", ["jam", "release", "reclaim", "other key"])
def test_whatever_ends_the_lease_ends_the_key(db: CortexDB, how: str) -> None:
    for deck in ("d", "e"):
        db.push_card("a", "run", "{}", deck=deck)
    one, two = pop(db), pop(db, "w2")
    assert db.begin_key("k", one)
    if how == "jam":
        db.log_result(one, stat=Status.JAMMED, ret="", result=StoredResult(key="k"))
    elif how == "release":
        db.release_card(one, "x")
    elif how == "reclaim":
        db.reclaim(lambda worker: worker == WORKER)
    else:
        assert db.begin_key("other", one)
    assert db.find_result("k") is None
    assert db.begin_key("k", two)


def test_the_first_result_stays(db: CortexDB) -> None:
    for name in "ab":
        db.push_card(name, "run", "{}")
        db.log_result(pop(db), stat=Status.PUNCHED, ret=name, key="k", result=StoredResult(key="k", out=name))
    kept = db.find_result("k")
    assert kept is not None
    assert kept.out == "a"
    assert db.find_results(["k", "none"]) == {"k": kept}
    assert db.find_results([]) == {}
    assert db.all_results() == [kept]


# -- looking and clearing --------------------------------------------------------------------------------------------


def test_counts_and_peek(db: CortexDB) -> None:
    db.push_deck("d", [NewCard(id=f"c{index}", op="run", pld="") for index in range(14)])
    db.push_card("last", "run", "", deck="d", needs=("c0",))
    db.push_card("h", "x", "", deck="d", hold=True)
    db.push_card("other", "run", "{}", priority=-1)
    punch(db, pop(db))
    db.log_result(pop(db), stat=Status.JAMMED, ret="")
    pop(db)
    assert db.counts("d") == {Status.PENDING: 13, Status.PROCESSING: 1, Status.PUNCHED: 1, Status.JAMMED: 1}
    assert db.counts()[Status.PENDING] == 14
    assert db.counts("none") == dict.fromkeys(Status, 0)
    assert [card.id for card in db.peek_stack()] == ["other", "h", "last", *(f"c{i}" for i in range(13, 4, -1))]
    assert [card.id for card in db.peek_stack(2, "d")] == ["h", "last"]


def test_clearing_spares_live_leases(db: CortexDB, clock: FakeClock) -> None:
    db.push_deck(
        "d", [NewCard(id="a", op="run", pld=""), NewCard(id="b", op="run", pld=""), NewCard(id="c", op="run", pld="")]
    )
    db.push_card("d", "run", "{}", deck="d", needs=("a", "c"))
    db.push_card("x", "run", "{}", deck="e")
    punch(db, pop(db))
    live = pop(db)
    assert db.clear_deck("d") == 3
    assert [card.id for card in db.cards("d")] == ["b"]
    assert db.card("e", "x") is not None
    punch(db, live)
    db.pop_card(WORKER, lease_seconds=5)
    clock.pass_seconds(6)
    assert db.clear_deck() == 2
    assert db.counts()[Status.PENDING] == 0
    assert db._db.value("SELECT count(*) FROM need") == 0
    assert len(db.events(card="a")) == 4


# -- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_one_change(db: CortexDB) -> None:
    db.push_card("a", "run", "{}")
    db.push_card("b", "run", "{}")
    first = pop(db)
    with db.batch():
        punch(db, first)
        second = pop(db)
    assert second.id == "b"
    head = db.ledger_head()

    def fail_halfway() -> None:
        with db.batch():
            punch(db, second)
            db.set_fact("f", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert db.ledger_head() == head
    assert db.fact("f") is None
    assert db.card("", "b") == second


def test_what_fails_inside_a_batch_fails_alone(db: CortexDB) -> None:
    with db.batch():
        db.push_card("a", "run", "{}")
        with pytest.raises(RecipeError):
            db.push_deck("", [NewCard(id="b", op="run", pld=""), NewCard(id="a", op="run", pld="")])
        with pytest.raises(IntegrityError):
            db.begin_forge("", deck="", recipe="")
        db.push_card("c", "run", "{}")
    assert [card.id for card in db.cards("")] == ["a", "c"]


# -- memory ----------------------------------------------------------------------------------------------------------


def test_forges(db: CortexDB) -> None:
    db.begin_forge("f1", deck="d", recipe="iso", machine='{"cores":2}')
    db.begin_forge("f2", deck="d", recipe="iso")
    db.end_forge("f1", verdict="done")
    with pytest.raises(UsageError):
        db.end_forge("f1", verdict="done")
    two, one = db.forges()
    assert (two.id, two.ended, two.verdict) == ("f2", 0, "")
    assert (one.id, one.verdict, one.machine) == ("f1", "done", '{"cores":2}')
    assert one.started < one.ended
    assert db.forges(1) == [two]


def test_decks_and_facts(db: CortexDB) -> None:
    assert db.get_deck("d") is None
    db.put_deck("d", b"\x00\xff")
    db.put_deck("d", b"\x00\xff")
    assert db.get_deck("d") == b"\x00\xff"
    assert db.fact("kvm") is None
    db.set_fact("kvm", "no")
    db.set_fact("kvm", "")
    assert db.fact("kvm") == ""


# -- the database guards itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE card_stack SET stat = 2 WHERE id = 'a'",
        "UPDATE card_stack SET stat = 9 WHERE id = 'a'",
        "UPDATE card_stack SET stat = 3 WHERE id = 'a'",
        "UPDATE card_stack SET stat = 1, attempts = 1 WHERE id = 'a'",
        "UPDATE card_stack SET stat = 1, attempts = 1, lease = 'w' WHERE id = 'b'",
        "UPDATE card_stack SET stat = 1, attempts = 1, lease = 'w' WHERE id = 'h'",
        "UPDATE card_stack SET stat = 1, lease = 'w' WHERE id = 'a'",
        "UPDATE card_stack SET attempts = 0 WHERE id = 'p'",
        "UPDATE card_stack SET stat = 0, lease = '' WHERE id = 'p'",
        "UPDATE card_stack SET pld = 'other' WHERE id = 'a'",
        "UPDATE card_stack SET needs = '[]' WHERE id = 'b'",
        "UPDATE card_stack SET waiting = -1 WHERE id = 'a'",
        "INSERT INTO need (card, needs) VALUES (1, 1)",
        "INSERT INTO need (card, needs) VALUES (1, 999)",
        "INSERT INTO running (key, card, started) VALUES ('k', 1, 0)",
        "UPDATE results SET out = 'forged'",
        "INSERT OR REPLACE INTO results SELECT key, 'forged', out, '', '', '', '', '', '', -1, '', 0 FROM results",
        "INSERT INTO card_stack (deck, id, op, pld, timestamp) VALUES ('d', 'a', 'run', '', 0)",
    ],
)
def test_invariants_hold_against_raw_statements(db: CortexDB, statement: str) -> None:
    db.push_deck(
        "d",
        [
            NewCard(id="a", op="run", pld=""),
            NewCard(id="b", op="run", pld="", needs=("a",)),
            NewCard(id="h", op="run", pld="", hold=True),
            NewCard(id="p", op="run", pld="", priority=1),
        ],
    )
    punched = pop(db)
    db.log_result(punched, stat=Status.PUNCHED, ret="", key="k", result=StoredResult(key="k"))
    head = db.ledger_head()
    with pytest.raises(IntegrityError), db._db.transaction():
        db._db.change(statement)
    assert db.ledger_head() == head


def test_a_card_knows_how_it_stands_to_the_longest_way(db: CortexDB) -> None:
    ways = {"long": 100, "short": 40, "kept": 900}
    db.push_deck("deck", [NewCard(id=name, op="run", pld="{}", priority=way) for name, way in ways.items()])
    db.push_card("other", "run", "{}", deck="other")
    kept, long, short = (pop(db, deck="deck") for _ in ways)
    punch(db, kept)
    assert (db.standing(long), db.standing(short)) == (1.0, 0.4)
    punch(db, long)
    assert db.standing(short) == 1.0
