"""A copy of a database that is there whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.cortex.disk import Disk


def copy_database(db: apsw.Connection, path: str, disk: Disk) -> None:
    """Copy the whole database to ``path`` (replaced if it is there), synced. Raises apsw.Error, OSError."""
    temporary = f"{path}.part"
    with _gone(temporary, disk):
        disk.make(temporary)
        target = apsw.Connection(temporary, flags=apsw.SQLITE_OPEN_READWRITE, vfs=disk.vfs or None)
        try:
            with target.backup("main", db, "main") as backup:
                backup.step(-1)
        finally:
            target.close()
        disk.sync(temporary)
        disk.replace(temporary, path)
        disk.sync(os.path.dirname(path))


@contextmanager
def _gone(path: str, disk: Disk) -> Iterator[None]:
    # A half-written file of an earlier, killed run is in the way; ours is if we fail.
    for name in (path, f"{path}-journal"):
        disk.remove(name)
    try:
        yield
    except BaseException:
        disk.remove(path)
        raise
