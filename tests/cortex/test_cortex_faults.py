"""Samples of the power, fault and hammer campaigns; little memory, clocks that jump, and a process that is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import Stamp
from anvil.errors import EnvironmentLack
from anvil.model.card import Status
from tests.campaigns import hammer, power_cortex, power_faults

from .cortex_tools import FakeClock

SEED = 20_260_105
YEAR_US = 365 * 24 * 3600 * 10**6


def test_a_sample_of_power_cuts_loses_nothing() -> None:
    found = power_cortex.run(60, SEED)
    sys.stdout.write(f"{found}\n")
    assert found["wrong"] == []


def stamp_and_claim_several(life: power_cortex.Life, db: CortexDB) -> None:
    """All that is claimed is punched, and three more are claimed, in one commit."""
    cards = list(life.claimed)
    with db.batch():
        lost = db.log_results(Stamp(card=card, stat=Status.PUNCHED, ret=f"ret of {card.id}") for card in cards)
        life.claimed[:] = following = db.pop_cards("worker", 3, deck=power_cortex.DECK)
    assert lost == []
    life.told.punched |= {card.id: (f"ret of {card.id}", card.attempts) for card in cards}
    life.stamped += cards
    if cards or following:
        life.acknowledged(db)


@pytest.mark.parametrize("without", ["", "all syncs"])
def test_power_cuts_in_work_on_several_at_once(monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    monkeypatch.setattr(power_cortex, "OPERATE", (power_cortex.push, stamp_and_claim_several, power_cortex.claim))
    found = power_cortex.run(60, SEED, without=without)
    sys.stdout.write(f"{found}\n")
    assert bool(found["wrong"]) is bool(without), found["wrong"][:3]


@pytest.mark.parametrize("without", ["all syncs", "the sync of a commit", "the sync of the folder"])
def test_power_cuts_are_seen_when_a_sync_is_left_out(without: str) -> None:
    assert power_cortex.run(40, SEED, without=without)["wrong"]


@pytest.mark.slow
def test_an_answer_about_what_another_has_not_synced_is_seen() -> None:
    assert power_cortex.run(600, 1, without="the sync of what was seen")["wrong"]


def test_a_sample_of_failing_calls_loses_nothing() -> None:
    found = power_faults.run(f"{SEED}", every=29)
    sys.stdout.write(f"{found}\n")
    assert found["wrong"] == []
    assert found["lives"] > 10


@pytest.mark.slow
def test_every_third_call_of_a_life_may_fail() -> None:
    assert power_faults.run(f"{SEED}.1", every=3)["wrong"] == []


def test_believing_in_a_sync_after_a_failed_one_is_seen() -> None:
    assert power_faults.run("3", name="xSync", without="the mending")["wrong"]


def test_a_short_hammering(tmp_path: Path) -> None:
    found = hammer.run(tmp_path, 3, processes=4)
    sys.stdout.write(f"{found}\n")
    assert found["errors"] == []
    assert found["whole"]
    assert min(found["rounds"]) > 0


# -- memory ----------------------------------------------------------------------------------------------------------


def test_without_memory_nothing_is_half_done(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("cortex_memory.py"))
    answer = subprocess.run(
        [sys.executable, script, str(tmp_path / "cortex.db")], capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
    said = answer.stdout.splitlines()
    assert said[-1] == "done"
    assert said[0].startswith("no memory left for the database; free some memory")
    assert set(said) <= {
        "done",
        said[0],
        "the cortex was closed, for a change could not be undone; free some memory, then run the command again",
    }


def test_a_transaction_that_cannot_even_be_rolled_back_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    with CortexDB(path) as db, CortexDB(path) as other:
        real = db._db._db

        class Starved:
            """The connection, without the memory for a ROLLBACK."""

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

            def execute(self, statement: str, *rest: object) -> object:
                if statement == "ROLLBACK":
                    raise apsw.NoMemError("simulated")
                return real.execute(statement, *rest)  # type: ignore[arg-type]

        def fail() -> None:
            with db.batch():
                db.push_card("a", "run", "{}")
                raise apsw.NoMemError("simulated")

        db._db._db = Starved()  # type: ignore[assignment]
        with pytest.raises(EnvironmentLack, match="no memory"):
            fail()
        other.push_card("b", "run", "{}")
        with pytest.raises(EnvironmentLack, match="closed, for a change could not be undone"):
            db.push_card("c", "run", "{}")
    with CortexDB(path) as again:
        assert [card.id for card in again.cards("")] == ["b"]


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_by_years_confuses_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    with CortexDB(tmp_path / "cortex.db", clock=clock) as db:
        for number, years in enumerate((0, 30, -60, 29, 1)):
            clock.utc += years * YEAR_US
            db.push_card(f"c{number}", "run", "{}")
            card = db.pop_card("w", lease_seconds=60)
            assert card is not None
            clock.utc -= years * 2 * YEAR_US
            assert db.reclaim() == []
            db.heartbeat(card)
            db.log_result(card, stat=Status.PUNCHED, ret="")
            clock.utc += years * 2 * YEAR_US
        times = [event.at_us for event in db.events()]
        assert times != sorted(times), "the ledger says what the clock said"
        assert [event.seq for event in db.events()] == list(range(1, len(times) + 1)), "its order is its own"
        assert db.verify_ledger() == len(times)


def test_a_machine_that_slept_ends_leases_by_time_and_not_by_who_lives(tmp_path: Path) -> None:
    clock = FakeClock()
    with CortexDB(tmp_path / "cortex.db", clock=clock) as db:
        db.push_card("a", "run", "{}")
        card = db.pop_card("w", lease_seconds=60)
        assert card is not None
        clock.pass_seconds(8 * 3600)  # CLOCK_BOOTTIME goes on in suspend
        assert db.reclaim(lambda _: False) == [], "its worker's lock says that it lives"
        assert [each.id for each in db.reclaim()] == ["a"], "who knows nothing of workers goes by the lease"


# -- stopped ---------------------------------------------------------------------------------------------------------


def test_a_process_stopped_inside_its_transaction_holds_up_writers_only_until_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    script = (
        "import os, signal, sys\n"
        "from anvil.cortex.db_interface import CortexDB\n"
        "db = CortexDB(sys.argv[1])\n"
        "with db.batch():\n"
        "    db.push_card('half', 'run', '{}')\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    with CortexDB(path) as db, CortexDB(path) as reader:
        db.push_card("a", "run", "{}")
        child = subprocess.Popen([sys.executable, "-c", script, str(path)])
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        done = threading.Event()

        def write() -> None:
            db.push_card("b", "run", "{}")
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert [card.id for card in reader.cards("")] == ["a"], "readers wait for nobody"
        assert not done.wait(0.3)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        writer.join(60)
        assert done.is_set()
        assert [card.id for card in reader.cards("")] == ["a", "b"]
