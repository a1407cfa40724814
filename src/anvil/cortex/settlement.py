"""Group commit: which commits are on the disk, and one sync for all that wait for one.

A writer commits without a sync under the fair lock (``synchronous=NORMAL``), lets the lock go, and only then syncs the
WAL. It answers nobody before that sync is done, so an answer means what it means at FULL. Meanwhile others commit and
sync too: the kernel and the disk do that side by side, and one sync covers all that was written before it. That is
sound because the WAL is a log: a commit that builds on another lies behind it, and a sync of the file covers both.

The lock file holds five numbers (little-endian, 8 bytes each):

- begun: the last commit that was about to be made. done: the last that was made. Both are written under the fair lock.
- synced: a commit that is on the disk, and so all before it. Written by anyone after a sync; it may step back, which
  costs a sync.
- doubt: 1 after a sync that failed.
- named: the inode number of the WAL whose name in its folder is on the disk.

Commits are numbered above the first three, so that nothing left in the file by another start of the machine can pass
for a sync. Whoever changes nothing may have seen a commit that is not on the disk yet: it waits for the last one done.

After a failed sync Linux holds the pages for clean although the disk does not have them; a second sync would succeed
and mean nothing. So nobody is answered after one, nothing is copied from the WAL into the database, and whoever comes
next writes again, from memory to the disk, what was not known to be there (``mend``): the WAL, and those pages of the
database that are in the WAL (SQLite begins it anew only when all before it is synced). Byte 2 of the lock file keeps
checkpoints away meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING, Protocol

import apsw

from anvil.cortex.fairlock import ByteLock

if TYPE_CHECKING:
    from collections.abc import Callable

_RECORD = struct.Struct("<5Q")
_NUMBER = struct.Struct("<Q")
_BEGUN, _DONE, _SYNCED, _DOUBT, _NAMED = 0, 8, 16, 24, 32
_CHECKPOINTS = 2
HEADER, PAGE = 32, 4096
FRAME = 24 + PAGE
"""The WAL: a header, then frames, each a page behind a head that begins with its number (sqlite.org/fileformat2.html,
"The Write-Ahead Log"). A cortex has SQLite's default page."""

CHUNK = 1 << 16  # SQLite's unix VFS takes less than 128 KiB at a time


class File(Protocol):
    """A file as the VFS shows it (``apsw.VFSFile``)."""

    def xRead(self, amount: int, offset: int) -> bytes: ...  # noqa: N802, D102 (apsw's names)
    def xWrite(self, data: bytes, offset: int) -> None: ...  # noqa: N802, D102
    def xSync(self, flags: int) -> None: ...  # noqa: N802, D102
    def xFileSize(self) -> int: ...  # noqa: N802, D102
    def xClose(self) -> None: ...  # noqa: N802, D102


class Settlement:
    """The commits of one database, as one connection sees them. Not for several threads."""

    _wal: File

    def __init__(self, fd: int, open_database: Callable[[], File]) -> None:
        """fd: the open lock file. open_database: by the VFS, which knows of SQLite's locks on it."""
        self._fd = fd
        self._open_database = open_database
        self.checkpoints = ByteLock(fd, _CHECKPOINTS)
        self._doubt = False
        """This process's own doubt, in case that the lock file cannot be written."""

    def attach(self, wal: File) -> None:
        """Take the WAL, which is there only once SQLite has made it."""
        self._wal = wal

    def is_named(self, inode: int) -> bool:
        """Whether the name of the WAL with this inode number is known to be on the disk."""
        return self._read()[4] == inode

    def named(self, inode: int) -> None:
        """The WAL's folder has been synced since it has this inode number."""
        self._write(_NAMED, inode)

    # -- under the fair lock, inside a write transaction --------------------------------------------------------

    def begin(self) -> None:
        """A transaction has begun: mend the WAL if a sync of it failed. Raises apsw.IOError if that fails too."""
        if self.doubtful:
            self.mend()

    def committing(self) -> int:
        """The number of the commit about to be made."""
        number = max(self._read()[:3]) + 1
        try:
            os.pwrite(self._fd, _NUMBER.pack(number), _BEGUN)
        except OSError as error:
            kind = apsw.FullError if error.errno in {errno.ENOSPC, errno.EDQUOT} else apsw.IOError
            raise kind(f"the lock file cannot be written: {error.strerror}") from error
        return number

    def committed(self, number: int) -> None:
        """Commit ``number`` is made."""
        self._write(_DONE, number)

    def seen(self) -> int:
        """The number to settle for one who changed nothing: the last commit there may be."""
        begun, done, synced, *_ = self._read()
        if begun > done:  # its maker died, or failed, between the two
            self._write(_DONE, begun)
        return max(begun, done, synced)

    def mend(self) -> None:
        """Write again and sync what a failed sync left in doubt. Raises apsw.IOError if that fails too."""
        self.checkpoints.acquire()
        try:
            done = self.seen()
            size = self._wal.xFileSize()
            for offset in range(0, size, CHUNK):
                _again(self._wal, offset, min(CHUNK, size - offset))
            self._wal.xSync(apsw.SQLITE_SYNC_NORMAL)
            self._mend_database(size)
            self._doubt = False
            self._write(_DOUBT, 0)
            self._write(_SYNCED, done)
        finally:
            self.checkpoints.release()

    def _mend_database(self, wal_size: int) -> None:
        database = self._open_database()
        try:
            size = database.xFileSize()
            heads = (self._wal.xRead(4, offset) for offset in range(HEADER, wal_size - FRAME + 1, FRAME))
            for page in sorted({int.from_bytes(head, "big") for head in heads}):
                if 0 < page * PAGE <= size:
                    _again(database, (page - 1) * PAGE, PAGE)
            database.xSync(apsw.SQLITE_SYNC_NORMAL)
        finally:
            database.xClose()

    # -- anywhere -----------------------------------------------------------------------------------------------

    def settle(self, number: int) -> None:
        """Return when commit ``number`` is on the disk. Raises apsw.IOError if nobody can know whether it is."""
        _, done, synced, *_ = self._read()
        if synced >= number:
            return
        try:
            self._wal.xSync(apsw.SQLITE_SYNC_NORMAL | apsw.SQLITE_SYNC_DATAONLY)
        except BaseException:
            self.doubt()
            raise
        _, _, synced, doubt, _ = self._read()
        if doubt:
            raise apsw.IOError("a sync of the WAL failed")
        if synced < done:
            self._write(_SYNCED, done)

    @property
    def doubtful(self) -> bool:
        """Whether a sync failed since the WAL was last mended: then nothing of it may go into the database file."""
        return self._doubt or bool(self._read()[3])

    def doubt(self) -> None:
        """A sync failed somewhere: nobody may believe in a later one before the WAL was mended."""
        self._doubt = True
        self._write(_DOUBT, 1)

    def close(self) -> None:
        """Give the WAL back."""
        self._wal.xClose()

    def _read(self) -> tuple[int, ...]:
        return _RECORD.unpack(os.pread(self._fd, _RECORD.size, 0).ljust(_RECORD.size, b"\0"))

    def _write(self, offset: int, number: int) -> None:
        # Without it others sync once more than they must; the doubt that cannot be told is kept here.
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, _NUMBER.pack(number), offset)


def _again(file: File, offset: int, amount: int) -> None:
    file.xWrite(file.xRead(amount, offset), offset)
