"""Garbage collection beside those at work: at the very moments that are dangerous, and beside real forges."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard
from anvil.mainframe.garbage import Collection
from anvil.mainframe.garbage_choice import Policy
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import LayerRef, StepResult
from anvil.mainframe.services import Services
from anvil.microjson.registry import MessageID
from anvil.model.card import Status
from anvil.model.layer import Digest
from anvil.vault.generation import Generations
from tests.mainframe.garbage_model import AGE, LIMITS, OLD, Model, model

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from anvil.mainframe.context import Context
    from tests.conftest import Project

# --- beside those at work ----------------------------------------------------------------------------------------


def claim_while_it_is_collected(home: Model, monkeypatch: pytest.MonkeyPatch, how: str) -> bool:
    """Somebody finds a result, and puts a card that has it onto the stack while it is being collected; is it whole?"""
    old = home.result({"a": "old"}, back=OLD)
    monkeypatch.setattr("anvil.vault.generation.PATIENCE", 0.05)
    found, waiting = threading.Event(), threading.Event()
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if text.startswith("waiting"):
            waiting.set()

    def forge() -> None:
        """What a forge does: look, and rely on what it saw."""
        with Services(home.services.settings) as services, services.vault.generations.steady():
            kept = services.db.find_result(old.key)
            assert kept is not None
            found.set()
            waiting.wait(5)
            card = NewCard(id="r/a", op="run", pld=home.payload(), stat=Status.PUNCHED, key=old.key, ret=kept.ret)
            services.db.push_deck("late", [card])

    if how == "without the gate":
        monkeypatch.setattr(Generations, "alone", lambda *_args, **_more: waiting_room(waiting))
    chosen = Collection._forget

    def forget(self: Collection, keys: list[str], now_us: int) -> int:
        thread.start()
        found.wait(5)
        return chosen(self, keys, now_us)

    thread = threading.Thread(target=forge)
    monkeypatch.setattr(Collection, "_forget", forget)
    home.collect(Policy(older=AGE), tell=tell)
    waiting.set()
    thread.join()
    return all(home.vault.has(Digest(digest)) for digest in old.digests)


@contextmanager
def waiting_room(_waiting: threading.Event) -> Iterator[None]:
    """No gate at all."""
    yield


def test_a_result_that_is_found_while_it_is_collected_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with model() as home:
        assert claim_while_it_is_collected(home, monkeypatch, "as it is")


def test_without_the_gate_it_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with model() as home:
        assert not claim_while_it_is_collected(home, monkeypatch, "without the gate")


def card_while_it_is_collected(home: Model, monkeypatch: pytest.MonkeyPatch, what: str) -> bool:
    """A card leaves something, new or known, and a collection comes before its stamp; is its result whole?"""
    text = "what a card leaves"
    if what == "known":
        home.vault.put_bytes(text.encode())
    home.rest()

    class Operation:
        @staticmethod
        def run(context: Context) -> StepResult:
            folder = home.path / "left"
            folder.mkdir()
            (folder / "f").write_text(text, encoding="utf-8")
            left = context.services.layers.collect(folder, kind="tree", limits=LIMITS)
            layer = LayerRef(digest=left.manifest_digest, times=left.times_digest)
            log = context.services.vault.put_bytes(b"log")
            with Services(home.services.settings) as other:
                Collection(other, Policy(older=0)).run()
            return StepResult(stack=(layer,), log=log)

    monkeypatch.setattr("anvil.mainframe.processor_daemon.operation", lambda _op: Operation)
    home.db.push_deck("now", [NewCard(id="r/a", op="run", pld=home.payload())])
    assert Processor(home.services, report=lambda *_: None, stopped=lambda: False).run_one()
    (result,) = home.db.all_results()
    damaged = home.services.damaged_results()
    assert damaged in ([], [result.key])
    return not damaged and home.vault.has(Digest(result.log))


@pytest.mark.parametrize("what", ["new", "known"])
def test_what_a_card_left_stays_until_it_is_stamped(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    with model() as home:
        assert card_while_it_is_collected(home, monkeypatch, what)
        home.check_whole()


@pytest.mark.parametrize("what", ["new", "known"])
def test_without_marks_it_would_be_lost(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    if what == "known":
        monkeypatch.setattr(Generations, "mark", lambda *_: True)
    else:
        monkeypatch.setattr(Generations, "mark_new", lambda _self, fd: os.utime(fd, (0, 1)))
    with model() as home:
        assert not card_while_it_is_collected(home, monkeypatch, what)


# --- with real forges --------------------------------------------------------------------------------------------

CHAIN = '''from anvil.recipe import Recipe, elf_static
r = Recipe("{name}", licence="MIT")
a = r.run("a", None, "echo {a} > a")
b = r.run("b", a, "cat a > b; echo {b} >> b; seq 200 > c")
hello = r.run("hello", b, """echo 'int main(void) {{ return 0; }}' > h.c; musl-gcc -static -o h h.c""")
r.artifact("bin/{name}", hello / "h", kind=elf_static)
'''


@pytest.mark.cell
def test_a_released_artifact_keeps_all_it_was_made_from_as_long_as_it_is_there(project: Project) -> None:
    project.recipe("one", CHAIN.format(name="one", a="1", b="1"))
    assert project.forge("one").returncode == 0
    done = project.anvil("vault", "gc", "--older-than", "0")
    assert done.returncode == 0, done.stderr
    assert "0 cards run" in project.forge("one").stdout
    shutil.rmtree(project.output)
    assert project.anvil("vault", "gc", "--older-than", "0").returncode == 0
    assert "4 cards run" in project.forge("one").stdout
    assert project.anvil("vault", "verify").returncode == 0


@pytest.mark.cell
def test_a_jam_keeps_what_its_card_needs(project: Project) -> None:
    project.recipe("one", CHAIN.format(name="one", a="1", b="1; false"))
    assert project.forge("one").returncode == 1
    dry = project.anvil("vault", "gc", "--older-than", "0", "--dry-run")
    assert "a jammed card" in dry.stdout
    assert project.anvil("vault", "gc", "--older-than", "0").returncode == 0
    assert "JAM  one/b" in project.anvil("jam").stdout
    project.recipe("one", CHAIN.format(name="one", a="1", b="1"))
    done = project.forge("one")
    assert done.returncode == 0
    assert "run   one/a\n" not in done.stdout


@pytest.mark.cell
@pytest.mark.parametrize("older", ["0", "30d"])
def test_collecting_all_the_time_disturbs_no_forge(project: Project, older: str) -> None:
    names = ("one", "two", "three")
    stop = threading.Event()
    collected: list[subprocess.CompletedProcess[str]] = []

    def collect() -> None:
        while not stop.is_set():
            collected.append(project.anvil("vault", "gc", "--older-than", older))

    said: list[str] = []

    def forge(name: str) -> None:
        for turn in range(5):
            project.recipe(name, CHAIN.format(name=name, a=turn // 2, b=turn))  # cards that the others make, too
            done = project.forge(name, "--jobs", "1")
            said.append(done.stdout + done.stderr)
            codes.append(done.returncode)

    codes: list[int] = []
    collector = threading.Thread(target=collect)
    forges = [threading.Thread(target=forge, args=(name,)) for name in names]
    for thread in (collector, *forges):
        thread.start()
    for thread in forges:
        thread.join()
    stop.set()
    collector.join()
    assert codes == [0] * 15, "\n".join(said)
    assert [done.stderr for done in collected if done.returncode] == []
    assert project.anvil("vault", "verify").returncode == 0
    assert "the chain is whole" in project.anvil("audit").stdout
    with CortexDB(project.home / "cortex.db") as db:
        forgotten = db.events(kind=MessageID.RESULT_FORGOTTEN)
        assert bool(forgotten) == (older == "0")  # it did collect, and nothing that was young
        if older == "30d":
            keys = [json.loads(event.body)["key"] for event in db.events(kind=MessageID.RESULT_KEPT)]
            assert len(keys) == len(set(keys))
