"""The queues that ``bench.queue`` lets run: one face for each, every answer given only when it is on the disk.

What a commit holds is not the same for all: a job by itself, or several. Names and docstrings say which.
"""

from __future__ import annotations

import importlib.util
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import apsw

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, Stamp
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anvil.model.card import Card


class Rival(Protocol):
    """A queue as one process sees it."""

    def push(self, numbers: range) -> None:
        """Put these jobs in, each by a call of its own if the queue takes no more at once."""

    def work(self) -> int | None:
        """Go on; how many jobs that finished, or None when there is nothing to do."""


class Anvil:
    """The cortex: a claimed card is stamped and the next one claimed in one commit, as the Processor does."""

    def __init__(self, path: Path) -> None:
        self._db = CortexDB(path / "cortex.db")
        self._worker = secrets.token_hex()
        self._card: Card | None = None

    def push(self, numbers: range) -> None:
        """Push each card by itself."""
        for number in numbers:
            self._db.push_card(f"c{number}", "run", "{}", deck="bench")

    def work(self) -> int | None:
        """Punch the card at hand, if there is one, and claim the next."""
        if self._card is None:
            self._card = self._db.pop_card(self._worker)
            return None if self._card is None else 0
        with self._db.batch():
            self._db.log_result(self._card, stat=Status.PUNCHED, ret="")
            self._card = self._db.pop_card(self._worker)
        return 1


class AnvilApart(Anvil):
    """The cortex: claim and stamp in two calls."""

    def work(self) -> int | None:
        """Claim, then punch."""
        card = self._db.pop_card(self._worker)
        if card is None:
            return None
        self._db.log_result(card, stat=Status.PUNCHED, ret="")
        return 1


class AnvilForge(Anvil):
    """The cortex as a forge uses it: the Architect pushes a deck in one commit, the Processors take card by card."""

    def push(self, numbers: range) -> None:
        """Push all as one deck."""
        self._db.push_deck("bench", [NewCard(id=f"c{number}", op="run", pld="{}") for number in numbers])


class AnvilByMany:
    """The cortex for work that takes less than a commit: ``many`` are pushed, or stamped and claimed, in one."""

    def __init__(self, path: Path, many: int) -> None:
        self._db = CortexDB(path / "cortex.db")
        self._worker = secrets.token_hex()
        self._many = many
        self._cards: list[Card] = []

    def push(self, numbers: range) -> None:
        """Push decks of that many."""
        for first in range(0, len(numbers), self._many):
            some = numbers[first : first + self._many]
            self._db.push_deck("bench", [NewCard(id=f"c{number}", op="run", pld="{}") for number in some])

    def work(self) -> int | None:
        """Punch the cards at hand, if there are any, and claim the next."""
        if not self._cards:
            self._cards = self._db.pop_cards(self._worker, self._many)
            return 0 if self._cards else None
        stamps = [Stamp(card=card, stat=Status.PUNCHED, ret="") for card in self._cards]
        with self._db.batch():
            lost = self._db.log_results(stamps)
            self._cards = self._db.pop_cards(self._worker, self._many)
        return len(stamps) - len(lost)


class Bare:
    """A table in SQLite as one would write it: WAL, FULL, BEGIN IMMEDIATE, SQLite's own busy handler."""

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path / "bare.db"))
        self._db.set_busy_timeout(60_000)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, name TEXT, body TEXT, state INTEGER DEFAULT 0);"
            "CREATE INDEX IF NOT EXISTS ready ON job (id) WHERE state = 0"
        )

    def push(self, numbers: range) -> None:
        """Insert jobs, a transaction each."""
        for number in numbers:
            self._transact("INSERT INTO job (name, body) VALUES (?, '{}')", (f"c{number}",))

    def work(self) -> int | None:
        """Claim in one transaction, finish in another."""
        found = self._transact(
            "UPDATE job SET state = 1 WHERE id = (SELECT min(id) FROM job WHERE state = 0) RETURNING id", ()
        )
        if not found:
            return None
        self._transact("UPDATE job SET state = 2 WHERE id = ?", (found[0][0],))
        return 1

    def _transact(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        self._db.execute("BEGIN IMMEDIATE")
        rows = self._db.execute(statement, values).fetchall()
        self._db.execute("COMMIT")
        return rows


class BareByMany(Bare):
    """The same table, with ``many`` jobs in each transaction."""

    def __init__(self, path: Path, many: int) -> None:
        super().__init__(path)
        self._many = many
        self._jobs: list[tuple[Any, ...]] = []

    def push(self, numbers: range) -> None:
        """Insert that many in a transaction."""
        for first in range(0, len(numbers), self._many):
            self._db.execute("BEGIN IMMEDIATE")
            names = [(f"c{number}",) for number in numbers[first : first + self._many]]
            self._db.executemany("INSERT INTO job (name, body) VALUES (?, '{}')", names)
            self._db.execute("COMMIT")

    def work(self) -> int | None:
        """Finish the jobs at hand and claim the next in one transaction."""
        done = len(self._jobs)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("UPDATE job SET state = 2 WHERE id = ?", self._jobs)
        self._jobs = self._db.execute(
            "UPDATE job SET state = 1"
            " WHERE id IN (SELECT id FROM job WHERE state = 0 ORDER BY id LIMIT ?) RETURNING id",
            (self._many,),
        ).fetchall()
        self._db.execute("COMMIT")
        return done if done or self._jobs else None


class Huey:
    """huey's SqliteHuey with fsync (synchronous=FULL). It takes a job away when it is claimed: no fence, no stamp."""

    def __init__(self, path: Path) -> None:
        from huey import SqliteHuey

        self._queue = SqliteHuey(filename=str(path / "huey.db"), fsync=True, timeout=60, results=False)
        self._task = self._queue.task()(_nothing)

    def push(self, numbers: range) -> None:
        """Enqueue tasks."""
        for number in numbers:
            self._task(number)

    def work(self) -> int | None:
        """Dequeue a task and execute it."""
        task = self._queue.dequeue()
        if task is None:
            return None
        self._queue.execute(task)
        return 1


class LiteQueue:
    """litequeue, told to be synchronous=FULL."""

    def __init__(self, path: Path) -> None:
        from litequeue import LiteQueue as Queue

        self._queue = Queue(str(path / "lite.db"), timeout=60)
        self._queue.conn.execute("PRAGMA synchronous = FULL")

    def push(self, numbers: range) -> None:
        """Put messages."""
        for number in numbers:
            self._queue.put(str(number))

    def work(self) -> int | None:
        """Pop a message and say that it is done."""
        message = self._queue.pop()
        if message is None:
            return None
        self._queue.done(message.message_id)
        return 1


def _nothing(number: int) -> None:
    del number


OURS: dict[str, Callable[[Path], Rival]] = {
    "anvil": Anvil,
    "anvil, claim and stamp apart": AnvilApart,
    "anvil, as a forge uses it": AnvilForge,
    "anvil, 8 a commit": partial(AnvilByMany, many=8),
    "anvil, 32 a commit": partial(AnvilByMany, many=32),
}
"""One card a commit, but for the last three; see the classes."""

PEERS: dict[str, Callable[[Path], Rival]] = {
    "bare SQLite": Bare,
    "bare SQLite, 32 a commit": partial(BareByMany, many=32),
    "huey": Huey,
    "litequeue": LiteQueue,
}
"""One job a commit, which is all that huey and litequeue can, but for the second."""

RIVALS = OURS | PEERS


def lacking() -> dict[str, str]:
    """Peers that cannot be measured here, and why."""
    return {
        name: "not installed: make bench installs it"
        for name in ("huey", "litequeue")
        if importlib.util.find_spec(name) is None
    }
