"""What SQLite's errors, and those of making its files, mean to a person: the door's translations."""

from __future__ import annotations

import errno
import os

import apsw

from anvil.cortex.faults import CortexBusy, ForkedConnection
from anvil.errors import AnvilError, DatabaseRefused, DiskFull, EnvironmentLack, IntegrityError, Interrupted

# The next step when the file itself is no good; no command can mend it.
RESTORE = "restore a copy of cortex.db, or begin another with --home DIR"

ANOTHER_DISK = "look at the kernel's log (dmesg), or choose another disk with --home DIR"


def translated(error: apsw.Error, path: str) -> Exception:
    """What ``error`` means to a person, as one of ours; a mistake in our own SQL stays as it is."""
    said = str(error)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        hint = "close the other program that has the database open (a database browser?), then run the command again"
        return CortexBusy("another program holds the cortex", where=path, hint=hint)
    if isinstance(error, apsw.FullError) or (_may_be_space(error) and _no_space(path)):
        return disk_full(path)
    if isinstance(error, apsw.IOError):
        return EnvironmentLack(f"the disk failed: {said}", where=path, hint=ANOTHER_DISK)
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
    if isinstance(error, apsw.ConnectionClosedError):
        hint = "free some memory, then run the command again"
        return EnvironmentLack("the cortex was closed, for a change could not be undone", where=path, hint=hint)
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
    if error.errno == errno.EIO:
        return EnvironmentLack(f"the disk failed: {error.strerror}", where=path, hint=ANOTHER_DISK)
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


def forked(path: str) -> ForkedConnection:
    """The error for a child that was forked while the cortex was open."""
    hint = "start child processes with exec (subprocess, or multiprocessing's spawn), or fork before opening"
    return ForkedConnection("this process was forked from one that had the cortex open", where=path, hint=hint)
