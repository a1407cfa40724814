"""What every part of the cortex stands on: the connection, the clock, and rows turned into records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from anvil.cortex.clock import Clock
from anvil.cortex.connection import Connection, Function, Row
from anvil.cortex.ledger_chain import event_hash, text_hash
from anvil.cortex.schema import known, migrate
from anvil.microjson.codec import canonical, parse_canonical
from anvil.model.card import Card, Status

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from anvil.cortex.disk import Disk

# Lists of ids and keys go to statements as JSON; a deck of millions of cards must fit.
_LIST_BYTES = 1 << 30


class Store:
    """An open cortex. Parts of ``CortexDB`` derive from it; each adds the methods of one concern."""

    def __init__(
        self, db_path: str | os.PathLike[str], *, clock: Clock | None = None, disk: Disk | None = None
    ) -> None:
        """Open the cortex at ``db_path``, making it (and its folder, mode 0700) where there is none.

        Raises DatabaseRefused (bad SQLite, network file system, newer or foreign schema, not ours to write),
        IntegrityError (damaged), DiskFull, ForkedConnection. disk: another one than the system's, for tests.
        """
        self._clock = clock or Clock()
        functions = (
            Function(name="anvil_event_hash", call=event_hash, arguments=5),
            Function(name="anvil_sha256", call=text_hash, arguments=1),
            Function(name="anvil_now_us", call=self._clock.utc_us, arguments=0, deterministic=False),
        )
        self._db = Connection(db_path, functions=functions, disk=disk)
        try:
            migrate(self._db, known(), self._clock)
        except BaseException:
            self._db.close()
            raise

    @property
    def path(self) -> str:
        """The database file, absolute."""
        return self._db.path

    def batch(self) -> AbstractContextManager[None]:
        """Make the changes inside one commit: all of them are durable when it ends, or none was made.

        It holds the cortex's write lock: keep it to milliseconds, and never wait for another worker in it.
        """
        return self._db.transaction()

    def close(self) -> None:
        """Close the database. Closing twice is allowed."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def card_of(row: Row) -> Card:
    """A card from the columns seq, id, op, pld, stat, ret, timestamp, deck, key, needs, attempts, lease, hold."""
    return Card(
        seq=row[0],
        id=row[1],
        op=row[2],
        pld=row[3],
        stat=Status(row[4]),
        ret=row[5],
        timestamp=row[6],
        deck=row[7],
        key=row[8],
        needs=tuple(parse_canonical(row[9])) if row[9] != "[]" else (),
        attempts=row[10],
        lease=row[11],
        hold=bool(row[12]),
    )


def json_list(values: Sequence[str]) -> str:
    """``values`` as a JSON array, for a statement's json_each()."""
    return canonical(list(values), max_bytes=_LIST_BYTES).decode()
