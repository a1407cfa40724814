"""A download in progress: a file that is hashed as it grows, and that one process at a time may hold."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from anvil.errors import AnvilError, DiskFull, EnvironmentLack, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from anvil.model.lock import PinnedFile

UNKNOWN_SIZE_CAP = 1024 * 1024 * 1024
"""What a file may have at most when its lock does not know its size."""


class Part:
    """The bytes of one pinned file so far, in ``FOLDER/SHA256.part``.

    What an earlier run left is hashed and kept when it may be a beginning of the file. Holds a lock on it until
    closed, so that two processes do not write one download. Raises DiskFull, EnvironmentLack.
    """

    def __init__(self, folder: Path, file: PinnedFile, *, stopped: Callable[[], bool]) -> None:
        self._file = file
        self._limit = file.size or UNKNOWN_SIZE_CAP
        self.path = folder / f"{file.sha256}.part"
        self._descriptor = _take(self.path, stopped)
        self._hash = hashlib.sha256()
        self.done = 0
        try:
            self._read_back(stopped)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; the bytes stay for the next run, an empty file does not."""
        if self._descriptor >= 0:
            if self.done == 0:
                self.discard()
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        try:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise translate(error, self.path) from error
        self._hash.update(chunk)
        self.done += len(chunk)

    def restart(self) -> None:
        """Throw the bytes away."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise translate(error, self.path) from error
        self._hash = hashlib.sha256()
        self.done = 0

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._hash.hexdigest()

    @property
    def complete(self) -> bool:
        """Whether the bytes so far are the pinned file."""
        return (not self._file.size or self.done == self._file.size) and self.sha256 == self._file.sha256

    @property
    def overfull(self) -> bool:
        """Whether there are more bytes than the file may have."""
        return self.done > self._limit

    def discard(self) -> None:
        """Remove it from the folder, unless whoever it was delivered to has moved it away already."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.path, follow_symlinks=False)):
                os.unlink(self.path)

    def _read_back(self, stopped: Callable[[], bool]) -> None:
        while chunk := os.read(self._descriptor, 1024 * 1024):
            self._hash.update(chunk)
            self.done += len(chunk)
            if self.overfull:
                break
            if stopped():
                raise Interrupted("the download was stopped")
        # A full .part that is not the file will never become it; a shorter one may.
        if self.overfull or (self.done == self._file.size and not self.complete):
            self.restart()


def _take(path: Path, stopped: Callable[[], bool]) -> int:
    """Open and lock a .part, waiting while another process has it."""
    while not stopped():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise translate(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have finished: then this descriptor is the delivered file, not the .part.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            time.sleep(0.1)
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise translate(error, path) from error
        os.close(descriptor)
    raise Interrupted("the download was stopped")


def translate(error: OSError, path: Path) -> AnvilError:
    """What went wrong with our own disk, in our own words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "there is no space left for downloads",
            where=str(path.parent),
            hint="free some space there, or name another place with --home DIR; the next run goes on",
        )
    return EnvironmentLack(
        f"the downloads folder cannot be used: {error.strerror or error}",
        where=str(path.parent),
        hint="make it writable for you, or name another place with --home DIR",
    )
