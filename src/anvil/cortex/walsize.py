"""How long the WAL gets: room made ahead of the commits, and checkpoints beside them.

A sync is quick when it only has to write blocks that the file already has: growing it makes the file system's journal
commit as well (measured on ext4: 90 microseconds and 3 milliseconds). So zeros are written behind the end of a WAL
that is in use, ahead of the commits; SQLite takes them for the end of the log, as it takes what an older log left.

SQLite would bring the WAL's pages home inside a commit, with two syncs under the lock. Here most of it is done beside
the commits of others, and only the rest under the lock, so that the next commit begins the WAL anew.
"""

from __future__ import annotations

import os

import apsw

from anvil.cortex.settlement import CHUNK, FRAME, HEADER, File

CHECKPOINT_PAGES = 4000
"""Pages in the WAL (of 4 KiB: 16 MB) from which on it is brought home."""

_REST_PAGES = 500
_SMALLEST = 256 << 10
_STEP = 2 << 20
_MARGIN = 64 << 10
_FREE = 256 << 20


class WalSize:
    """The WAL of one connection. folder: where it is."""

    def __init__(self, db: apsw.Connection, wal: File, folder: str) -> None:
        self._db = db
        self._wal = wal
        self._folder = folder
        self._pages = 0
        self._room = 0
        self._next = CHECKPOINT_PAGES
        db.set_wal_hook(self._committed)

    def make_room(self) -> None:
        """Put zeros behind the end, where they will be wanted soon. Only inside a write transaction."""
        end = HEADER + self._pages * FRAME
        if end < _SMALLEST or end + _MARGIN < self._room:
            return
        size = self._wal.xFileSize()
        self._room = max(size, end + _MARGIN + min(end, _STEP))
        facts = os.statvfs(self._folder)
        if facts.f_bavail * facts.f_frsize < _FREE:
            return
        for offset in range(size, self._room, CHUNK):
            self._wal.xWrite(bytes(min(CHUNK, self._room - offset)), offset)

    @property
    def due(self) -> bool:
        """Whether the WAL is long enough to be brought home."""
        return self._pages >= self._next

    def bring_home(self, mode: int) -> int:
        """Copy what may be copied into the database file, by an SQLITE_CHECKPOINT_…; how many pages are left."""
        pages, done = self._db.wal_checkpoint(mode=mode)
        self.put_off(max(pages, 0))
        return pages - done

    def put_off(self, pages: int | None = None) -> int:
        """Try again when it has grown by half (a reader holds it up, or another does it); what is left, all."""
        pages = self._pages if pages is None else pages
        self._next = max(CHECKPOINT_PAGES, pages + CHECKPOINT_PAGES // 2)
        return pages

    def nearly(self, left: int) -> bool:
        """Whether so little is left that the lock may be held for it."""
        return 0 < left <= _REST_PAGES

    def _committed(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self._pages:  # begun anew
            self._next = CHECKPOINT_PAGES
        self._pages = pages
        return apsw.SQLITE_OK
