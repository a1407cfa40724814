"""A glance at a cortex that changes nothing, waits for nothing and opens no more than it must: for completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from anvil.cortex.queries import sql

if TYPE_CHECKING:
    import os

BUSY_MS = 50


def names(path: str | os.PathLike[str], *, cards: bool) -> list[str]:
    """The names of cards, or of forges with the newest first; [] where there is no cortex that can be read.

    cards: all that are on the stack or have a result, in order.
    """
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(BUSY_MS)
            return [str(row[0]) for row in db.execute(sql("card_names" if cards else "forge_names"))]
        finally:
            db.close()
    except apsw.Error:
        return []
