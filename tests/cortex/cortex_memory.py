"""``python cortex_memory.py DB``: SQLite gets less and less memory inside a transaction; prints what was told.

A process of its own, for SQLite counts its memory only when told so before it starts.
"""

from __future__ import annotations

import sys

import apsw

from anvil.cortex.db_interface import CortexDB
from anvil.errors import EnvironmentLack


def attempt(path: str, room: int) -> str:
    """Push 100 cards in one commit with so many more bytes than an open cortex has."""
    with CortexDB(path) as db:
        apsw.hard_heap_limit(apsw.memory_used() + room)
        try:
            with db.batch():
                for index in range(100):
                    db.push_card(f"{room}.{index}", "run", "x" * 3000)
        except EnvironmentLack as error:
            return f"{error.message}; {error.hint}"
        finally:
            apsw.hard_heap_limit(0)
    return "done"


def main() -> None:
    """Try with all sizes; after each the cortex must be as it was, or have all the cards."""
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, True)
    apsw.initialize()
    path, cards = sys.argv[1], 0
    for room in (1, *(1000 * 2**step for step in range(13))):
        said = attempt(path, room)
        cards += 100 if said == "done" else 0
        with CortexDB(path) as db:
            assert len(db.cards("")) == cards, room
            assert db.verify_ledger() == cards, room
        sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
