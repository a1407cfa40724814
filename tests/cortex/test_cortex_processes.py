"""Several processes on one cortex: racing, killed, forked, and out of space."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.fairlock import FairLock
from anvil.cortex.faults import CortexBusy, ForkedConnection
from anvil.cortex.records import NewCard
from anvil.errors import DiskFull
from anvil.model.card import Status

from .cortex_tools import state_by_ledger

CLAIMER = str(Path(__file__).with_name("cortex_claimer.py"))


def start(path: Path, mode: str, count: float = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, CLAIMER, str(path), mode, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(child: subprocess.Popen[str]) -> list[str]:
    out, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    return out.split()


def check(db: CortexDB) -> None:
    """What must be so after anything: the file, the chain, the ledger's story, the counts of open needs."""
    assert db._db.value("PRAGMA integrity_check") == "ok"
    assert db._db.rows("PRAGMA foreign_key_check") == []
    db.verify_ledger()
    decks = [row[0] for row in db._db.rows("SELECT DISTINCT deck FROM card_stack")]
    cards = {(card.deck, card.id): (card.stat, card.attempts) for deck in decks for card in db.cards(deck)}
    assert state_by_ledger(db.events()) == cards
    wrong = db._db.rows(
        "SELECT id FROM card_stack AS card WHERE stat <> 2 AND waiting <> (SELECT count(*) FROM need"
        " JOIN card_stack AS needed ON needed.seq = need.needs WHERE need.card = card.seq AND needed.stat <> 2)"
    )
    assert wrong == []


# -- racing ----------------------------------------------------------------------------------------------------------


def test_no_card_is_claimed_twice(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    with CortexDB(path) as db:
        db.push_deck(
            "d",
            [
                NewCard(id=f"c{i}", op=("run", "boot")[i % 2], pld="{}", needs=(f"c{i // 3}",) if i > 9 else ())
                for i in range(240)
            ],
        )
        children = [start(path, "work") for _ in range(4)]
        done = [name for child in children for name in finish(child)]
        # A worker may find nothing claimable for a moment and leave: the rest is still there, and whole.
        with CortexDB(path) as other:
            while card := other.pop_card("last"):
                other.log_result(card, stat=Status.PUNCHED, ret="last")
                done.append(card.id)
        assert Counter(done) == Counter(f"c{i}" for i in range(240))
        assert all((card.stat, card.attempts) == (Status.PUNCHED, 1) for card in db.cards("d"))
        check(db)


def test_threads_share_one_object(tmp_path: Path) -> None:
    done: list[str] = []
    with CortexDB(tmp_path / "cortex.db") as db:
        db.push_deck("d", [NewCard(id=f"c{i}", op="run", pld="{}") for i in range(60)])

        def work() -> None:
            worker = secrets.token_hex()
            while card := db.pop_card(worker):
                db.peek_stack()
                db.log_result(card, stat=Status.PUNCHED, ret=worker)
                done.append(card.id)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(done) == Counter(f"c{i}" for i in range(60))
        check(db)


def hammer(path: Path, seconds: float) -> list[int]:
    CortexDB(path).close()
    hammers = [start(path, "hammer", seconds) for _ in range(8)]
    opener = start(path, "open", seconds)
    rounds = [int(finish(child)[0]) for child in hammers]
    assert int(finish(opener)[0]) > 0
    with CortexDB(path) as db:
        check(db)
    return rounds


def test_eight_processes_hammer_without_a_lock_error(tmp_path: Path) -> None:
    rounds = hammer(tmp_path / "cortex.db", 2)
    assert min(rounds) > 0


@pytest.mark.slow
def test_nobody_starves(tmp_path: Path) -> None:
    rounds = hammer(tmp_path / "cortex.db", 10)
    assert min(rounds) >= sum(rounds) / len(rounds) / 2, rounds


def test_the_lock_is_fair(tmp_path: Path) -> None:
    """Whoever lets the lock go and wants it again at once comes after the one that waits."""
    path = str(tmp_path / "lock")
    mine, theirs = FairLock(path), FairLock(path)
    got: list[float] = []

    def wait() -> None:
        theirs.acquire()
        got.append(time.monotonic())
        theirs.release()

    mine.acquire()
    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    assert not got
    mine.release()
    mine.acquire()
    again = time.monotonic()
    waiter.join(10)
    assert got
    assert got[0] <= again
    mine.release()
    mine.close()
    theirs.close()


def test_writers_take_the_fair_lock_and_readers_do_not(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "cortex.db") as db:
        lock = FairLock(str(tmp_path / "cortex.lock"))
        lock.acquire()
        begun = time.monotonic()
        timer = threading.Timer(0.3, lock.release)
        timer.start()
        db.peek_stack()
        assert time.monotonic() - begun < 0.25
        db.push_card("a", "run", "{}")
        assert time.monotonic() - begun >= 0.3
        timer.join()
        lock.close()


def test_a_reader_waits_for_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    with CortexDB(path) as writer, CortexDB(path) as reader, writer.batch():
        writer.push_card("a", "run", "{}")
        assert reader.peek_stack() == []
        assert writer.peek_stack() != []


def test_a_foreign_program_that_holds_the_database_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cortex.db"
    monkeypatch.setattr("anvil.cortex.connection.FOREIGN_WRITER_MS", 100)
    with CortexDB(path) as db:
        script = (
            "import sys, apsw\n"
            "db = apsw.Connection(sys.argv[1])\n"
            "db.execute('BEGIN IMMEDIATE')\n"
            "print('held', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as foreign:
            assert foreign.stdout is not None
            assert foreign.stdout.readline() == "held\n"
            with pytest.raises(CortexBusy, match="another program") as caught:
                db.push_card("a", "run", "{}")
            assert caught.value.exit_code == 3
            foreign.communicate("\n")
        db.push_card("a", "run", "{}")


# -- killed ----------------------------------------------------------------------------------------------------------


def test_a_killed_workers_card_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    with CortexDB(path) as db:
        db.push_card("a", "run", "{}")
        child = start(path, "hang")
        assert child.stdout is not None
        worker = child.stdout.readline().strip()
        assert db.pop_card("other") is None
        assert db.reclaim(lambda token: token != worker) == []
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert [card.id for card in db.reclaim(lambda token: token == worker)] == ["a"]
        card = db.pop_card("other")
        assert card is not None
        assert card.attempts == 2
        assert db.begin_key("key", card)
        check(db)


def test_killing_at_any_moment_leaves_cards_and_ledger_as_one(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    chance = random.Random(20_260_123)
    said: list[str] = []
    with CortexDB(path) as db:
        db.push_deck("d", [NewCard(id=f"c{i}", op="run", pld="{}") for i in range(3000)])
    for turn in range(12):
        children = [start(path, "work") for _ in range(2)]
        if turn % 2:
            wait_for_a_stamp(path)
        time.sleep(0.25 * (1 - turn % 2) + chance.random() * 0.2)
        for child in children:
            child.kill()
        said += [line for child in children for line in child.communicate()[0].splitlines()]
        with CortexDB(path) as db:
            check(db)
            db.reclaim(lambda _: True)
    with CortexDB(path) as db:
        done = {card.id: card for card in db.cards("d") if card.stat is Status.PUNCHED}
        kept = db.find_results([card.key for card in done.values()])
        check(db)
    assert said
    assert len(said) == len(set(said)), "an acknowledged card ran again"
    assert set(said) <= set(done), "an acknowledged card was lost"
    assert len(done) - len(set(said)) <= 24, "at most one card a kill is done but not yet said"
    assert {result.out for result in kept.values()} == set(done), "a punched card has its result"


def wait_for_a_stamp(path: Path) -> None:
    with CortexDB(path) as db:
        before = db.counts()[Status.PUNCHED]
        while db.counts()[Status.PUNCHED] == before < 3000:
            time.sleep(0.01)


def test_a_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    script = (
        "import sys, time\n"
        "from anvil.cortex.db_interface import CortexDB\n"
        "db = CortexDB(sys.argv[1])\n"
        "with db.batch():\n"
        "    db.push_card('half', 'run', '{}')\n"
        "    print('in', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with CortexDB(path) as db:
        child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        timer = threading.Timer(0.3, child.kill)
        timer.start()
        begun = time.monotonic()
        db.push_card("whole", "run", "{}")
        assert 0.1 < time.monotonic() - begun < 20
        timer.join()
        child.communicate()
        assert [card.id for card in db.cards("")] == ["whole"]
        check(db)


# -- forked ----------------------------------------------------------------------------------------------------------


def in_child(action: object) -> str:
    """Run ``action`` in a forked child; the name of what it raised, or its words."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert callable(action)
            words = str(action())
        except BaseException as error:  # noqa: BLE001
            words = type(error).__name__
        os.write(writer, words.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        words = answer.read()
    os.waitpid(child, 0)
    return words


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    with CortexDB(path) as db:
        db.push_card("a", "run", "{}")
        assert in_child(db.peek_stack) == ForkedConnection.__name__
        assert in_child(lambda: db.pop_card("w")) == ForkedConnection.__name__
        assert in_child(lambda: CortexDB(path)) == ForkedConnection.__name__
        assert in_child(lambda: CortexDB(tmp_path / "other.db").counts()[Status.PENDING]) == "0"
        assert in_child(db.close) == "None"
        assert in_child(lambda: del_and_collect(db)) == "done"
        db.push_card("b", "run", "{}")
        check(db)
    assert in_child(lambda: CortexDB(path).counts()[Status.PENDING]) == "2"


def del_and_collect(db: CortexDB) -> str:
    db._db._db.close()  # what the garbage collector would do to the child's copy
    return "done"


# -- out of space ----------------------------------------------------------------------------------------------------


def test_a_full_database_loses_nothing(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "cortex.db") as db:
        db._db.rows(f"PRAGMA max_page_count={db._db.value('PRAGMA page_count') + 40}")

        def push_one_by_one() -> None:
            for index in range(10_000):
                db.push_card(f"c{index}", "run", "x" * 1000)

        def push_at_once() -> None:
            with db.batch():
                for index in range(200):
                    db.push_card(f"d{index}", "run", "x" * 1000)

        with pytest.raises(DiskFull) as caught:
            push_one_by_one()
        assert caught.value.exit_code == 3
        pushed = len(db.cards(""))
        assert pushed > 10
        assert len(db.cards("")) == pushed
        check(db)
        with pytest.raises(DiskFull):
            push_at_once()
        assert len(db.cards("")) == pushed
        db._db.rows("PRAGMA max_page_count=1000000")
        db.push_card("more", "run", "{}")
        check(db)


def on_small_disk(tmp_path: Path, size: str) -> subprocess.CompletedProcess[str]:
    """Fill a cortex on a real file system of ``size``, private to the process (a new mount namespace)."""
    inner = 'mount -t tmpfs -o size="$1" tmpfs "$2" && exec "$3" "$4" "$2/cortex.db" full 0'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner, "sh", size, str(tmp_path)]
    return subprocess.run([*words, sys.executable, CLAIMER], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("size", ["400k", "1m", "1111k", "3m"])
def test_a_full_disk_loses_nothing(tmp_path: Path, size: str) -> None:
    answer = on_small_disk(tmp_path, size)
    if "unshare" in answer.stderr:
        pytest.skip(f"no user namespaces here: {answer.stderr.strip()}")
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) > 0
    assert "no space left" in answer.stderr


def test_a_disk_that_is_full_from_the_start_is_told(tmp_path: Path) -> None:
    answer = on_small_disk(tmp_path, "12k")
    if "unshare" in answer.stderr:
        pytest.skip(f"no user namespaces here: {answer.stderr.strip()}")
    assert answer.returncode == 1
    assert answer.stderr.strip().splitlines()[-1].startswith("anvil.errors.DiskFull: no space left")
