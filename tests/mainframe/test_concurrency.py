"""Several forges on one home at once: who makes a card, who waits, and what a stop ends and does not end.

The slow cards sleep for a number of seconds of their own, by which the tests find the process, and go on when it is
ended: nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cell.process import children_of
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, StoredResult
from anvil.errors import AnvilError
from anvil.mainframe.forge import recover
from anvil.mainframe.graph import Node
from anvil.mainframe.keys import Identity
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.cell

PATIENCE = 60
"""Seconds after which something that should happen has not."""


def slow(name: str, seconds: int) -> str:
    """A recipe with a card before and a card after one that sleeps until its sleep is ended."""
    return f'''"""Waits."""
from anvil.recipe import Recipe

r = Recipe("{name}", licence="MIT")
first = r.run("first", None, "echo first > first")
slow = r.run("slow", first, "sleep {seconds} || true; echo slow > slow")
r.export("x", r.run("last", slow, "cat first slow > /out/all").out)
'''


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait until something is so; fail when it does not become so."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def processes(words: str) -> list[int]:
    """The processes whose command line begins with some words."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{int(name)}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
            if line.startswith(words):
                found.append(int(name))
    return found


def state(pid: int) -> str:
    """A process's state as the kernel's letter; "" when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that waits for this machine's first process has."""
    return state(pid) in {"", "Z"}


def sleeper(seconds: int) -> int:
    """The one process that sleeps so long, once it does."""
    found: list[int] = []

    def there() -> bool:
        found[:] = processes(f"sleep {seconds} ")
        return len(found) == 1

    wait_until(there, f"sleep {seconds} runs once")
    return found[0]


def read_until(forge: subprocess.Popen[str], words: str) -> str:
    """A forge's line that has some words in it; and that it comes."""
    assert forge.stdout is not None
    seen = []
    for line in forge.stdout:
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} was not said: {''.join(seen)}")


def left_nothing(home: Path) -> None:
    """No living worker, no staging folder, no mount of a home."""
    with Services(Settings(home=home, output=home / "unused")) as services:
        assert [card.id for card in services.db.peek_stack(100) if card.stat is Status.PROCESSING] == []
    assert list((home / "workers").iterdir()) == []
    assert list((home / "cells").iterdir()) == []
    with open("/proc/self/mounts", encoding="utf-8") as file:
        assert str(home) not in file.read()


@pytest.fixture
def second(project: Project, tmp_path: Path) -> Project:
    """Another project on the same home."""
    folder = tmp_path / "second"
    (folder / "recipes").mkdir(parents=True)
    return type(project)(folder=folder, home=project.home)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Forges, ended with the test whatever happens."""
    forges: list[subprocess.Popen[str]] = []
    yield forges
    for forge in forges:
        if forge.poll() is None:
            forge.kill()
            forge.communicate()


class Pair:
    """Two forges: one makes a slow card, the other waits for it."""

    def __init__(self, first: Project, second: Project, seconds: int, forges: list[subprocess.Popen[str]]) -> None:
        first.recipe("one", slow("one", seconds))
        second.recipe("two", slow("two", seconds))  # another recipe, the same keys
        self.home = first.home
        self.maker = first.start("one", "--jobs", "1", start_new_session=True)
        forges.append(self.maker)
        read_until(self.maker, "run   one/slow")
        self.sleeper = sleeper(seconds)
        self.waiter = second.start("two", "--jobs", "1", start_new_session=True)
        forges.append(self.waiter)
        self.said = read_until(self.waiter, "wait  two/slow")

    def worker(self) -> int:
        """The process that makes the card."""
        (worker,) = [pid for pid in children_of(self.maker.pid) if children_of(pid)]
        return worker

    def go_on(self) -> None:
        """Let the slow card end its sleep."""
        os.kill(self.sleeper, signal.SIGTERM)

    def runs(self) -> int:
        """How often the slow card was made."""
        with CortexDB(self.home / "cortex.db") as db:
            return sum('/slow"' in event.body for event in db.events(kind=MessageID.RESULT_KEPT))


def finished(forge: subprocess.Popen[str], code: int) -> tuple[str, str]:
    """What a forge still said, when it has ended as it should."""
    out, errors = forge.communicate(timeout=PATIENCE)
    assert forge.returncode == code, out + errors
    return out, errors


def test_one_makes_it_and_the_other_waits(
    project: Project, second: Project, started: list[subprocess.Popen[str]]
) -> None:
    pair = Pair(project, second, 7270, started)
    assert f"in process {pair.worker()}" in pair.said
    pair.go_on()
    finished(pair.maker, 0)
    out, _ = finished(pair.waiter, 0)
    assert "kept  two/slow" in out
    assert pair.runs() == 1
    left_nothing(pair.home)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_end_a_card_that_another_forge_awaits(
    project: Project, second: Project, started: list[subprocess.Popen[str]], number: int
) -> None:
    pair = Pair(project, second, 7271, started)
    worker = pair.worker()
    pair.maker.send_signal(number)
    out, errors = finished(pair.maker, 130)  # its output has ended too: nobody holds it any more
    assert f"left  one/slow  goes on in process {worker}" in out
    assert f"kill {worker} stops it" in errors
    assert state(pair.sleeper) == "S"
    assert not gone(worker)
    assert project.anvil("vault", "gc", "--older-than", "0").returncode == 0  # what the card stands on is not garbage
    pair.go_on()
    out, _ = finished(pair.waiter, 0)
    assert "kept  two/slow" in out
    assert pair.runs() == 1
    wait_until(lambda: gone(worker), "the worker that was left ends by itself")
    left_nothing(pair.home)
    assert project.anvil("vault", "verify").returncode == 0
    assert "the chain is whole" in project.anvil("audit").stdout


def test_a_stop_ends_a_card_that_nobody_awaits(project: Project, started: list[subprocess.Popen[str]]) -> None:
    project.recipe("one", slow("one", 7272))
    forge = project.start("one", "--jobs", "1")
    started.append(forge)
    read_until(forge, "run   one/slow")
    pid = sleeper(7272)
    forge.send_signal(signal.SIGINT)
    out, _ = finished(forge, 130)
    assert "left" not in out
    assert gone(pid)
    left_nothing(project.home)


def test_the_waiter_makes_it_when_the_maker_is_killed(
    project: Project, second: Project, started: list[subprocess.Popen[str]]
) -> None:
    pair = Pair(project, second, 7273, started)
    os.killpg(pair.maker.pid, signal.SIGKILL)
    pair.maker.communicate()
    read_until(pair.waiter, "run   two/slow")
    pair.sleeper = sleeper(7273)
    pair.go_on()
    finished(pair.waiter, 0)
    assert pair.runs() == 1
    assert project.forge("one").returncode == 0  # which sweeps what the killed one left
    left_nothing(pair.home)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_worker_that_was_left_gives_up_when_nobody_waits_any_more(
    project: Project, second: Project, started: list[subprocess.Popen[str]], how: str
) -> None:
    pair = Pair(project, second, 7274, started)
    worker = pair.worker()
    pair.maker.send_signal(signal.SIGINT)
    finished(pair.maker, 130)
    assert state(pair.sleeper) == "S"
    if how == "stopped":
        pair.waiter.send_signal(signal.SIGINT)
        finished(pair.waiter, 130)
    else:
        os.killpg(pair.waiter.pid, signal.SIGKILL)
        pair.waiter.communicate()
    wait_until(lambda: gone(worker), "the worker that was left ends")
    assert gone(pair.sleeper)
    assert pair.runs() == 0
    if how == "stopped":  # what a killed forge leaves is swept by the next one
        left_nothing(pair.home)


@pytest.mark.parametrize("how", ["again", "worker"])
def test_whoever_insists_stops_an_awaited_card_and_the_waiter_makes_it(
    project: Project, second: Project, started: list[subprocess.Popen[str]], how: str
) -> None:
    pair = Pair(project, second, 7276, started)
    worker = pair.worker()
    if how == "again":
        os.kill(pair.maker.pid, signal.SIGSTOP)  # so that both are there when it looks
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            pair.maker.send_signal(number)
        finished(pair.maker, 130)
    else:
        pair.maker.send_signal(signal.SIGINT)
        finished(pair.maker, 130)
        os.kill(worker, signal.SIGTERM)
    read_until(pair.waiter, "run   two/slow")
    assert gone(worker)
    pair.sleeper = sleeper(7276)
    pair.go_on()
    finished(pair.waiter, 0)
    assert pair.runs() == 1
    left_nothing(pair.home)


def test_a_maker_that_sleeps_keeps_its_card_and_the_waiter_is_told(
    project: Project, second: Project, started: list[subprocess.Popen[str]]
) -> None:
    pair = Pair(project, second, 7277, started)
    worker = pair.worker()
    os.kill(worker, signal.SIGSTOP)
    line = read_until(pair.waiter, "is stopped")
    assert f"kill -CONT {worker}" in line
    assert pair.runs() == 0
    os.kill(worker, signal.SIGCONT)
    pair.go_on()
    finished(pair.maker, 0)
    finished(pair.waiter, 0)
    assert pair.runs() == 1


SHARED = """from anvil.recipe import Recipe
r = Recipe("{name}", licence="MIT")
made = [r.run(f"s{{n}}", None, f"sleep 0.2; echo {{n}} > n") for n in {numbers}]
for m in made:
    r.export(f"x{{made.index(m)}}", m.work)
"""


def test_overlapping_forges_that_are_stopped_at_random_make_every_card_once(
    project: Project, second: Project, started: list[subprocess.Popen[str]]
) -> None:
    chance = random.Random(20261124)
    project.recipe("one", SHARED.format(name="one", numbers="range(8)"))
    second.recipe("two", SHARED.format(name="two", numbers="range(4, 12)"))
    done: list[str] = []
    said = ""
    for _ in range(6):
        forges = [
            project.start("one", "--jobs", "2", start_new_session=True),
            second.start("two", "--jobs", "2", start_new_session=True),
            project.start("one", "--jobs", "1", start_new_session=True),
        ]
        started += forges
        victim, number = chance.choice(forges), chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        time.sleep(chance.uniform(0.3, 1.2))
        os.killpg(victim.pid, signal.SIGKILL) if number == signal.SIGKILL else victim.send_signal(number)
        for forge in forges:
            out, errors = forge.communicate(timeout=PATIENCE)
            assert forge.returncode in ({0} if forge is not victim else {0, 130, -number}), out + errors
            said += out + errors
            done += re.findall(r"done  (?:one|two)/(s\d+)", out)
    assert "locked" not in said
    assert len(done) == len(set(done)), sorted(done)
    with CortexDB(project.home / "cortex.db") as db:
        keys = [MicroJSON.decode(b'{"@ID":121,"data":' + event.body.encode() + b"}")["data"]["key"]
                for event in db.events(kind=MessageID.RESULT_KEPT)]  # fmt: skip
        assert len(keys) == len(set(keys)) == 12
        db.verify_ledger()
    assert project.forge("one").returncode == 0
    left_nothing(project.home)


PROCESSOR = """
import sys
from pathlib import Path
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.model.card import Status
with Services(Settings(home=Path(sys.argv[1]), output=Path(sys.argv[1]))) as services:
    def say(number, data):
        print(int(number), data.get("card", ""), flush=True)
    def finished():
        counts = services.db.counts("hand")
        return not counts[Status.PENDING] + counts[Status.PROCESSING]
    Processor(services, report=say, stopped=lambda: False, deck="hand").run(finished)
    services.vault.settle()
"""


def test_standalone_processors_share_a_deck_and_no_key_runs_twice(project: Project, build_image: object) -> None:
    image = getattr(build_image, "digest")  # noqa: B009
    keys = 6
    with Services(Settings(home=project.home, output=project.output)) as services:
        cards = []
        for number in range(3 * keys):  # every key three times
            node = Node(
                id=f"hand/c{number}", recipe="hand", op="run", image=image, memory=1 << 30, wall=60,
                script=f"sleep 0.1; echo {number % keys} > /out/n",
            )  # fmt: skip
            pld = MicroJSON.message(MessageID.CARD_PAYLOAD, node.as_data()).decode()
            cards.append(NewCard(id=node.id, op="run", pld=pld))
        services.db.push_deck("hand", cards)
    command = [sys.executable, "-c", PROCESSOR, str(project.home)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(4)
    ]
    assert workers[0].stdout is not None
    workers[0].stdout.readline()  # it is at work
    workers[0].kill()
    said = [worker.communicate(timeout=PATIENCE) for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0, 0], said
    with CortexDB(project.home / "cortex.db") as db:
        assert db.counts("hand")[Status.PUNCHED] == 3 * keys
        assert len(db.events(kind=MessageID.RESULT_KEPT)) == keys
        db.verify_ledger()
    lines = [line.split() for out, _ in said for line in out.splitlines()]
    made = [words[1] for words in lines if words[0] == str(int(MessageID.CARD_PUNCHED))]
    assert len(made) in {keys - 1, keys}  # the killed one may have said so of its last, or not
    assert not any("locked" in errors for _, errors in said)


def test_a_result_that_comes_between_looking_and_beginning_is_taken_not_forgotten(project: Project) -> None:
    node = Node(id="r/a", recipe="r", op="run", script="true")
    pld = MicroJSON.message(MessageID.CARD_PAYLOAD, node.as_data()).decode()
    settings = Settings(home=project.home, output=project.output)
    with Services(settings) as first, Services(settings) as second:
        for deck in ("one", "two"):
            first.db.push_deck(deck, [NewCard(id="r/a", op="run", pld=pld)])
        ours, theirs = first.db.pop_card("first", deck="one"), second.db.pop_card("second", deck="two")
        assert ours is not None
        assert theirs is not None
        identity = Identity.of(node, base=[], inputs={})
        assert first.db.begin_key(identity.key, ours)
        look = second.known
        looks: list[StepResult | None] = []

        def then_it_is_made(node: Node, key: str) -> StepResult | None:
            looks.append(look(node, key))
            if len(looks) == 1:
                ret = MicroJSON.message(MessageID.CARD_RESULT, StepResult().as_data()).decode()
                stored = StoredResult(key=key)
                first.db.log_result(ours, stat=Status.PUNCHED, ret=ret, key=key, result=stored)
            return looks[-1]

        second.known = then_it_is_made  # type: ignore[method-assign]
        processor = Processor(second, report=lambda *_: None, stopped=lambda: False)
        assert processor._is_kept(theirs, node, identity, lambda: False)
        assert looks == [None, StepResult()]
        assert first.db.events(kind=MessageID.RESULT_FORGOTTEN) == []


def test_forges_that_begin_at_once_all_take_up_after_a_killed_one(project: Project) -> None:
    settings = Settings(home=project.home, output=project.output)
    for turn in range(10):
        with Services(settings) as services:
            services.db.begin_forge(f"f{turn}", deck=f"f{turn}", recipe="r", machine='{"worker":"gone"}')
        errors: list[BaseException] = []
        gate = threading.Barrier(4)

        def begin(errors: list[BaseException] = errors, gate: threading.Barrier = gate) -> None:
            with Services(settings) as services:
                gate.wait()
                try:
                    recover(services)
                except AnvilError as error:
                    errors.append(error)

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with Services(settings) as services:
            assert services.db.forges(1)[0].verdict == "killed"
