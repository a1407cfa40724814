"""Taking blobs and cached trees away beside those at work: marks, pins and the two locks, each shown to be needed."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from anvil.vault import garbage, generation
from anvil.vault.generation import Generations
from anvil.vault.layers import Layers
from anvil.vault.store import Vault
from tests.vault.support import LIMITS, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.model.layer import Digest


def collect(vault: Vault, *needed: Digest) -> garbage.Swept:
    """A collection that knows of nothing but ``needed``."""
    lowest = vault.generations.begin(garbage.highest_mark(vault))
    for tree in garbage.trees(vault):
        garbage.remove_tree(vault, tree.path, lowest)
    return garbage.sweep(vault, set(needed), lowest)


def other(vault: Vault) -> Vault:
    """The same vault, as another process sees it."""
    return Vault(vault.root)


def rest(vault: Vault) -> None:
    """Whoever wrote what is there was done with it long ago."""
    vault.generations.unpin()
    for path in (*vault.blobs.glob("??/*"), *vault.trees.iterdir()):
        os.utime(path, (0, 1))


def test_what_nobody_needs_goes_and_the_rest_stays(vault: Vault) -> None:
    kept, gone = vault.put_bytes(b"kept"), vault.put_bytes(b"gone")
    rest(vault)
    swept = collect(vault, kept)
    assert (vault.has(kept), vault.has(gone)) == (True, False)
    assert swept.count == 1
    assert swept.size > 0


@pytest.mark.parametrize("how", ["put", "claim", "file"])
def test_what_somebody_writes_or_finds_stays_as_long_as_they_are_at_work(
    vault: Vault, tmp_path: Path, how: str
) -> None:
    digest = vault.put_bytes(b"old")
    rest(vault)
    at_work = other(vault)
    if how == "put":
        at_work.put_bytes(b"old")
    elif how == "file":
        (tmp_path / "file").write_bytes(b"old")
        at_work.put_file(tmp_path / "file")
    else:
        assert at_work.claim(digest)
    new = at_work.put_bytes(b"new")
    for _ in range(3):
        assert collect(vault).count == 0
    assert vault.has(digest)
    assert vault.has(new)
    at_work.generations.unpin()
    collect(vault)
    assert not vault.has(digest)
    assert not vault.has(new)
    assert not at_work.claim(digest)


def test_without_marks_what_somebody_found_is_lost(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = vault.put_bytes(b"old")
    rest(vault)
    at_work = other(vault)
    at_work.generations.pinned()
    monkeypatch.setattr(Generations, "mark", lambda *_: True)
    assert at_work.claim(digest)
    collect(vault)
    assert not vault.has(digest)


def found_between(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Somebody finds a blob after a sweep has looked at it, and before it is taken away."""
    digest = vault.put_bytes(b"old")
    rest(vault)
    at_work = other(vault)
    at_work.generations.pinned()
    look = garbage._is_older

    def then_find(path: Path, oldest: int) -> bool:
        older = look(path, oldest)
        assert at_work.claim(digest)
        return older

    monkeypatch.setattr(garbage, "_is_older", then_find)
    collect(vault)
    return digest


def test_what_is_found_while_it_is_being_taken_away_stays(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vault.has(found_between(vault, monkeypatch))


def test_without_the_second_look_it_is_lost(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_take", lambda path, _oldest, _swept: path.unlink())
    assert not vault.has(found_between(vault, monkeypatch))


def race(vault: Vault, seconds: float) -> int:
    """One puts and forgets a blob over and over, another collects; how often it was gone while it was in hand."""
    at_work = other(vault)
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            collect(vault)

    thread = threading.Thread(target=sweep)
    thread.start()
    lost = 0
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not lost:
            at_work.generations.unpin()
            digest = at_work.put_bytes(b"the same")
            for _ in range(20):
                lost += not at_work.has(digest)
            os.utime(vault.path(digest), (0, 1)) if not lost else None
    finally:
        stop.set()
        thread.join()
    return lost


def test_putting_and_taking_away_race_and_nothing_in_hand_is_lost(vault: Vault) -> None:
    assert race(vault, 1.0) == 0


def test_the_race_is_lost_without_marks(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generations, "mark", lambda *_: True)
    monkeypatch.setattr(Generations, "mark_new", lambda _self, fd: os.utime(fd, (0, 1)))
    assert race(vault, 20.0) > 0


def test_a_process_that_died_holds_nothing(vault: Vault) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        mine = other(vault)
        mine.put_bytes(b"of the dead")
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    try:
        assert collect(vault).count == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert collect(vault).count == 1
    assert list((vault.root / "pins").iterdir()) == []


def test_closed_it_holds_no_descriptor_and_may_be_used_again(vault: Vault) -> None:
    def held() -> set[str]:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return {os.readlink(link) for link in links if os.path.lexists(link)}

    gate = str(vault.root / "gate")
    vault.put_bytes(b"x")
    assert gate in held()
    vault.generations.close()
    assert not [path for path in held() if path.startswith(str(vault.root))]
    digest = vault.put_bytes(b"x")
    assert collect(vault).count == 0
    assert vault.has(digest)


def test_a_child_does_not_hold_what_its_parent_held(vault: Vault) -> None:
    digest = vault.put_bytes(b"x")
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        vault.generations.renew()  # the first use notices the fork
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    rest(vault)
    collect(vault)
    assert not vault.has(digest)
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    for fd in (*ready, *go):
        os.close(fd)


def test_a_clock_that_jumps_loses_nothing(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2_000_000_000]

    class Time:
        sleep, monotonic = time.sleep, time.monotonic

        @staticmethod
        def time() -> float:
            return float(now[0])

        @staticmethod
        def time_ns() -> int:
            return now[0] * 10**9

    monkeypatch.setattr(generation, "time", Time)
    early, late = other(vault), other(vault)
    first = early.put_bytes(b"first")
    collect(vault)
    now[0] = 1_000_000_000  # back, by decades
    second, third = late.put_bytes(b"second"), early.put_bytes(b"third")
    assert early.claim(second)
    for _ in range(3):
        assert collect(vault).count == 0
    now[0] = 3_000_000_000  # and far ahead
    assert collect(vault).count == 0
    assert all(map(vault.has, (first, second, third)))
    early.generations.unpin()
    late.generations.unpin()
    now[0] = 1_500_000_000  # the marks are of the future now
    assert collect(vault).count == 3


def test_a_mark_is_never_lowered(vault: Vault) -> None:
    digest = vault.put_bytes(b"x")
    path = vault.path(digest)
    looked = path.stat()
    later = int(looked.st_mtime) + 100

    def mark() -> int:
        return int(path.stat().st_mtime)

    os.utime(path, (0, later))  # somebody who began later has found it since we looked
    assert vault.generations.mark(str(path), os.stat_result((*looked[:8], 0, 0)))
    assert mark() == later
    path.unlink()
    with vault.batch() as batch:
        batch.put_bytes(b"x")
        other(vault).put_bytes(b"x")  # and an equal one gets the name before ours does
        os.utime(path, (0, later))
    assert mark() == later


def test_a_tree_in_use_stays_and_one_that_is_not_goes(vault: Vault, tmp_path: Path) -> None:
    layers = Layers(vault)
    left = layers.collect(write_tree(tmp_path / "a", {"f": "x"}), kind="tree", limits=LIMITS)
    tree = layers.tree(left.manifest_digest, left.times_digest)
    needed = layers.closure(left.layer)
    collect(vault, *needed)
    assert tree.is_dir()
    rest(vault)
    at_work = Layers(other(vault))
    assert at_work.tree(left.manifest_digest, left.times_digest) == tree
    collect(vault, *needed)
    assert (tree / "f").is_file()
    at_work.vault.generations.unpin()
    rest(vault)
    collect(vault, *needed)
    assert not tree.exists()
    assert list(vault.trees.iterdir()) == []
    assert (layers.tree(left.manifest_digest, left.times_digest) / "f").read_text(encoding="utf-8") == "x"


def test_what_is_left_of_a_tree_is_no_tree_and_goes_with_the_next_opening(vault: Vault, tmp_path: Path) -> None:
    layers = Layers(vault)
    left = layers.collect(write_tree(tmp_path / "a", {"f": "x"}), kind="tree", limits=LIMITS)
    tree = layers.tree(left.manifest_digest, left.times_digest).parent
    tree.rename(tree.with_name("gone-0123456789abcdef"))
    Layers(other(vault)).vault.settle()
    vault.settle()
    assert list(vault.trees.iterdir()) == []


def test_a_collection_waits_for_who_relies_on_a_result_and_lets_others_by(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "PATIENCE", 0.05)
    holder, newcomer = Generations(vault.root), Generations(vault.root)
    waited = threading.Event()
    order: list[str] = []

    def forget() -> None:
        with vault.generations.alone(waited.set):
            order.append("alone")

    thread = threading.Thread(target=forget)
    with holder.steady():
        thread.start()
        assert waited.wait(10)
        with newcomer.steady(), holder.steady():  # who holds it in one process may take it again
            order.append("newcomer")
        assert order == ["newcomer"]
    thread.join()
    assert order == ["newcomer", "alone"]


def test_nobody_comes_in_while_a_collection_is_alone(vault: Vault) -> None:
    come: list[str] = []

    def newcomer() -> None:
        with Generations(vault.root).steady():
            come.append("in")

    thread = threading.Thread(target=newcomer)
    with vault.generations.alone():
        thread.start()
        thread.join(0.2)
        assert come == []
    thread.join()
    assert come == ["in"]


@contextmanager
def stopped(target: Callable[[], None]) -> Iterator[None]:
    """A child process that has done something, and then sleeps until it is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        target()
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_locks_of_a_killed_process_are_free(vault: Vault) -> None:
    held: list[object] = []

    def hold() -> None:
        mine = Generations(vault.root)
        for lock in (mine.steady(), mine.hand()):
            lock.__enter__()
            held.append(lock)

    with stopped(hold):
        pass
    with vault.generations.alone(), vault.generations.hand():
        assert vault.put_bytes(b"x")
