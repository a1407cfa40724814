"""The one door to SQLite: which versions may be used, how it is opened, and what its errors mean to a person."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw

from anvil.cortex.fairlock import FairLock
from anvil.cortex.faults import CortexBusy, ForkedConnection
from anvil.cortex.filesystem import refuse_network
from anvil.errors import AnvilError, DatabaseRefused, DiskFull, EnvironmentLack, IntegrityError, Interrupted

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]

# How long a program that does not take Anvil's lock (a database browser, say) may hold the database.
FOREIGN_WRITER_MS = 30_000

# The next step when the file itself is no good; no command can mend it.
RESTORE = "restore a copy of cortex.db, or begin another with --home DIR"

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


def translated(error: apsw.Error, path: str) -> Exception:
    """What ``error`` means to a person, as one of ours; a mistake in our own SQL stays as it is."""
    said = str(error)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        hint = "close the other program that has the database open (a database browser?), then run the command again"
        return CortexBusy("another program holds the cortex", where=path, hint=hint)
    if isinstance(error, apsw.FullError) or (_may_be_space(error) and _no_space(path)):
        return disk_full(path)
    if isinstance(error, apsw.IOError):
        hint = "look at the kernel's log (dmesg), or choose another disk with --home DIR"
        return EnvironmentLack(f"the disk failed: {said}", where=path, hint=hint)
    if isinstance(error, apsw.CorruptError):
        return IntegrityError(f"the cortex is damaged: {said}", where=path, hint=RESTORE)
    if isinstance(error, apsw.NotADBError | apsw.FormatError):
        hint = "move the file away, or choose another home with --home DIR"
        return DatabaseRefused("this file is not a cortex", where=path, hint=hint)
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError | apsw.CantOpenError | apsw.AuthError):
        hint = f"is the home yours? ls -ld {os.path.dirname(path)}"
        return DatabaseRefused(f"the cortex cannot be opened for writing: {said}", where=path, hint=hint)
    if isinstance(error, apsw.ConstraintError):
        return IntegrityError(f"the cortex refuses this change: {said}", where=path)
    if isinstance(error, apsw.NoMemError):
        return EnvironmentLack("no memory left for the database", where=path, hint="free some memory, then go on")
    if isinstance(error, apsw.InterruptError):
        return Interrupted("the database was interrupted", where=path)
    return error


def disk_full(path: str) -> DiskFull:
    """The error for a full disk under ``path``; nothing committed is lost by it."""
    return DiskFull(
        "no space left for the cortex; the change was not made, everything before it is safe",
        where=path,
        hint="free some space, or name a larger disk with --home DIR",
    )


def translated_os(error: OSError, path: str) -> AnvilError:
    """What failed when the files of the cortex were made."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return disk_full(path)
    hint = f"is the home yours? ls -ld {os.path.dirname(path)}"
    return DatabaseRefused(f"the cortex cannot be opened for writing: {error.strerror}", where=path, hint=hint)


def _may_be_space(error: apsw.Error) -> bool:
    # Growing the -shm file and creating files fail with other codes than "full" when the disk is.
    return isinstance(error, apsw.IOError | apsw.CantOpenError)


def _no_space(path: str) -> bool:
    try:
        facts = os.statvfs(os.path.dirname(path))
    except OSError:
        return False
    no_inodes = facts.f_files > 0 and facts.f_favail == 0
    return no_inodes or facts.f_bavail * facts.f_frsize < 64 * 1024


class Connection:
    """A connection to one database file: durable, serialised, for all threads of one process.

    Writes happen in ``transaction()`` only, one at a time on the machine (fair lock); reads never wait for other
    processes. Every commit is on the disk when ``transaction()`` ends (WAL, synchronous=FULL).
    """

    def __init__(self, path: str | os.PathLike[str], *, functions: Iterable[Function] = ()) -> None:
        refuse_version(apsw.sqlite_lib_version())
        self.path = os.path.abspath(path)
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
        self.rows(statement, parameters)
        return self._db.changes()

    def change_many(self, statement: str, parameters: Iterable[Any]) -> None:
        """Run a changing statement once for each element."""
        self._check_process()
        with self._guard:
            try:
                for _ in self._db.executemany(statement, parameters):
                    pass
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
            with self.exclusive():
                try:
                    self._run("BEGIN IMMEDIATE")
                    self._depth = 1
                    yield
                    self._wrote = True
                    self._run("COMMIT")
                finally:
                    self._depth = 0
                    if self._db.in_transaction:
                        self._run("ROLLBACK")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """No other user of Anvil's lock writes meanwhile; a transaction may be opened inside."""
        self._check_process()
        with self._guard:
            if self._holds:
                yield
                return
            try:
                # Inside the try: an interrupt just after acquire() must still release. Releasing twice is harmless.
                self._lock.acquire()
                self._holds = True
                yield
            finally:
                self._holds = False
                self._lock.release()

    # -- life ----------------------------------------------------------------------------------------------------

    def copy_to(self, path: str) -> None:
        """A consistent copy of the whole database at ``path`` (replaced if it is there), synced to the disk."""
        temporary = f"{path}.part"
        try:
            with _gone(temporary):
                os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                target = apsw.Connection(temporary, flags=apsw.SQLITE_OPEN_READWRITE)
                try:
                    with target.backup("main", self._db, "main") as backup:
                        backup.step(-1)
                finally:
                    target.close()
                _sync(temporary)
                os.replace(temporary, path)
                _sync(os.path.dirname(path))
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
                        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except apsw.Error:
                pass  # the commits are safe in the WAL; the next user brings them home
            finally:
                self._closed = True
                self._db.close()
                self._lock.close()
                self._forget_file()

    def _open(self, functions: Iterable[Function]) -> None:
        try:
            with self.exclusive():
                made = self._make_file()
                self._note_file()
                try:
                    self._db = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE)
                    self._configure()
                    self._register(functions)
                except BaseException:
                    self._forget_file()
                    raise
                if made:
                    _sync(os.path.dirname(self.path))
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
            "synchronous=FULL",
            "foreign_keys=ON",
            "recursive_triggers=ON",  # so that REPLACE meets the triggers that refuse deletion
            "trusted_schema=OFF",
            "journal_size_limit=67108864",
        ):
            self._run(f"PRAGMA {pragma}")

    def _register(self, functions: Iterable[Function]) -> None:
        for each in functions:
            self._db.create_scalar_function(
                each.name, each.call, each.arguments, deterministic=each.deterministic, flags=apsw.SQLITE_INNOCUOUS
            )

    def _make_file(self) -> bool:
        # Only when it is missing: closing a descriptor of an open database would drop SQLite's locks on it.
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        return True

    def _note_file(self) -> None:
        facts = os.stat(self.path)
        self._file = (facts.st_dev, facts.st_ino)
        pid, users = _open_files.get(self._file, (self._pid, 0))
        if pid != self._pid:
            raise _forked(self.path)
        _open_files[self._file] = (pid, users + 1)

    def _forget_file(self) -> None:
        pid, users = _open_files.pop(self._file)
        if users > 1:
            _open_files[self._file] = (pid, users - 1)

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
        return translated(error, self.path)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise _forked(self.path)


def _forked(path: str) -> ForkedConnection:
    hint = "start child processes with exec (subprocess, or multiprocessing's spawn), or fork before opening"
    return ForkedConnection("this process was forked from one that had the cortex open", where=path, hint=hint)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _gone(path: str) -> Iterator[None]:
    # A half-written file of an earlier, killed run is in the way; ours is if we fail.
    for name in (path, f"{path}-journal"):
        _remove(name)
    try:
        yield
    except BaseException:
        _remove(path)
        raise


def _remove(path: str) -> None:
    try:
        os.remove(path)
    except FileNotFoundError:
        return
