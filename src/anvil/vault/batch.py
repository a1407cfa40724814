"""Writing blobs: all bytes first, one sync, then all names, one sync."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from anvil.errors import HashMismatch
from anvil.model.layer import Digest
from anvil.vault.disk import (
    CHUNK,
    REGULAR,
    copy_and_hash,
    little_is_dirty,
    sync_file_system,
    translated,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from anvil.vault.store import Vault
    from anvil.vault.workspace import Workspace

Source = Path | int | BinaryIO
"""A file to keep: its path, an open descriptor (read from its start when regular), or a stream."""

_FEW = 256
_AT_ONCE = 16
"""Up to so many files are synced each by itself, side by side: they share commits of the file system's journal. More
are synced by one syncfs(2), and few are too while nobody writes much: it waits for whatever else is being written to
that file system. Three files and their three folders: 1.9 ms side by side, 4.7 ms one after the other, 0.7 ms by two
syncfs. Its descriptor is older than what it syncs, so that it tells of every failure (since Linux 5.8)."""

_AT_HAND = 64
"""So many files get their names before other processes are let by."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW_BLOB = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Batch:
    """Blobs that become visible and durable together, when the ``with`` block ends without an error.

    A blob that is already in the vault is not written again, but its name is made durable with the others: the
    process that wrote it may not have come so far.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._blobs = str(vault.blobs)
        self._work: Workspace | None = None
        self._new: dict[Digest, str] = {}
        self._old: set[Digest] = set()
        self._seen: list[str] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with translated("writing into the vault", self._vault.root):
                    self._commit()
        finally:
            if self._work is not None:
                self._work.close()
                self._work = None

    def put_bytes(self, data: bytes) -> Digest:
        """Keep some bytes."""
        return self._put_small(data, Digest(hashlib.sha256(data).hexdigest()))

    def _put_small(self, data: bytes, digest: Digest) -> Digest:
        if self._known(digest, len(data)):
            return digest
        with translated("writing into the vault", self._vault.root):
            name = self._name()
            fd = os.open(name, _NEW, 0o444, dir_fd=self._folder())
            try:
                write_all(fd, data)
                self._vault.generations.mark_new(fd)
                self._seen.append(_identity(digest, os.fstat(fd)))
            finally:
                os.close(fd)
        self._new[digest] = name
        return digest

    def put_file(self, source: Source, *, expect: Digest | None = None) -> Digest:
        """Keep a file: a path, an open descriptor (a regular one from its start), or what a stream still has.

        Raises HashMismatch when ``expect`` is given and the bytes have another sha256.
        """
        with _stream(source) as stream:
            fd = _regular(stream, whole=isinstance(source, int))
            if fd is None:
                return self._put_stream(stream, expect)
            return self.put_descriptor(fd, os.fstat(fd).st_size, expect=expect)

    def _put_stream(self, stream: BinaryIO, expect: Digest | None) -> Digest:
        hasher = hashlib.sha256()
        size = 0
        with translated("writing into the vault", self._vault.root):
            name = self._name()
            fd = os.open(name, _NEW, 0o444, dir_fd=self._folder())
            try:
                while piece := stream.read(CHUNK):
                    hasher.update(piece)
                    write_all(fd, piece)
                    size += len(piece)
            finally:
                os.close(fd)
        return self._keep(name, Digest(hasher.hexdigest()), size, expect)

    def put_descriptor(self, fd: int, size: int, *, expect: Digest | None = None) -> Digest:
        """Keep the first ``size`` bytes of an open regular file, holes as holes, extents shared where possible.

        Raises HashMismatch when that is not ``expect``.
        """
        if size <= CHUNK:
            data = _read_small(fd, size)
            digest = Digest(hashlib.sha256(data).hexdigest())
            _compare(digest, expect)
            return self._put_small(data, digest)
        with translated("writing into the vault", self._vault.root):
            name = self._name()
            target = os.open(name, _NEW_BLOB, 0o444, dir_fd=self._folder())
            try:
                digest = Digest(copy_and_hash(fd, target, size))
            finally:
                os.close(target)
        return self._keep(name, digest, size, expect)

    def _keep(self, name: str, digest: Digest, size: int, expect: Digest | None) -> Digest:
        """Take a written file in, or drop it: it is here already, or not what it should be."""
        try:
            _compare(digest, expect)
        except HashMismatch:
            os.unlink(name, dir_fd=self._folder())
            raise
        if self._known(digest, size):
            os.unlink(name, dir_fd=self._folder())
        else:
            self._take(name, digest)
        return digest

    def _take(self, name: str, digest: Digest) -> None:
        fd = os.open(name, REGULAR, dir_fd=self._folder())
        try:
            self._vault.generations.mark_new(fd)
            self._seen.append(_identity(digest, os.fstat(fd)))
        finally:
            os.close(fd)
        self._new[digest] = name

    def _known(self, digest: Digest, size: int) -> bool:
        if digest in self._new or digest in self._old:
            return True
        path = f"{self._blobs}/{digest[:2]}/{digest[2:]}"
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False  # it was cut short: the good one takes its place
        if not self._vault.generations.mark(path, status):
            return False  # collected as garbage a moment ago
        identity = _identity(digest, status)
        if not self._vault.are_durable((identity,)):
            self._old.add(digest)
            self._seen.append(identity)
        return True

    def _folder(self) -> int:
        if self._work is None:
            self._work = self._vault.workspace()
        return self._work.fd

    def _name(self) -> str:
        self._count += 1
        return str(self._count)

    def _commit(self) -> None:
        """Bytes durable, then names visible, then names durable: a blob that can be seen is whole."""
        blobs = os.open(self._vault.blobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folders = {digest[:2] for digest in (*self._new, *self._old)}
            if not self._vault.are_durable(folders):
                folders.add(".")
            if self._new:
                _sync_each(list(self._new.values()), self._folder())
                for folder in {digest[:2] for digest in self._new}:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, 0o700, dir_fd=blobs)
                names = list(self._new.items())
                for start in range(0, len(names), _AT_HAND):
                    with self._vault.generations.hand():
                        for digest, name in names[start : start + _AT_HAND]:
                            self._vault.generations.name(name, self._folder(), f"{digest[:2]}/{digest[2:]}", blobs)
            _sync_each(sorted(folders), blobs)
        finally:
            os.close(blobs)
        self._vault.remember_durable((*self._seen, *folders))


def _identity(digest: Digest, status: os.stat_result) -> str:
    """What is remembered of a durable blob: another file of the same bytes, written when this one was gone, is not."""
    return f"{digest}{status.st_ino:x}.{status.st_mtime_ns % 1_000_000_000:x}"  # whole seconds: see generation.py


@contextlib.contextmanager
def _stream(source: Source) -> Iterator[BinaryIO]:
    """A source as a binary stream; closed at the end only if it was opened here."""
    if isinstance(source, Path):
        with translated("reading a file", source), open(source, "rb") as stream:
            yield stream
    elif isinstance(source, int):
        with open(source, "rb", closefd=False) as stream:
            yield stream
    else:
        yield source


def _regular(stream: BinaryIO, *, whole: bool) -> int | None:
    """The descriptor of a stream that is a regular file, to be read from its start."""
    try:
        fd = stream.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode) and (whole or stream.tell() == 0):
            return fd
    except (AttributeError, OSError, io.UnsupportedOperation):
        return None
    return None


def _read_small(fd: int, size: int) -> bytes:
    data = os.pread(fd, size, 0)
    while len(data) < size:
        piece = os.pread(fd, size - len(data), len(data))
        if not piece:
            break
        data += piece
    return data


def _compare(digest: Digest, expect: Digest | None) -> None:
    if expect is not None and digest != expect:
        raise HashMismatch(
            f"the bytes have sha256 {digest}, pinned is {expect}",
            hint="the file was changed on its way: fetch it again, or look at the lock",
        )


def _sync_each(names: list[str], folder: int) -> None:
    """Make some files or folders of a folder durable."""
    if len(names) == 1:
        _sync_path(names[0], folder)
    elif len(names) > _FEW or (names and little_is_dirty()):
        sync_file_system(folder)
    elif names:
        try:
            with ThreadPoolExecutor(min(_AT_ONCE, len(names))) as pool:
                for _ in pool.map(_sync_path, names, [folder] * len(names)):
                    pass
        except RuntimeError:  # no memory, or no process, is left for a thread
            sync_file_system(folder)


def _sync_path(name: str, folder: int) -> None:
    fd = os.open(name, REGULAR, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
