"""A fair lock between processes, held for one short write transaction.

SQLite's own waiting is a back-off by sleeping: whoever polls at the right moment wins, and with several writers that
commit with a sync each, some wait for seconds. Here waiters sleep in the kernel in the order they came. Two bytes of
one file are locked with open-file-description locks (fcntl(2)): byte 0 is the turnstile, byte 1 the lock. A waiter
holds the turnstile while it waits for the lock, so whoever lets the lock go cannot take it again before the waiter
has had it. The kernel drops both when the process dies: nobody waits for the dead.
"""

from __future__ import annotations

import fcntl
import os
import struct

_TURNSTILE, _LOCK = 0, 1
_ATTEMPTS = 50


class FairLock:
    """Not for several threads at once, nor across fork: its owner sees to both. fd: the open lock file."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turnstile = ByteLock(self.fd, _TURNSTILE)
        self._lock = ByteLock(self.fd, _LOCK)

    def acquire(self) -> None:
        """Wait for the lock. A signal's handler may raise through it; then nothing is held."""
        self._turnstile.acquire()
        try:
            # Its holder is done within a tenth of a millisecond, as a rule: going to sleep would take longer.
            for _ in range(_ATTEMPTS):
                if self._lock.attempt():
                    break
            else:
                self._lock.acquire()
        finally:
            self._turnstile.release()

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()

    def close(self) -> None:
        """Give the descriptor back (and the lock, if it is held)."""
        os.close(self.fd)


class ByteLock:
    """One byte of an open file, locked against every other opening of that file."""

    def __init__(self, fd: int, byte: int) -> None:
        self._fd = fd
        self._take = _flock(fcntl.F_WRLCK, byte)
        self._free = _flock(fcntl.F_UNLCK, byte)

    def acquire(self) -> None:
        """Wait for it."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, self._take)

    def attempt(self) -> bool:
        """Take it if it is free; whether it was."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, self._take)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let it go; harmless when it is not held."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, self._free)


def _flock(kind: int, byte: int) -> bytes:
    # struct flock: l_type, l_whence, l_start, l_len, l_pid (must be 0 for this kind of lock)
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
