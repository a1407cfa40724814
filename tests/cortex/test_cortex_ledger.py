"""The ledger: its bytes, its seals, and that a broken seal is found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import threading
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.kinds import EventKind
from anvil.cortex.ledger_chain import event_hash, text_hash
from anvil.cortex.records import NewCard, StoredResult
from anvil.errors import IntegrityError
from anvil.microjson.codec import canonical
from anvil.model.card import Status

from .cortex_tools import FakeClock, state_by_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cortex with some history, closed."""
    path = tmp_path / "cortex.db"
    with CortexDB(path, clock=FakeClock()) as db:
        live(db)
    return path


def live(db: CortexDB) -> None:
    """Every kind of event once or more."""
    db.begin_forge("f", deck="d", recipe="iso")
    db.push_deck("d", [NewCard(id=name, op="run", pld=name) for name in "abc"])
    db.push_card("h", "sign", "", deck="d", hold=True, needs=("a",))
    card = db.pop_card("w")
    assert card is not None
    db.log_result(card, stat=Status.PUNCHED, ret="{}", key="k", result=StoredResult(key="k"))
    db.approve("d", "h")
    card = db.pop_card("w")
    assert card is not None
    db.log_result(card, stat=Status.JAMMED, ret="no")
    db.retry("d", "b")
    card = db.pop_card("w")
    assert card is not None
    db.release_card(card, "x")
    db.pop_card("w")
    db.reclaim(lambda _: True)
    db.forget_result("k")
    db.log_event(666, {"what": "tried", "n": 1})
    db.end_forge("f", verdict="done")
    db.clear_deck("d")


def raw(path: Path) -> apsw.Connection:
    """What a tamperer has who knows the functions that the triggers call."""
    connection = apsw.Connection(str(path))
    functions: list[tuple[str, Callable[..., Any], int]] = [
        ("anvil_event_hash", event_hash, 5),
        ("anvil_sha256", text_hash, 1),
        ("anvil_now_us", lambda: 0, 0),
    ]
    for name, call, arguments in functions:
        connection.create_scalar_function(name, call, arguments)
    return connection


def verify(path: Path, from_seq: int = 1, head: tuple[int, bytes] | None = None) -> int:
    with CortexDB(path) as db:
        return db.verify_ledger(from_seq, head=head)


# -- the bytes -------------------------------------------------------------------------------------------------------


def test_the_hash_is_as_documented() -> None:
    body = '{"ü":1}'
    message = (
        b"anvil ledger event 1\x00" + b"\x07" * 32 + struct.pack(">q", 3) + struct.pack(">q", 1_700_000_000_000_000)
    )
    message += struct.pack(">q", 200) + struct.pack(">q", 8) + body.encode()
    expected = hashlib.sha256(message).digest()
    assert event_hash(b"\x07" * 32, 3, 1_700_000_000_000_000, 200, body) == expected
    first = "904a7ce52468e61354e06ab330644b9c52f46b8cd3cfa2bba6c28aa26f48b354"
    assert event_hash(bytes(32), 1, 0, 100, "{}").hex() == first, "the format is forever"
    with pytest.raises(ValueError, match="32 bytes"):
        event_hash(b"short", 1, 0, 100, "{}")


def test_every_kind_is_written_and_known(path: Path) -> None:
    with CortexDB(path) as db:
        kinds = {event.kind for event in db.events()}
    assert kinds == {int(kind) for kind in EventKind} | {666}


def test_bodies_are_canonical(path: Path) -> None:
    with CortexDB(path) as db:
        for event in db.events():
            assert canonical(json.loads(event.body)).decode() == event.body


@pytest.fixture(scope="module")
def texts_db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CortexDB]:
    with CortexDB(tmp_path_factory.mktemp("texts") / "cortex.db") as db:
        yield db


class LeaveNothing(Exception):
    """Ends a batch without its changes."""


@settings(max_examples=100, deadline=None)
@given(deck=TEXT, card=TEXT.filter(bool), operation=TEXT.filter(bool), key=TEXT, need=TEXT.filter(bool))
def test_bodies_are_canonical_whatever_the_texts(
    texts_db: CortexDB, deck: str, card: str, operation: str, key: str, need: str
) -> None:
    with contextlib.suppress(LeaveNothing), texts_db.batch():
        if need != card:
            texts_db.push_card(need, operation, "", deck=deck)
        needs = (need,) if need != card else ()
        texts_db.push_card(card, operation, "", deck=deck, key=key, needs=needs)
        body = texts_db.events(after=texts_db.ledger_head()[0] - 1)[0].body
        assert canonical(json.loads(body)).decode() == body
        assert json.loads(body)["needs"] == list(needs)
        assert json.loads(body)["id"] == card
        raise LeaveNothing  # and there is no sync to wait for


# -- reading ---------------------------------------------------------------------------------------------------------


def test_events_are_filtered(path: Path) -> None:
    with CortexDB(path) as db:
        everything = db.events()
        assert [event.seq for event in everything] == list(range(1, len(everything) + 1))
        assert db.events(after=3) == everything[3:]
        assert db.events(limit=2) == everything[:2]
        assert [event.kind for event in db.events(card="h")] == [
            EventKind.CARD_PUSHED,
            EventKind.CARD_APPROVED,
            EventKind.CARD_CLEARED,
        ]
        assert db.events(card="none") == []
        assert len(db.events(deck="d")) > 10
        assert [event.body for event in db.events(kind=666)] == ['{"n":1,"what":"tried"}']
        assert db.ledger_head() == (len(everything), everything[-1].hash)
        assert state_by_ledger(everything) == {}


def test_a_new_ledger_is_empty_and_whole(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "cortex.db") as db:
        assert db.ledger_head() == (0, bytes(32))
        assert db.verify_ledger() == 0


def test_verify_counts(path: Path) -> None:
    with CortexDB(path) as db:
        last, digest = db.ledger_head()
    assert verify(path) == last
    assert verify(path, 5) == last - 4
    assert verify(path, last + 1) == 0
    assert verify(path, head=(last, digest)) == last
    with pytest.raises(IntegrityError, match=f"event {last + 1} is missing"):
        verify(path, last + 2)


def test_verifying_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    stop = threading.Event()

    def write() -> None:
        with CortexDB(path) as db:
            while not stop.is_set():
                db.log_event(200, {"n": 1})

    CortexDB(path).close()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = [verify(path) for _ in range(20)]
    finally:
        stop.set()
        writer.join()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


# -- the seals -------------------------------------------------------------------------------------------------------

INSERT = "INSERT INTO events (seq, at_us, kind, body, prev, hash) SELECT "
TAMPERING = [
    "UPDATE events SET body = '{}' WHERE seq = 3",
    "UPDATE events SET at_us = at_us",
    "DELETE FROM events WHERE seq = 3",
    "DELETE FROM events",
    "INSERT OR REPLACE INTO events SELECT seq, at_us, kind, '{}', prev, hash FROM events WHERE seq = 3",
    "REPLACE INTO events SELECT seq, at_us, kind, body, prev, hash FROM events ORDER BY seq DESC LIMIT 1",
    INSERT + "max(seq) + 2, 0, 200, '{}', hash, anvil_event_hash(hash, max(seq) + 2, 0, 200, '{}') FROM events",
    INSERT + "max(seq) + 1, 0, 200, '{}', prev, anvil_event_hash(prev, max(seq) + 1, 0, 200, '{}') FROM events",
    INSERT + "max(seq) + 1, 0, 200, '{}', hash, zeroblob(32) FROM events",
    INSERT + "0, 0, 200, '{}', zeroblob(32), anvil_event_hash(zeroblob(32), 0, 0, 200, '{}')",
    "INSERT INTO ledger (at_us, kind, body) VALUES (0, 200, 'not json')",
    "INSERT INTO ledger (at_us, kind, body) VALUES (0, 5, '{}')",
]


@pytest.mark.parametrize("statement", TAMPERING)
def test_the_database_refuses(path: Path, statement: str) -> None:
    connection = raw(path)
    with pytest.raises(apsw.ConstraintError):
        connection.execute(statement).fetchall()
    connection.close()
    verify(path)


def test_a_program_without_the_functions_cannot_change_a_card(path: Path) -> None:
    with CortexDB(path) as db:
        db.push_card("new", "run", "{}")
    connection = apsw.Connection(str(path))
    for statement in (
        "UPDATE card_stack SET stat = 1, attempts = 1, lease = 'w'",
        "DELETE FROM card_stack",
        "INSERT INTO ledger (at_us, kind, body) VALUES (0, 200, '{}')",
    ):
        with pytest.raises(apsw.SQLError, match="anvil_"):
            connection.execute(statement).fetchall()
    connection.close()


# -- broken seals are found (negative controls: with the seal off, the tampering succeeds) ---------------------------


def unseal(connection: apsw.Connection) -> Callable[[], None]:
    """Take the ledger's seals off; what is returned puts them back as they were."""
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'events' AND type = 'trigger'")
    found = triggers.fetchall()
    assert len(found) == 3
    for name, _ in found:
        connection.execute(f"DROP TRIGGER {name}")

    def seal() -> None:
        for _, text in found:
            assert isinstance(text, str)
            connection.execute(text)

    return seal


def rehash(connection: apsw.Connection) -> None:
    """Chain the whole ledger anew, as a thorough forger would."""
    prev = bytes(32)
    for seq, at, kind, body in connection.execute("SELECT seq, at_us, kind, body FROM events ORDER BY seq").fetchall():
        digest = event_hash(prev, int(str(seq)), int(str(at)), int(str(kind)), str(body))
        connection.execute("UPDATE events SET prev = ?, hash = ? WHERE seq = ?", (prev, digest, seq))
        prev = digest


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE events SET body = json_set(body, '$.id', 'z') WHERE seq = 3", "event 3 was changed"),
        ("UPDATE events SET at_us = at_us + 1 WHERE seq = 4", "event 4 was changed"),
        ("UPDATE events SET kind = 112 WHERE seq = 2", "event 2 was changed"),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 5", "event 5 was changed"),
        ("UPDATE events SET prev = zeroblob(32) WHERE seq = 5", "event 5 does not follow"),
        ("DELETE FROM events WHERE seq = 3", "event 3 is missing"),
        ("DELETE FROM events WHERE seq = 1", "event 1 is missing"),
        ("DELETE FROM events WHERE seq > 6", "event 7 is missing: there were"),
        ("DELETE FROM events", "event 1 is missing: there were"),
    ],
)
def test_tampering_with_the_seals_off_is_found(path: Path, statement: str, words: str) -> None:
    connection = raw(path)
    seal = unseal(connection)
    before = connection.execute("SELECT * FROM events").fetchall()
    connection.execute(statement)
    assert connection.execute("SELECT * FROM events").fetchall() != before, "the negative control must succeed"
    seal()
    connection.close()
    with pytest.raises(IntegrityError, match=words):
        verify(path)


def test_a_missing_seal_is_found(path: Path) -> None:
    connection = raw(path)
    connection.execute("DROP TRIGGER events_no_update")
    connection.close()
    with pytest.raises(IntegrityError, match="trigger events_no_update is missing"):
        verify(path)


def test_a_changed_seal_is_found(path: Path) -> None:
    connection = raw(path)
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute("CREATE TRIGGER events_no_update BEFORE UPDATE ON events WHEN 0 BEGIN SELECT 1; END")
    connection.close()
    with pytest.raises(IntegrityError, match="trigger events_no_update was changed"):
        verify(path)


def test_a_foreign_trigger_is_found(path: Path) -> None:
    connection = raw(path)
    connection.execute("CREATE TRIGGER evil AFTER UPDATE ON card_stack BEGIN DELETE FROM results; END")
    connection.close()
    with pytest.raises(IntegrityError, match="trigger evil is foreign"):
        verify(path)


def test_a_whole_chain_made_anew_needs_a_checkpoint(path: Path) -> None:
    with CortexDB(path) as db:
        head = db.ledger_head()
    connection = raw(path)
    seal = unseal(connection)
    connection.execute("UPDATE events SET body = json_set(body, '$.id', 'z') WHERE seq = 3")
    rehash(connection)
    seal()
    connection.close()
    assert verify(path) == head[0], "the chain alone cannot tell"
    with pytest.raises(IntegrityError, match=f"event {head[0]} is not the one of the checkpoint"):
        verify(path, head=head)


def test_a_tail_cut_with_its_count_needs_a_checkpoint(path: Path) -> None:
    with CortexDB(path) as db:
        head = db.ledger_head()
    connection = raw(path)
    seal = unseal(connection)
    connection.execute("DELETE FROM events WHERE seq > 4")
    connection.execute("UPDATE sqlite_sequence SET seq = 4 WHERE name = 'events'")
    seal()
    connection.close()
    assert verify(path) == 4
    with pytest.raises(IntegrityError, match=f"event 5 is missing: there were {head[0]}"):
        verify(path, head=head)
