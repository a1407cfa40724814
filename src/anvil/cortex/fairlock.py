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


class FairLock:
    """Not for several threads at once, nor across fork: its owner sees to both."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self) -> None:
        """Wait for the lock. A signal's handler may raise through it; then nothing is held."""
        self._set(_TURNSTILE, fcntl.F_WRLCK)
        try:
            self._set(_LOCK, fcntl.F_WRLCK)
        finally:
            self._set(_TURNSTILE, fcntl.F_UNLCK)

    def release(self) -> None:
        """Let the next one in."""
        self._set(_LOCK, fcntl.F_UNLCK)

    def close(self) -> None:
        """Give the descriptor back (and the lock, if it is held)."""
        os.close(self._fd)

    def _set(self, byte: int, kind: int) -> None:
        # struct flock: l_type, l_whence, l_start, l_len, l_pid (must be 0 for this kind of lock)
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))
