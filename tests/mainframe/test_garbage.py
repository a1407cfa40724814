"""Garbage collection of a home, against an oracle of its own: what is reachable stays whole, the rest goes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anvil.cli.garbage import seconds, size
from anvil.cortex.clock import Clock
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, Release, StoredResult
from anvil.errors import AnvilError, IntegrityError, UsageError
from anvil.mainframe import liveness
from anvil.mainframe.check_home import second_home
from anvil.mainframe.garbage import Collection, Line
from anvil.mainframe.garbage_choice import Policy
from anvil.mainframe.graph import BlobRef, Node
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import LayerRef, StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import MicroJSON, canonical
from anvil.microjson.registry import MessageID
from anvil.model.card import Status
from anvil.model.layer import Digest
from anvil.vault.generation import Generations
from anvil.vault.scan import OutputLimits
from anvil.vault.store import Vault
from anvil.vault.verify import verify
from tests.vault.support import needs_unshare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.mainframe.context import Context
    from anvil.model.card import Card
    from tests.conftest import Project

DAY = 86_400.0
OLD = 40 * DAY
AGE = 30 * DAY
LIMITS = OutputLimits(total_bytes=1 << 30)


class Past(Clock):
    """A clock that stands some seconds back."""

    def __init__(self) -> None:
        self.back = 0.0

    def utc_us(self) -> int:
        return time.time_ns() // 1000 - int(self.back * 1_000_000)


@dataclass(kw_only=True)
class Made:
    """A result that a model home has, and every digest it consists of, as the test itself reckons them.

    layers: of its own layer and those it stands on; its log comes to it.
    """

    key: str
    back: float
    layers: set[str]
    digests: set[str]
    result: StepResult
    rooted: bool = False


@dataclass(kw_only=True)
class Model:
    """A home without cells: results, cards, releases and loose blobs, and what of it should be left."""

    path: Path
    clock: Past = field(default_factory=Past)
    made: list[Made] = field(default_factory=list)
    stays: set[str] = field(default_factory=set)
    loose: set[str] = field(default_factory=set)
    living: list[liveness.Worker] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        settings = Settings(home=self.path / "home", output=self.path / "out")
        self.services = Services(settings, least_free=0)
        self.services.__dict__["db"] = CortexDB(self.services.home.cortex, clock=self.clock)
        self.db = self.services.db
        self.vault = self.services.vault

    def close(self) -> None:
        for worker in self.living:
            worker.close()
        self.vault.settle()
        self.services.close()

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}{self.count}"

    def result(self, files: dict[str, str], *, back: float, cached: bool = False, base: Made | None = None) -> Made:
        """A card that was run some time ago: its output, its log, and what it stands on."""
        folder = self.path / self.name("tree")
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        left = self.services.layers.collect(folder, kind="tree", limits=LIMITS)
        layer = LayerRef(digest=left.manifest_digest, times=left.times_digest)
        if cached:
            self.services.layers.adopt(folder, left)
        log = self.vault.put_bytes(self.name("log").encode())
        stack = (layer, *base.result.stack) if base else (layer,)
        result = StepResult(stack=stack, out=layer, log=log)
        key = hashlib.sha256(self.name("key").encode()).hexdigest()
        digests = {hashlib.sha256(text.encode()).hexdigest() for text in files.values()}
        digests |= {left.manifest_digest, left.times_digest} | (base.layers if base else set())
        made = Made(key=key, back=back, layers=digests, digests=digests | {log}, result=result)
        self.clock.back = back
        deck = self.name("past")
        self.db.push_deck(deck, [NewCard(id="r/a", op="run", pld=self.payload())])
        card = self.db.pop_card("w", deck=deck)
        assert card is not None
        self.stamp(card, made)
        self.db.clear_deck(deck)
        self.clock.back = 0.0
        self.made.append(made)
        return made

    def stamp(self, card: Card, made: Made) -> None:
        work = made.result.stack[0]
        stored = StoredResult(key=made.key, work=work.digest, work_times=work.times, out="", out_times="")
        self.db.log_result(card, stat=Status.PUNCHED, ret=ret(made.result), key=made.key, result=stored)

    def payload(self, *files: str) -> str:
        inputs = {f"f{n}": BlobRef(sha256=digest, name="f") for n, digest in enumerate(files)}
        node = Node(id="r/a", recipe="r", op="run", inputs=inputs)
        return MicroJSON.message(MessageID.CARD_PAYLOAD, node.as_data()).decode()

    def deck(self, kind: str, made: list[Made]) -> None:
        """Cards on the stack that stand on results: of a running or a killed forge, a jam, a lease, or by hand."""
        deck = self.name(kind)
        given = self.vault.put_bytes(self.name("given").encode())
        cards = [
            NewCard(
                id=f"r/k{n}", op="run", pld=self.payload(), key=each.key, stat=Status.PUNCHED, ret=ret(each.result)
            )
            for n, each in enumerate(made)
        ]
        needs = tuple(card.id for card in cards)
        worker = liveness.Worker(self.services.home.workers)
        (self.living.append if kind in {"forge", "lease"} else liveness.Worker.close)(worker)
        if kind in {"forge", "killed", "jam"}:
            self.db.begin_forge(deck, deck=deck, recipe="r", machine=canonical({"worker": worker.token}).decode())
        self.db.push_deck(deck, [*cards, NewCard(id="r/last", op="run", pld=self.payload(given), needs=needs)])
        if kind in {"jam", "lease", "killed"}:
            card = self.db.pop_card(worker.token, deck=deck, lease_seconds=600)
            assert card is not None
            if kind == "jam":
                self.db.log_result(card, stat=Status.JAMMED, ret=MicroJSON.message(520, {"message": "x"}).decode())
                self.db.end_forge(deck, verdict="jammed")
        if kind == "killed":
            self.loose.add(given)
        else:
            self.keep(made)
            self.stays.add(given)

    def release(self, made: list[Made], *, there: bool) -> None:
        """An artifact in somebody's folder, or one that was there."""
        path = self.path / self.name("artifact")
        source = self.vault.put_bytes(self.name("source").encode())
        if there:
            path.write_bytes(b"artifact")
            Path(f"{path}.json").write_text(json.dumps({"sha256": "a" * 64}), encoding="utf-8")
            self.keep(made)
            self.stays.add(source)
        else:
            self.loose.add(source)
        keys = tuple(sorted(each.key for each in made))
        self.db.note_release(
            Release(path=str(path), sha256="a" * 64, size=8, keys=keys, blobs=(source,), images=("b" * 64,))
        )

    def keep(self, made: list[Made]) -> None:
        for each in made:
            each.rooted = True

    def blobs(self) -> set[str]:
        return {path.parent.name + path.name for path in self.vault.blobs.glob("??/*")}

    def keys(self) -> set[str]:
        return {result.key for result in self.db.all_results()}

    def labels(self) -> set[str]:
        """The manifests and times of the cached trees that are there."""
        found = set()
        for tree in self.vault.trees.iterdir():
            label = json.loads((tree / "of").read_bytes())
            found |= {label["manifest"], label["times"]}
        return found

    def rest(self) -> None:
        """Whoever made all this is done with it, since a minute."""
        self.vault.generations.unpin()
        for path in (*self.vault.blobs.glob("??/*"), *self.vault.trees.iterdir()):
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 60 * 10**9))

    def collect(self, policy: Policy, **more: Any) -> None:
        self.rest()
        Collection(self.services, policy, **more).run()

    def check_whole(self) -> None:
        """No result lacks a blob, the vault is clean, the ledger whole."""
        assert list(verify(self.vault, layers=self.services.kept_layers())) == []
        for result in self.db.all_results():
            data = MicroJSON.decode(result.ret)["data"]
            assert self.vault.has(Digest(data["log"]))
        self.db.verify_ledger()


def ret(result: StepResult) -> str:
    return MicroJSON.message(MessageID.CARD_RESULT, result.as_data()).decode()


@contextmanager
def model() -> Iterator[Model]:
    with tempfile.TemporaryDirectory(prefix="anvil-garbage-") as folder:
        made = Model(path=Path(folder))
        try:
            yield made
        finally:
            made.close()


def random_home(made: Model, chance: random.Random) -> None:
    """Results of many ages that share files, some standing on others; some of them needed, in every way."""
    texts = [f"text {n}" for n in range(8)]
    for _ in range(chance.randint(1, 8)):
        files = {f"d{n % 2}/f{n}": chance.choice(texts) for n in range(chance.randint(0, 4))}
        base = chance.choice([None, *made.made])
        made.result(files, back=chance.choice([0, 1, 29, 31, 100]) * DAY, cached=chance.random() < 0.4, base=base)
    for kind in ("forge", "killed", "jam", "lease", "hand"):
        if chance.random() < 0.4:
            made.deck(kind, chance.sample(made.made, chance.randint(0, min(3, len(made.made)))))
    for there in (True, False):
        if chance.random() < 0.5:
            made.release(chance.sample(made.made, chance.randint(0, min(3, len(made.made)))), there=there)
    for _ in range(chance.randint(0, 3)):
        made.loose.add(made.vault.put_bytes(made.name("loose").encode()))


PROPERTY = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@PROPERTY
@given(st.integers(0, 1 << 30), st.sampled_from([0.0, AGE]))
def test_by_age_what_is_reachable_is_whole_and_the_rest_is_gone(seed: int, older: float) -> None:
    with model() as home:
        random_home(home, random.Random(seed))
        home.rest()
        busy = Vault(home.vault.root)  # somebody else, at work with something that nothing refers to yet
        handled = {busy.put_bytes(b"in somebody's hand")}
        for digest in sorted(home.loose)[:1]:
            assert busy.claim(Digest(digest))
            handled.add(Digest(digest))
        Collection(home.services, Policy(older=older)).run()
        left = [each for each in home.made if each.rooted or each.back < older]
        assert home.keys() == {each.key for each in left}
        wanted = {d for each in left for d in each.digests} | home.stays | handled | home.labels()
        assert home.blobs() == wanted
        home.check_whole()
        busy.generations.unpin()
        home.collect(Policy(older=older))
        assert home.blobs() == wanted - handled


@PROPERTY
@given(st.integers(0, 1 << 30), st.integers(0, 400))
def test_by_size_what_was_used_least_lately_goes_until_it_fits(seed: int, kilobytes: int) -> None:
    with model() as home:
        random_home(home, random.Random(seed))
        home.collect(Policy(keep=kilobytes * 1000))
        home.check_whole()
        left = home.keys()
        gone = [each for each in home.made if each.key not in left]
        assert {each.key for each in home.made if each.rooted} <= left
        optional = [each for each in home.made if not each.rooted and each.key in left]
        assert all(one.back <= other.back for one in optional for other in gone)
        wanted = {d for each in home.made if each.key in left for d in each.digests} | home.stays | home.labels()
        assert home.blobs() == wanted
        report = Collection(home.services, Policy(keep=kilobytes * 1000)).run(dry=True)
        assert report.total <= kilobytes * 1000 or not optional


def test_a_dry_run_changes_nothing_and_says_why_things_stay() -> None:
    with model() as home:
        kept, old = home.result({"a": "kept"}, back=OLD), home.result({"b": "old"}, back=OLD)
        home.release([kept], there=True)
        home.deck("jam", [kept])
        home.rest()
        before = home.blobs(), home.keys(), home.db.ledger_head()
        report = Collection(home.services, Policy(older=AGE)).run(dry=True)
        assert (home.blobs(), home.keys(), home.db.ledger_head()) == before
        gone = {line.what: line for line in report.gone}
        assert gone["results"].count == 1
        assert gone["blobs"].count == len(old.digests)
        stays = {line.what: line for line in report.stays}
        assert str(home.path / "artifact") in stays["released"].why
        assert stays["released"].size > 0
        assert "jam" in stays["jam"].why


def test_what_was_of_use_lately_stays_and_a_use_is_written_once_an_hour() -> None:
    with model() as home:
        old = home.result({"a": "old"}, back=OLD)
        home.clock.back = 2 * DAY
        home.db.touch([old.key, "no such key"])
        events = os.stat(f"{home.db.path}-wal").st_size
        home.clock.back = 2 * DAY - 1800
        home.db.touch([old.key])
        assert os.stat(f"{home.db.path}-wal").st_size == events
        home.clock.back = 0
        home.collect(Policy(older=AGE))
        assert home.keys() == {old.key}
        home.collect(Policy(older=1 * DAY))
        assert home.keys() == set()


def test_what_checks_left_goes_by_age_unless_a_check_is_in_it() -> None:
    def checks(lines: list[Line]) -> list[int]:
        return [line.count for line in lines if line.what == "checks" and line.size >= 5000]

    with model() as home:
        first = home.services.home.path
        left, held = (first / "check" / f"the second making of {name}" for name in ("one", "two"))
        for folder in (left, held):
            (folder / "vault").mkdir(parents=True)
            (folder / "vault" / "blob").write_bytes(bytes(5000))
            os.utime(folder, (time.time() - OLD,) * 2)
        with second_home(first, "two", images=True):
            assert checks(Collection(home.services, Policy(older=2 * OLD)).run(dry=True).stays) == [1]
            assert checks(Collection(home.services, Policy(older=AGE)).run().gone) == [1]
            assert (left.exists(), held.exists()) == (False, True)
        assert checks(Collection(home.services, Policy(keep=0)).run().gone) == [1]
        assert not held.exists()


def test_the_ledger_says_what_went() -> None:
    with model() as home:
        old = home.result({"a": "old"}, back=OLD)
        home.collect(Policy(older=AGE))
        (event,) = home.db.events(kind=MessageID.GARBAGE_COLLECTED)
        assert json.loads(event.body)["results"]["count"] == 1
        assert json.loads(event.body)["blobs"]["count"] == len(old.digests)
        assert [json.loads(e.body)["key"] for e in home.db.events(kind=MessageID.RESULT_FORGOTTEN)] == [old.key]
        home.collect(Policy(older=AGE))
        assert len(home.db.events(kind=MessageID.GARBAGE_COLLECTED)) == 1


def test_what_cannot_be_read_ends_the_collection_and_nothing_is_lost() -> None:
    with model() as home:
        home.result({"a": "old"}, back=OLD)
        young = home.result({"b": "young"}, back=0)
        path = home.vault.path(young.result.stack[0].digest)
        path.chmod(0o644)
        sound = path.read_bytes()
        path.write_bytes(b"damaged")
        home.services.layers._indexes.clear()
        before = home.blobs(), home.keys()
        with pytest.raises(IntegrityError, match="damaged") as caught:
            home.collect(Policy(older=AGE))
        assert "verify --mend" in caught.value.hint
        assert (home.blobs(), home.keys()) == before
        path.write_bytes(sound)
        home.collect(Policy(older=AGE))
        assert home.keys() == {young.key}
        home.check_whole()


def test_two_collections_do_not_meet() -> None:
    with model() as home:
        other = Generations(home.vault.root)
        with other.only_collection(), pytest.raises(AnvilError, match="another process"):
            home.collect(Policy(older=AGE))
        home.collect(Policy(older=AGE))


# --- killed anywhere ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_every_step_it_leaves_a_whole_home_and_the_next_one_ends_it() -> None:
    with model() as home:
        for number in range(230):  # more than are forgotten at once
            home.result({"f": f"old {number}"}, back=OLD, cached=number < 3)
        kept = home.result({"a": "kept"}, back=OLD)
        home.release([kept], there=True)
        home.rest()
        home.services.close()
        steps = 0
        while True:
            child = os.fork()
            if child == 0:
                collect_until(home.path / "home", steps)
            _, status = os.waitpid(child, 0)
            home.services = Services(home.services.settings)
            home.db, home.vault = home.services.db, home.services.vault
            home.check_whole()
            assert {kept.key} <= home.keys()
            if status == 0:
                break
            assert os.WIFSIGNALED(status)
            home.services.close()
            # early every step, later some: the sweep has one for each folder of blobs
            steps += 1 if steps < 20 else 37
        assert steps > 100
        assert home.keys() == {kept.key}
        assert home.blobs() == kept.digests | home.stays | home.labels()


def collect_until(path: Path, step: int) -> None:
    """In a child: collect, and be killed at a step; ends the process."""
    code = 1
    try:
        said = 0

        def tell(_text: str) -> None:
            nonlocal said
            said += 1
            if said > step:
                os.kill(os.getpid(), signal.SIGKILL)

        with Services(Settings(home=path, output=path)) as services:
            Collection(services, Policy(older=AGE), tell=tell).run()
        code = 0
    finally:
        os._exit(code)


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


# --- a full disk -------------------------------------------------------------------------------------------------

FULL = """
import os, sys
from pathlib import Path
from anvil.mainframe.home import Home
from tests.mainframe.test_garbage import Model, OLD
home = Model(path=Path(sys.argv[1]))
for n in range(40):
    home.result({"f": f"{n} " + "x" * 50_000}, back=OLD, cached=sys.argv[2] == "trees")
if sys.argv[2] == "reserve":
    home.services.home.reserve.write_bytes(bytes(2_000_000))
home.close()
with open(sys.argv[1] + "/filling", "wb", buffering=0) as file:
    for size in (1 << 16, 4096, 1):
        try:
            while True:
                file.write(bytes(size))
        except OSError:
            pass
assert os.statvfs(sys.argv[1]).f_bavail == 0
"""


@needs_unshare
@pytest.mark.parametrize("what", ["trees", "reserve"])
def test_it_works_on_a_full_disk(tmp_path: Path, what: str) -> None:
    root = str(Path(__file__).parents[2])
    script = (
        'mount -t tmpfs -o size=24m,mode=700 none "$1"; "$2" -c "$3" "$1" "$4"; '
        'if "$2" -m anvil.cli.main stack --home "$1/home"; then exit 9; fi; '
        '"$2" -m anvil.cli.main vault gc --home "$1/home"; '
        '"$2" -m anvil.cli.main vault gc --home "$1/home" --json'
    )
    flags = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    command = ["unshare", *flags, "sh", "-euc", script, "sh", str(tmp_path), sys.executable, FULL, what]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "anvil vault gc" in done.stderr  # what a command says that cannot begin
    assert "40 results" in done.stdout
    assert json.loads(done.stdout[done.stdout.index("{") :])["gone"] == []


# --- the command line --------------------------------------------------------------------------------------------


def test_the_words_for_ages_and_sizes() -> None:
    assert [seconds(text) for text in ("90s", "12h", "30d", "2w", "0")] == [90, 43_200, 30 * DAY, 14 * DAY, 0]
    assert [size(text) for text in ("20GB", "500M", "1.5tb", "0", "7")] == [20 * 10**9, 500 * 10**6, 15 * 10**11, 0, 7]
    assert int(seconds("9" * 400 + "w") * 1_000_000) < 2**63  # as the database takes it
    for wrong in ("", "x", "30", "-1d", "d"):
        with pytest.raises(UsageError):
            seconds(wrong)
    for wrong in ("", "big", "-1GB", "20 XB"):
        with pytest.raises(UsageError):
            size(wrong)


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
