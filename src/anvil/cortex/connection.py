"""The one door to SQLite: which versions may be used, how it is opened, and what its errors mean to a person."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw

from anvil.cortex.copying import copy_database
from anvil.cortex.disk import Disk
from anvil.cortex.fairlock import FairLock
from anvil.cortex.filesystem import refuse_network
from anvil.cortex.settlement import Settlement
from anvil.cortex.sqlite_errors import forked, translated, translated_os
from anvil.cortex.walsize import WalSize
from anvil.errors import DatabaseRefused

Row = tuple[Any, ...]
Parameters = Mapping[str, Any] | tuple[Any, ...]

# How long a program that does not take Anvil's lock (a database browser, say) may hold the database.
FOREIGN_WRITER_MS = 30_000

# Databases open in this process, by device and inode: (pid, how many). A forked child finds its parent's here.
_open_files: dict[tuple[int, int], tuple[int, int]] = {}


@dataclass(frozen=True, kw_only=True)
class Function:
    """A Python function that triggers may call. Without it a foreign program cannot write what needs it."""

    name: str
    call: Callable[..., Any]
    arguments: int
    deterministic: bool = True


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can lose or damage commits made through two connections in WAL mode.

    Present from 3.7.0 (the first WAL) to 3.51.2, fixed in 3.51.3, 3.50.7 and 3.44.6 (sqlite.org/wal.html, "The
    WAL-reset bug").
    """
    fixed_branches = {(3, 44): 6, (3, 50): 7}
    branch_fix = fixed_branches.get(version[:2])
    if branch_fix is not None and version[2] >= branch_fix:
        return False
    return (3, 7, 0) <= version < (3, 51, 3)


def refuse_version(text: str) -> None:
    """Raise DatabaseRefused if the SQLite of version ``text`` must not touch a cortex."""
    parts = [int(part) for part in text.split(".")[:3]]
    version = (parts[0], parts[1], parts[2] if len(parts) > 2 else 0)
    if version < (3, 44, 0):
        why = "is too old"
    elif has_wal_reset_bug(version):
        why = "has the WAL-reset bug, which can lose committed cards"
    else:
        return
    raise DatabaseRefused(f"SQLite {text} {why}", where=apsw.__file__ or "apsw", hint="make setup")


class Connection:
    """A connection to one database file: durable, serialised, for all threads of one process.

    Writes happen in ``transaction()`` only, one at a time on the machine (fair lock); reads never wait for other
    processes. Every commit is on the disk when ``transaction()`` ends (``settlement``); a read may see another's
    commit a moment before that. disk: another one than the system's, for tests.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, functions: Iterable[Function] = (), disk: Disk | None = None
    ) -> None:
        refuse_version(apsw.sqlite_lib_version())
        self.path = os.path.abspath(path)
        self._disk = disk or Disk()
        self._pid = os.getpid()
        self._guard = threading.RLock()
        self._depth = 0
        self._holds = False
        self._wrote = False
        self._closed = False
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            refuse_network(folder)
            self._lock = FairLock(os.path.splitext(self.path)[0] + ".lock")
        except OSError as error:
            raise translated_os(error, self.path) from error
        self._settlement = Settlement(self._lock.fd, lambda: self._open_file("", apsw.SQLITE_OPEN_MAIN_DB))
        try:
            self._open(functions)
        except BaseException:
            self._lock.close()
            raise

    # -- reading and writing -------------------------------------------------------------------------------------

    def rows(self, statement: str, parameters: Parameters | None = None) -> list[Row]:
        """All rows of one statement."""
        self._check_process()
        with self._guard:
            try:
                return self._db.execute(statement, parameters).fetchall()
            except apsw.Error as error:
                raise self._translate(error) from error

    def row(self, statement: str, parameters: Parameters | None = None) -> Row | None:
        """The first row, or None."""
        rows = self.rows(statement, parameters)
        return rows[0] if rows else None

    def value(self, statement: str, parameters: Parameters | None = None) -> Any:
        """The first column of the first row, or None."""
        row = self.row(statement, parameters)
        return row[0] if row else None

    def change(self, statement: str, parameters: Parameters | None = None) -> int:
        """Run a changing statement inside ``transaction()``; how many rows it changed itself (not its triggers)."""
        self._check_process()
        with self._guard:
            try:
                self._db.execute(statement, parameters)
                return self._db.changes()
            except apsw.Error as error:
                raise self._translate(error) from error

    def rows_of_many(self, statement: str, parameters: Iterable[Parameters]) -> list[Row]:
        """All rows of one statement, run once for each element."""
        self._check_process()
        with self._guard:
            try:
                return self._db.executemany(statement, parameters).fetchall()
            except apsw.Error as error:
                raise self._translate(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is one durable change, or none; may be nested (then inner ones are savepoints)."""
        self._check_process()
        with self._guard:
            if self._depth:
                with self._savepoint():
                    yield
                return
            try:
                kept = self._holds
                try:
                    self._take()
                    self._db.execute("BEGIN IMMEDIATE")
                    self._depth = 1
                    self._settlement.begin()
                    before = self._db.total_changes()
                    yield
                    commit = self._commit(wrote=self._db.total_changes() != before)
                finally:
                    self._depth = 0
                    try:
                        self._roll_back()
                    finally:
                        self._give(kept=kept)
                self._settlement.settle(commit)
            except apsw.Error as error:
                raise self._translate(error) from error
            if self._wal_size.due:
                self._bring_home()

    @property
    def inside(self) -> bool:
        """Whether a transaction of this connection is open."""
        return self._depth > 0

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """No other user of Anvil's lock writes meanwhile; a transaction may be opened inside."""
        self._check_process()
        with self._guard:
            kept = self._holds
            try:
                self._take()
                yield
            finally:
                self._give(kept=kept)

    def _take(self) -> None:
        # To be called inside the try that ends with _give: an interrupt just after acquire() must still release.
        if not self._holds:
            self._lock.acquire()
            self._holds = True

    def _give(self, *, kept: bool) -> None:
        # kept: it was held before, and stays so. Releasing twice is harmless.
        if not kept:
            self._holds = False
            self._lock.release()

    # -- life ----------------------------------------------------------------------------------------------------

    def copy_to(self, path: str) -> None:
        """A consistent copy of the whole database at ``path`` (replaced if it is there), synced to the disk."""
        try:
            copy_database(self._db, path, self._disk)
        except apsw.Error as error:
            raise self._translate(error) from error
        except OSError as error:
            raise translated_os(error, path) from error

    def close(self) -> None:
        """Bring the WAL's commits home into the database file, unless a reader is in the way, and close.

        A connection that is dropped without this does nothing to the files: that keeps a forked child's copy harmless.
        """
        if os.getpid() != self._pid:
            return
        with self._guard:
            if self._closed:
                return
            try:
                if self._wrote:
                    with self.exclusive():
                        self._db.set_busy_timeout(0)
                        self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.IOError:
                self._settlement.doubt()
            except apsw.Error:
                pass  # the commits are safe in the WAL; the next user brings them home
            finally:
                self._closed = True
                self._settlement.close()
                self._db.close()
                self._lock.close()
                self._forget_file()

    def _open(self, functions: Iterable[Function]) -> None:
        try:
            with self.exclusive():
                made = self._disk.make(self.path)
                self._note_file()
                try:
                    flags = apsw.SQLITE_OPEN_READWRITE
                    self._db = apsw.Connection(self.path, flags=flags, vfs=self._disk.vfs or None)
                    self._configure()
                    self._register(functions)
                    self._run("SELECT 1 FROM sqlite_schema LIMIT 1")  # SQLite makes the WAL at the first look
                    wal = self._open_file("-wal", apsw.SQLITE_OPEN_WAL)
                    self._settlement.attach(wal)
                    self._wal_size = WalSize(self._db, wal, os.path.dirname(self.path))
                    wal_number = os.stat(f"{self.path}-wal").st_ino
                    if made or not self._settlement.is_named(wal_number):
                        self._disk.sync(os.path.dirname(self.path))
                        self._settlement.named(wal_number)
                except BaseException:
                    self._forget_file()
                    raise
        except apsw.Error as error:
            raise self._translate(error) from error
        except OSError as error:
            raise translated_os(error, self.path) from error

    def _configure(self) -> None:
        self._db.set_busy_timeout(FOREIGN_WRITER_MS)
        # Closing never cleans up by itself: the clean-up of the last user is where openers meet "locked".
        self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # Plans do not depend on bound values; otherwise SQLite prepares a statement anew at each use (0.3 ms).
        self._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        self._db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        self._db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        self._db.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        mode = self.value("PRAGMA journal_mode=WAL")
        if mode != "wal":
            raise DatabaseRefused(f"this file system cannot hold a WAL (got {mode!r})", where=self.path)
        for pragma in (
            "synchronous=NORMAL",  # and each commit is synced before it is answered: see settlement
            "foreign_keys=ON",
            "recursive_triggers=ON",  # so that REPLACE meets the triggers that refuse deletion
            "trusted_schema=OFF",
            "temp_store=MEMORY",  # a savepoint keeps old pages aside: beyond 64 KiB that is a file otherwise
            "journal_size_limit=67108864",
        ):
            self._run(f"PRAGMA {pragma}")

    def _register(self, functions: Iterable[Function]) -> None:
        for each in functions:
            self._db.create_scalar_function(
                each.name, each.call, each.arguments, deterministic=each.deterministic, flags=apsw.SQLITE_INNOCUOUS
            )

    def _open_file(self, suffix: str, kind: int) -> apsw.VFSFile:
        # By the VFS, which keeps SQLite's locks on the file when this descriptor of it is closed.
        return apsw.VFSFile(self._disk.vfs, self.path + suffix, [kind | apsw.SQLITE_OPEN_READWRITE, 0])

    def _note_file(self) -> None:
        facts = os.stat(self.path)
        self._file = (facts.st_dev, facts.st_ino)
        pid, users = _open_files.get(self._file, (self._pid, 0))
        if pid != self._pid:
            raise forked(self.path)
        _open_files[self._file] = (pid, users + 1)

    def _forget_file(self) -> None:
        pid, users = _open_files.pop(self._file)
        if users > 1:
            _open_files[self._file] = (pid, users - 1)

    def _roll_back(self) -> None:
        # Whatever the transaction left. Without memory even that may fail: then closing ends it, so that the next
        # writer does not find the database locked by one who no longer holds Anvil's lock.
        if not self._db.in_transaction:
            return
        try:
            self._db.execute("ROLLBACK")
        except apsw.Error:
            if self._db.in_transaction:
                self._db.close(force=True)
            raise

    def _commit(self, *, wrote: bool) -> int:
        # The number of the commit that must be on the disk before anybody is answered.
        if not wrote:
            self._db.execute("COMMIT")
            return self._settlement.seen()
        self._wrote = True
        self._wal_size.make_room()
        number = self._settlement.committing()
        self._db.execute("COMMIT")
        self._settlement.committed(number)
        return number

    def _bring_home(self) -> None:
        try:
            left = self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
            if self._wal_size.nearly(left):
                with self.exclusive():
                    self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.IOError:
            self._settlement.doubt()
        except apsw.Error:
            pass  # the commits are safe in the WAL; the next one tries again

    def _checkpoint(self, mode: int) -> int:
        # How many pages are left in the WAL. One at a time, and none while a failed sync is not mended.
        if not self._settlement.checkpoints.attempt():
            return self._wal_size.put_off()
        try:
            return self._wal_size.put_off() if self._settlement.doubtful else self._wal_size.bring_home(mode)
        finally:
            self._settlement.checkpoints.release()

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        name = f"level_{self._depth}"
        self._run(f"SAVEPOINT {name}")
        self._depth += 1
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended all of it already
                self._db.execute(f"ROLLBACK TO {name}")
                self._db.execute(f"RELEASE {name}")
            raise
        else:
            self._run(f"RELEASE {name}")
        finally:
            self._depth -= 1

    def _run(self, statement: str) -> None:
        try:
            self._db.execute(statement).fetchall()
        except apsw.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: apsw.Error) -> Exception:
        if getattr(error, "extendedresult", 0) in {apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC}:
            self._settlement.doubt()
        return translated(error, self.path)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise forked(self.path)
