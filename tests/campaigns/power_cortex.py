"""Power cuts under the cortex: three connections work on a simulated disk, which is cut at any write and sync.

Each seed is one life of a cortex: one that is made from nothing, one that is brought to a newer schema, or one that is
simply used. While a connection waits for a sync, others may commit, as other processes would. At random steps the
power is cut (the life goes on, so that one life gives many cuts), and the cortex is opened on what is left. Then all
that was acknowledged must be there, nothing twice, the file, the seals and the chain of the ledger whole; and the work
must go on to its end.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import apsw

from anvil.cortex import schema, store, walsize
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.faults import LeaseLost
from anvil.cortex.kinds import EventKind
from anvil.cortex.records import NewCard, StoredResult
from anvil.cortex.settlement import Settlement
from anvil.model.card import Status
from tests.campaigns.power_disk import SimulatedDisk
from tests.cortex.cortex_tools import FakeClock, state_by_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anvil.model.card import Card

DECK = "d"
CONNECTIONS = 3
OPERATIONS = 40
SHARE_OF_STEPS = 0.03
"""Of all writes and syncs, how many are followed by a cut."""


@dataclass(kw_only=True)
class Told:
    """What was acknowledged. head: number and hash of the last event of all acknowledged commits."""

    head: tuple[int, bytes] = (0, bytes(32))
    made: bool = False
    facts: dict[str, int] = field(default_factory=dict)
    punched: dict[str, tuple[str, int]] = field(default_factory=dict)
    beats: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Life:
    """One cortex on a simulated disk, and those who work on it."""

    disk: SimulatedDisk
    chance: random.Random
    told: Told
    clock: FakeClock = field(default_factory=FakeClock)
    open: list[CortexDB] = field(default_factory=list)
    busy: list[CortexDB] = field(default_factory=list)
    claimed: list[Card] = field(default_factory=list)
    stamped: list[Card] = field(default_factory=list)
    pushed: int = 0
    facts: int = 0

    @property
    def path(self) -> Path:
        """The database file."""
        return self.disk.folder / "cortex.db"

    def live(self) -> None:
        """Open the connections and do the operations."""
        for _ in range(CONNECTIONS):
            self.open.append(CortexDB(self.path, clock=self.clock, disk=self.disk))
            self.told.made = True
        self.disk.on_sync = self.meanwhile
        for _ in range(OPERATIONS):
            self.act(self.chance.choice(OPERATE))
        for db in self.open:
            self.busy.append(db)
            db.close()

    def meanwhile(self) -> None:
        """Somebody waits for a sync: another acts, unless that one would wait for a lock."""
        if self.chance.random() < 0.5 and not any(db._db._holds for db in self.open):
            self.act(self.chance.choice((stamp_again, self.chance.choice(OPERATE))))

    def act(self, operation: Callable[[Life, CortexDB], None]) -> None:
        """One operation of one connection that is not at another; what it returns is acknowledged."""
        free = [db for db in self.open if db not in self.busy]
        if not free:
            return
        db = self.chance.choice(free)
        self.busy.append(db)
        try:
            operation(self, db)
        except LeaseLost:
            pass
        finally:
            self.busy.remove(db)

    def acknowledged(self, db: CortexDB) -> None:
        """All that this connection can see now was acknowledged; but after a failed sync it may see more than that."""
        if not db._db._settlement.doubtful:
            self.told.head = max(self.told.head, db.ledger_head())


# -- operations ------------------------------------------------------------------------------------------------------


def push(life: Life, db: CortexDB) -> None:
    names = [f"c{life.pushed + index}" for index in range(life.chance.randrange(1, 4))]
    life.pushed += len(names)
    cards = [NewCard(id=name, op="run", pld="x" * life.chance.choice((2, 900))) for name in names]
    cards[-1:] = [NewCard(id=names[-1], op="boot", pld="{}", needs=tuple(names[:-1]))]
    db.push_deck(DECK, cards)
    life.acknowledged(db)


def claim(life: Life, db: CortexDB) -> None:
    card = db.pop_card("worker", deck=DECK)
    if card is not None:
        life.claimed.append(card)
        life.acknowledged(db)


def begin_key(life: Life, db: CortexDB) -> None:
    if card := _one(life, life.claimed):
        key = f"key of {card.id}"
        if db.begin_key(key, card):
            life.told.keys[key] = (card.seq, card.attempts)
        life.acknowledged(db)


def stamp(life: Life, db: CortexDB) -> None:
    if card := _one(life, life.claimed, take=True):
        _stamp(life, db, card)


def stamp_and_claim(life: Life, db: CortexDB) -> None:
    if card := _one(life, life.claimed, take=True):
        with db.batch():
            db.log_result(card, stat=Status.PUNCHED, ret=f"ret of {card.id}")
            following = db.pop_card("worker", deck=DECK)
        life.told.punched[card.id] = (f"ret of {card.id}", card.attempts)
        life.stamped.append(card)
        life.claimed += [following] if following else []
        life.acknowledged(db)


def stamp_again(life: Life, db: CortexDB) -> None:
    # Perhaps of a stamp that another connection waits to have synced: this answer, too, must hold.
    if card := _one(life, life.stamped):
        _stamp(life, db, card)


def heartbeat(life: Life, db: CortexDB) -> None:
    if card := _one(life, life.claimed):
        life.clock.pass_seconds(1)
        until = life.clock.boot_us() + 60_000_000
        db.heartbeat(card)
        life.told.beats[card.seq] = (card.lease, card.attempts, until)


def release(life: Life, db: CortexDB) -> None:
    if card := _one(life, life.claimed, take=True):
        db.release_card(card, "enough")
        life.acknowledged(db)


def note(life: Life, db: CortexDB) -> None:
    life.facts += 1
    value = life.facts
    db.set_fact("count", str(value))
    life.told.facts["count"] = max(value, life.told.facts.get("count", 0))


def tell(life: Life, db: CortexDB) -> None:
    db.log_event(int(EventKind.FORGE_STARTED), {"n": life.chance.randrange(1000)})
    life.acknowledged(db)


OPERATE: tuple[Callable[[Life, CortexDB], None], ...] = (
    *(push, push, claim, claim, claim, begin_key, begin_key, stamp, stamp, stamp_and_claim),
    *(stamp_again, stamp_again, heartbeat, release, note, tell),
)


def _one(life: Life, cards: list[Card], *, take: bool = False) -> Card | None:
    if not cards:
        return None
    card = life.chance.choice(cards)
    if take:
        cards.remove(card)
    return card


def _stamp(life: Life, db: CortexDB, card: Card) -> None:
    ret = f"ret of {card.id}"
    if card not in life.stamped:
        life.stamped.append(card)
    db.log_result(card, stat=Status.PUNCHED, ret=ret, result=StoredResult(key=f"key of {card.id}", out=card.id))
    life.told.punched[card.id] = (ret, card.attempts)
    life.acknowledged(db)


# -- judging ---------------------------------------------------------------------------------------------------------


def judge(folder: Path, told: Told) -> str:
    """What is wrong with what a cut left; "" if nothing is."""
    clock = FakeClock()
    clock.id = "boot-2"
    try:
        with CortexDB(folder / "cortex.db", clock=clock) as db:
            return _whole(db, told) or _kept(db, told) or _goes_on(db, told) or _copies(folder)
    except Exception as error:  # noqa: BLE001 (what is damaged may fail in any way)
        return f"{type(error).__name__}: {error}"


def _whole(db: CortexDB, told: Told) -> str:
    if (found := db._db.value("PRAGMA integrity_check")) != "ok":
        return f"damaged: {found}"
    if db._db.rows("PRAGMA foreign_key_check"):
        return "damaged: a reference to nothing"
    db.verify_ledger(head=told.head if told.head[0] else None)
    cards = {(card.deck, card.id): (card.stat, card.attempts) for card in db.cards(DECK)}
    if state_by_ledger(db.events()) != cards:
        return "the cards are not what the ledger says"
    return ""


def _kept(db: CortexDB, told: Told) -> str:
    cards = {card.id: card for card in db.cards(DECK)}
    for name, (ret, attempts) in told.punched.items():
        card = cards.get(name)
        if card is None or (card.stat, card.ret, card.attempts) != (Status.PUNCHED, ret, attempts):
            return f"lost: {name} was punched"
    for name, value in told.facts.items():
        if int(db.fact(name) or 0) < value:
            return f"lost: the fact {name} {value}"
    rows = {row[0]: row[1:] for row in db._db.rows("SELECT seq, stat, lease, attempts, lease_until FROM card_stack")}
    for seq, (lease, attempts, until) in told.beats.items():
        if rows[seq][:3] == (1, lease, attempts) and rows[seq][3] < until:
            return f"lost: a heartbeat of card {seq}"
    running: dict[str, int] = dict(db._db.rows("SELECT key, card FROM running"))
    for key, (seq, attempts) in told.keys.items():
        if (rows[seq][0], rows[seq][2]) == (1, attempts) and running.get(key) != seq:
            return f"lost: {key} is run by card {seq}"
    return ""


def _goes_on(db: CortexDB, told: Told) -> str:
    db.reclaim()
    db.push_card("last", "run", "{}", deck=DECK)
    while card := db.pop_card("after"):
        db.log_result(card, stat=Status.PUNCHED, ret="after")
    db.verify_ledger()
    punched = Counter(json.loads(event.body)["id"] for event in db.events(kind=int(EventKind.CARD_PUNCHED)))
    if twice := [name for name, times in punched.items() if times > 1]:
        return f"doubled: {twice[0]} was punched twice"
    for name, (ret, attempts) in told.punched.items():
        again = db.card(DECK, name)
        if again is None or (again.ret, again.attempts) != (ret, attempts):
            return f"doubled: {name} ran again"
    if set(db.counts(DECK).items()) & {(Status.PENDING, 1), (Status.PROCESSING, 1)}:
        return "the work does not come to its end"
    return ""


def _copies(folder: Path) -> str:
    for path in folder.glob("*.before-*"):
        if path.suffix == ".part":
            continue
        copy = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            if copy.execute("PRAGMA integrity_check").get != "ok":
                return f"the copy {path.name} is damaged"
            if copy.execute("SELECT count(*) FROM card_stack").get != OLD_CARDS:
                return f"the copy {path.name} is not whole"
        except apsw.Error as error:
            return f"the copy {path.name}: {error}"
        finally:
            copy.close()
    return ""


# -- lives -----------------------------------------------------------------------------------------------------------

OLD_CARDS = 5


def old_schema() -> tuple[schema.Migration, ...]:
    """The migrations without the last one of each component that has more than one."""
    last = {each.component: each.number for each in schema.known()}
    return tuple(each for each in schema.known() if each.number == 1 or each.number < last[each.component])


@contextmanager
def templates() -> Iterator[dict[str, Path]]:
    """Folders with what lives begin with."""
    with tempfile.TemporaryDirectory(prefix="anvil-power-", dir=memory()) as top:
        used, old, new = (Path(top) / name for name in ("used", "old", "new"))
        new.mkdir()
        CortexDB(used / "cortex.db").close()
        with mock.patch.object(store, "known", old_schema), CortexDB(old / "cortex.db") as db:
            db.push_deck(DECK, [NewCard(id=f"old{index}", op="run", pld="{}") for index in range(OLD_CARDS)])
        for path in (used / "cortex.lock", old / "cortex.lock"):
            path.unlink()
        yield {"used": used, "old": old, "new": new}


def memory() -> str | None:
    """A folder in memory, where there is one: nothing here needs a real disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


WITHOUT = {
    "all syncs": "a disk that does nothing when it is told to sync",
    "the sync of a commit": "SQLite at NORMAL, and no sync of ours",
    "the sync of what was seen": "a connection that changes nothing does not wait for what another has not synced",
    "the sync of the folder": "names are not synced",
}
"""The negative controls: what is left out, and what is then left."""


@contextmanager
def lacking(what: str) -> Iterator[None]:
    """Take one protection away ("": none)."""
    target, name, stand_in = {
        "": (Settlement, "close", Settlement.close),
        "all syncs": (SimulatedDisk, "lying", True),
        "the sync of a commit": (Settlement, "settle", lambda *_: None),
        "the sync of what was seen": (Settlement, "seen", lambda _: 0),
        "the sync of the folder": (SimulatedDisk, "sync_folder", lambda _: None),
        "the mending": (Settlement, "doubt", lambda _: None),
    }[what]
    with mock.patch.object(target, name, stand_in):
        yield


def life(begins: dict[str, Path], seed: str) -> Counter[str]:
    """Live one life; how many cuts there were, of what kind, and what was wrong."""
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    kind = chance.choice(("used",) * 6 + ("old", "new"))
    with tempfile.TemporaryDirectory(prefix="anvil-power-", dir=memory()) as top:
        folder, image = Path(top) / "home", Path(top) / "left"
        shutil.copytree(begins[kind], folder)
        for path in folder.glob("cortex.db-*"):
            path.unlink()
        disk = SimulatedDisk(folder=folder)
        this = Life(disk=disk, chance=random.Random(chance.random()), told=Told(made=kind != "new"))

        def maybe_cut(_: str) -> None:
            share = SHARE_OF_STEPS if this.open or kind == "used" else SHARE_OF_STEPS * 4
            if chance.random() >= share:
                return
            image.mkdir()
            how = disk.image(image, chance)
            if chance.random() < 0.5 and (folder / "cortex.lock").exists():
                shutil.copy(folder / "cortex.lock", image)
            wrong = judge(image, deepcopy(this.told))
            seen.update(["cuts", f"{kind}: {how}", *([f"wrong: {seed} {kind} {how}: {wrong}"] if wrong else [])])
            shutil.rmtree(image)

        disk.on_step = maybe_cut
        sizes = {"CHECKPOINT_PAGES": chance.choice((30, 100, 4000)), "_SMALLEST": chance.choice((1, 200_000))}
        with mock.patch.dict(vars(walsize), sizes):
            this.live()
        disk.close()
    return seen


def run(cuts: int, seed: int, *, without: str = "", first: int = 0) -> dict[str, Any]:
    """Live lives until there were so many cuts. without: see ``WITHOUT``. first: the number of the first life.

    Plain figures, for JSON; "wrong" has a sentence for each cut after which something was.
    """
    seen: Counter[str] = Counter()
    number = first
    with templates() as begins, lacking(without):
        while seen["cuts"] < cuts:
            seen += life(begins, f"{seed}.{number}")
            number += 1
    wrong = sorted(name.removeprefix("wrong: ") for name in seen if name.startswith("wrong: "))
    kinds = {name: count for name, count in sorted(seen.items()) if not name.startswith("wrong: ") and name != "cuts"}
    return {"cuts": seen["cuts"], "lives": number - first, "kinds": kinds, "wrong": wrong}
