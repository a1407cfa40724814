"""Who is alive is told by locks: never by clocks, names or luck."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

from anvil.cortex.db_interface import CortexDB
from anvil.mainframe import liveness
from anvil.model.card import Status

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_lives_as_long_as_it_holds_its_lock(tmp_path: Path) -> None:
    worker = liveness.Worker(tmp_path)
    assert not liveness.is_dead(tmp_path, worker.token)
    liveness.sweep(tmp_path)
    assert not liveness.is_dead(tmp_path, worker.token)
    worker.close()
    assert liveness.is_dead(tmp_path, worker.token)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_dead_at_once_and_swept(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        worker = liveness.Worker(tmp_path)
        os.write(writer, worker.token.encode())
        signal.pause()
    token = os.read(reader, 64).decode()
    os.close(reader)
    os.close(writer)
    assert not liveness.is_dead(tmp_path, token)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert liveness.is_dead(tmp_path, token)
    liveness.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_just_being_made_is_not_swept(tmp_path: Path) -> None:
    new = tmp_path / "new-0123"
    guard = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(guard, fcntl.LOCK_SH)  # as its maker holds it until the file is locked
    new.touch()
    liveness.sweep(tmp_path)
    assert new.exists()
    os.close(guard)  # killed before that: gone with the next sweep
    liveness.sweep(tmp_path)
    assert not new.exists()


def test_who_is_known_to_live_keeps_a_card_whose_lease_has_run_out(tmp_path: Path) -> None:
    db = CortexDB(tmp_path / "cortex.db")
    db.push_card("r/a", "run", "{}")
    card = db.pop_card("worker", lease_seconds=0.0)
    assert card is not None
    assert db.reclaim(lambda _token: False) == []
    assert [taken.id for taken in db.reclaim(lambda _token: True)] == ["r/a"]
    card = db.pop_card("worker", lease_seconds=-1.0)
    assert card is not None
    assert [taken.id for taken in db.reclaim()] == ["r/a"]
    assert db.counts()[Status.PENDING] == 1
    db.close()
