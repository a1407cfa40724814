"""A home without cells for the tests of garbage collection, and an oracle of what of it should be left."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cortex.clock import Clock
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, Release, StoredResult
from anvil.mainframe import liveness
from anvil.mainframe.garbage import Collection
from anvil.mainframe.graph import BlobRef, Node
from anvil.mainframe.results import LayerRef, StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import MicroJSON, canonical
from anvil.microjson.registry import MessageID
from anvil.model.card import Status
from anvil.model.layer import Digest
from anvil.vault.scan import OutputLimits
from anvil.vault.verify import verify

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from anvil.mainframe.garbage_choice import Policy
    from anvil.model.card import Card

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
