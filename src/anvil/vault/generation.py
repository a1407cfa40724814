"""What a garbage collection must leave alone although nothing refers to it yet: what somebody is at work with.

Whoever works with the vault holds a *pin* with a number, and marks every blob and tree that it writes, or finds and
relies on, with that number or a higher one. A collection takes away only what has a lower mark than every pin of a
living process has. The numbers are seconds since 1970 in ordinary times, but none that is handed out is lower than the
one of the last collection: the *generation*. So neither a clock that jumps nor a slow or stopped process loses
anything. A mark is the whole seconds of the file's own time (mtime), so it costs one call and no space; the
nanoseconds are the file's own, for others to know it again.

Two locks keep this true. The *hand* is taken for microseconds: to mark, to pin, and by a collection to take some files
away. So a blob that was found and marked stays, and one that is gone is not found. The *gate* is for results: whoever
relies on one shares it until the card that uses it is on the stack, and a collection forgets results when nobody does.

::

    root/generation   empty; its time is the number of the last collection; locked (flock) by the one at work
    root/pins/<hex>   one for each process at work, locked by it (flock); its time is its number
    root/gate         empty; its bytes are locked: 0 and 1 are turnstile and lock of the gate, 2 and 3 of the hand

Both come before the cortex's own lock, and the gate before the hand: take none inside a transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anvil.errors import AnvilError
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 2.0
"""Seconds that a collection keeps newcomers out while it waits for those who hold the gate; then it lets them by, and
waits again. Somebody who was stopped (SIGSTOP) in there holds up the collection, and nobody else."""

_GATE, _HAND = 0, 2
_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_SECOND = 1_000_000_000
_POLL_SECONDS = 0.002
_PAUSE_SECONDS = 0.5


class Generations:
    """Marks, pins and locks of one vault, as one process sees them. For all threads of it, and not across a fork."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = str(root / "generation")
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._locks = -1
        self._gate_users = 0
        self._hand_users = 0
        self._pin = -1
        self._pin_path = ""
        self._number = 0

    def prepare(self) -> None:
        """Make what is not there yet."""
        (self._root / "pins").mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, _FILE | os.O_EXCL, 0o600))

    # --- for those at work -----------------------------------------------------------------------------------

    def pinned(self) -> int:
        """The number of this process's present work, which begins now if it had not begun."""
        self._after_fork()
        if self._pin < 0:
            with self.hand(), translated("using the vault", self._root):
                self._pin_path = str(self._root / "pins" / secrets.token_hex(8))
                self._pin = os.open(self._pin_path, _FILE | os.O_EXCL, 0o600)
                fcntl.flock(self._pin, fcntl.LOCK_EX)
                self._set_pin()
        return self._number

    def renew(self) -> None:
        """Say that nothing is in hand, so that the pin moves on."""
        self._after_fork()
        if self._pin >= 0 and self._now() != self._number:
            with self.hand():
                self._set_pin()

    def unpin(self) -> None:
        """Say that this process's work with the vault is over, for now."""
        self._after_fork()
        if self._pin >= 0:
            with contextlib.suppress(OSError):  # what cannot be taken away now is taken away by the next collection
                os.unlink(self._pin_path)
            os.close(self._pin)
            self._pin = -1

    def close(self) -> None:
        """``unpin``, and let go of the locks' file; it is opened again when it is wanted."""
        self.unpin()
        with self._mutex:
            if self._locks >= 0 and not self._gate_users + self._hand_users:
                os.close(self._locks)
                self._locks = -1

    def mark(self, path: str, status: os.stat_result) -> bool:
        """Rely on a blob, whose status was just read, from now on; False when it is gone."""
        number = self.pinned()
        if int(status.st_mtime) >= number:
            return True
        with self.hand():
            return _raise_mark(path, number)

    def mark_new(self, fd: int) -> None:
        """Mark an open file that is being written."""
        moment = time.time_ns()
        os.utime(fd, ns=(moment, self.pinned() * _SECOND + moment % _SECOND))

    def name(self, file: str, folder: int, name: str, target: int) -> None:
        """Give a marked new file its name, in place of an equal one, whose mark stays if it is higher; in the hand."""
        with contextlib.suppress(FileNotFoundError):
            _raise_mark(file, int(os.stat(name, dir_fd=target, follow_symlinks=False).st_mtime), folder)
        os.rename(file, name, src_dir_fd=folder, dst_dir_fd=target)

    def mark_used(self, path: str) -> bool:
        """Rely on a cached tree from now on, and note the time of its last use; False when it is gone."""
        number = self.pinned()
        with self.hand():
            return _raise_mark(path, number, used=time.time_ns())

    @contextmanager
    def hand(self) -> Iterator[None]:
        """Nobody else marks, pins or takes away meanwhile: for microseconds, and never while waiting for something."""
        self._after_fork()
        with self._mutex:
            if not self._hand_users:
                self._lock(_HAND, fcntl.F_WRLCK)
            self._hand_users += 1
            try:
                yield
            finally:
                self._hand_users -= 1
                if not self._hand_users:
                    self._set(_HAND + 1, fcntl.F_UNLCK)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """No result is forgotten by a collection meanwhile, which waits: to be short, but for what must be."""
        self._after_fork()
        with self._mutex:
            if not self._gate_users:
                self._lock(_GATE, fcntl.F_RDLCK)
            self._gate_users += 1
        try:
            yield
        finally:
            with self._mutex:
                self._gate_users -= 1
                if not self._gate_users:
                    self._set(_GATE + 1, fcntl.F_UNLCK)

    # --- for a collection ------------------------------------------------------------------------------------

    @contextmanager
    def only_collection(self) -> Iterator[None]:
        """Be the one that collects, or that must see nothing vanish meanwhile. Raises AnvilError when there is one."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnvilError(
                    "another process collects garbage here, or verifies the vault",
                    where=str(self._root),
                    hint="wait until it has ended, then run the command again",
                ) from None
            yield
        finally:
            os.close(fd)

    def begin(self, highest: int) -> int:
        """Begin a collection. Gives the lowest number that somebody is at work with: what has a lower mark may go.

        highest: of all marks that were seen; those of a clock that was wrong, too, are then of the past.
        """
        with self.hand():
            number = max(self._generation() + 1, highest + 1, int(time.time()))
            os.utime(self._path, (number, number))
            return min([number, *self._pins()])

    def lowest(self, highest: int) -> int:
        """What ``begin`` would give, without beginning anything."""
        with self.hand():
            return min([max(highest, self._now()) + 1, *self._pins()])

    @contextmanager
    def alone(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Nobody relies on a result that is not on the stack meanwhile: for moments only.

        waiting: called now and then while somebody else is in there; may raise.
        """
        self._open()
        self._until_alone(waiting)
        try:
            yield
        finally:
            self._set(_GATE + 1, fcntl.F_UNLCK)

    def _until_alone(self, waiting: Callable[[], None]) -> None:
        while True:
            self._set(_GATE, fcntl.F_WRLCK)
            try:
                end = time.monotonic() + PATIENCE
                while time.monotonic() < end:
                    if self._try(_GATE + 1, fcntl.F_WRLCK):
                        return
                    time.sleep(_POLL_SECONDS)
            finally:
                self._set(_GATE, fcntl.F_UNLCK)
            waiting()
            time.sleep(_PAUSE_SECONDS)

    def _pins(self) -> Iterator[int]:
        for entry in list(os.scandir(self._root / "pins")):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)  # its process is gone
                except BlockingIOError:
                    yield int(os.fstat(fd).st_mtime)
                finally:
                    os.close(fd)

    # --- within ----------------------------------------------------------------------------------------------

    def _generation(self) -> int:
        return int(os.stat(self._path).st_mtime)

    def _now(self) -> int:
        return max(self._generation(), int(time.time()))

    def _set_pin(self) -> None:
        self._number = self._now()
        os.utime(self._pin, (self._number, self._number))

    def _lock(self, first: int, kind: int) -> None:
        """Take a lock in turn: whoever waits holds its turnstile, so that nobody takes it twice before them."""
        self._open()
        self._set(first, fcntl.F_WRLCK)
        try:
            self._set(first + 1, kind)
        finally:
            self._set(first, fcntl.F_UNLCK)

    def _open(self) -> None:
        if self._locks < 0:
            with translated("using the vault", self._root):
                self._locks = os.open(self._root / "gate", _FILE, 0o600)

    def _set(self, byte: int, kind: int) -> None:
        fcntl.fcntl(self._locks, fcntl.F_OFD_SETLKW, _flock(byte, kind))

    def _try(self, byte: int, kind: int) -> bool:
        try:
            fcntl.fcntl(self._locks, fcntl.F_OFD_SETLK, _flock(byte, kind))
        except BlockingIOError:
            return False
        return True

    def _after_fork(self) -> None:
        """A forked child has nothing of its parent's in hand, and shares no lock with it."""
        if self._pid == os.getpid():
            return
        for fd in (self._pin, self._locks):
            if fd >= 0:
                os.close(fd)
        self._pin = self._locks = -1
        self._gate_users = self._hand_users = 0
        self._mutex = threading.RLock()
        self._pid = os.getpid()


def _raise_mark(path: str, number: int, folder: int | None = None, *, used: int = 0) -> bool:
    """Set a file's mark, unless it is higher, and its last use if that is given; False when it is gone."""
    try:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
        mark = max(number, int(status.st_mtime)) * _SECOND + status.st_mtime_ns % _SECOND
        os.utime(path, ns=(used or status.st_atime_ns, mark), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _flock(byte: int, kind: int) -> bytes:
    # struct flock: l_type, l_whence, l_start, l_len, l_pid (must be 0 for locks of an open file)
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
