"""The content store: immutable blobs, each named by the sha256 of its bytes.

::

    root/format            the layout's version; a newer one is refused
    root/blobs/ab/<62>     one blob, 0444: never changed, only added and removed
    root/trees/<40>/       disposable directories made from blobs (see layers.py)
    root/tmp/<random>/     what is being written; locked by its writer, swept when the writer is gone
    root/generation, pins/, gate   what a garbage collection must leave alone (see generation.py)

A blob is visible only when all its bytes are durable, and a batch returns only when its names are durable too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from anvil.errors import EnvironmentLack, IntegrityError
from anvil.vault.attic import Attic
from anvil.vault.batch import Batch, Source
from anvil.vault.digests import MEND, is_digest
from anvil.vault.disk import REGULAR, foreign, hash_file, sync_file_system, translated
from anvil.vault.generation import Generations
from anvil.vault.workspace import Workspace, make_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anvil.model.layer import Digest

FORMAT = 1
_REMEMBERED = 500_000


class Vault:
    """The content store of one home.

    root: made, with its folders, when it is not there. owner: the host uid that trees below an overlay belong to
    when Anvil runs as root; None, or without root: whoever runs Anvil. Several processes may use one vault at once.
    """

    def __init__(self, root: Path, *, owner: int | None = None) -> None:
        self.root = root
        self.owner = owner if os.geteuid() == 0 else None
        self.blobs = root / "blobs"
        self.trees = root / "trees"
        self.tmp = root / "tmp"
        self.generations = Generations(root)
        self._durable: set[str] = set()
        self._attic = Attic(self.tmp)
        self._open_or_make()

    def _open_or_make(self) -> None:
        version = self.root / "format"
        with translated("opening the vault", self.root):
            if not version.is_file():
                for folder in (self.root, self.blobs, self.trees, self.tmp):
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self.workspace() as work:
                    fresh = work.path / "format"
                    fresh.write_text(f"{FORMAT}\n", encoding="ascii")
                    _sync(fresh)
                    # of several makers at once each replaces the file by an equal one
                    fresh.replace(version)
                _sync(self.root)
            self.generations.prepare()
            for folder in (self.trees, self.tmp):  # they hold nothing that must be kept, and may be deleted
                folder.mkdir(mode=0o700, exist_ok=True)
            text = version.read_text(encoding="ascii", errors="replace").strip()
        if text != str(FORMAT):
            newer = text.isdigit() and int(text) > FORMAT
            mend = "use the Anvil that made it" if newer else "restore the file"
            raise EnvironmentLack(
                f"the vault has format {text[:20]!r}, this Anvil knows {FORMAT}",
                where=str(version),
                hint=f"{mend}, or choose another home with --home DIR",
            )
        self._attic.sweep()

    # --- reading ---------------------------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be. The file must not be changed."""
        if not is_digest(digest):
            raise IntegrityError(f"not a sha256: {str(digest)[:80]!r}", where=str(self.root))
        return self.blobs / digest[:2] / digest[2:]

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here (its bytes are not read)."""
        return self.path(digest).is_file()

    def claim(self, digest: Digest) -> bool:
        """Whether the blob is here; if so no garbage collection takes it while this process's work lasts."""
        path = self.path(digest)
        try:
            status = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and self.generations.mark(str(path), status)

    def size(self, digest: Digest) -> int:
        """The blob's size in bytes. Raises IntegrityError when it is missing."""
        with self.open(digest) as stream:
            return os.fstat(stream.fileno()).st_size

    def open(self, digest: Digest) -> BinaryIO:
        """The blob as a stream; its bytes are not verified.

        Raises IntegrityError when it is missing or no file. A machine that lacks descriptors or memory, or whose disk
        fails, raises EnvironmentLack: that says nothing about the blob.
        """
        path = self.path(digest)
        try:
            return os.fdopen(os.open(path, REGULAR), "rb")
        except FileNotFoundError:
            raise self.missing(digest) from None
        except OSError as problem:
            if problem.errno not in {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES}:
                raise foreign(problem, "reading a blob", path) from problem
            raise IntegrityError(
                f"blob {digest} cannot be read: {problem.strerror}", where=str(path), hint=MEND
            ) from problem

    def read_bytes(self, digest: Digest, *, verify: bool = True) -> bytes:
        """All bytes of a blob. Raises IntegrityError when it is missing or, with ``verify``, when they are wrong."""
        with self.open(digest) as stream, translated("reading a blob", stream.name):
            data = stream.read()
        if verify and hashlib.sha256(data).hexdigest() != digest:
            raise self.damaged(digest)
        return data

    def check(self, digest: Digest) -> int:
        """Read the whole blob and return its size. Raises IntegrityError when it is missing or damaged."""
        with self.open(digest) as stream, translated("reading a blob", stream.name):
            size = os.fstat(stream.fileno()).st_size
            if hash_file(stream.fileno(), size) != digest:
                raise self.damaged(digest)
        return size

    def checked(self, digest: Digest) -> Path:
        """Where the blob is, for a cell to read: the whole of it has just been verified. Raises as ``check``."""
        self.check(digest)
        return self.path(digest)

    def missing(self, digest: Digest) -> IntegrityError:
        """The error that says that a blob is not in the vault."""
        return IntegrityError(
            f"blob {digest} is missing from the vault",
            where=str(self.path(digest)),
            hint=MEND,
        )

    def damaged(self, digest: Digest) -> IntegrityError:
        """The error that says that a blob's bytes are wrong."""
        return IntegrityError(
            f"blob {digest} is damaged: its bytes have another sha256",
            where=str(self.path(digest)),
            hint=MEND,
        )

    # --- writing ---------------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """Many blobs made durable at once: ``with vault.batch() as batch: batch.put_bytes(…)``.

        Nothing of it is visible before the block ends, and nothing at all when the block raises.
        """
        return Batch(self)

    def put_bytes(self, data: bytes) -> Digest:
        """Keep some bytes; durable on return."""
        with self.batch() as batch:
            return batch.put_bytes(data)

    def put_file(self, source: Source, *, expect: Digest | None = None) -> Digest:
        """Keep a file (path, descriptor or binary stream) from where it stands; durable on return.

        Raises HashMismatch when ``expect`` is given and the bytes have another sha256: then nothing is kept.
        """
        with self.batch() as batch:
            return batch.put_file(source, expect=expect)

    def workspace(self) -> Workspace:
        """A private folder under ``root/tmp``, on the vault's file system, gone at the latest when we are."""
        return make_workspace(self.tmp)

    def throw_away(self, path: Path) -> None:
        """Delete a directory of the vault's file system without waiting for it (see ``attic``)."""
        self._attic.throw(path)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait, at most so long, for what was thrown away to be deleted; whether all is."""
        return self._attic.settle(seconds)

    def are_durable(self, names: Iterable[str]) -> bool:
        """Whether this process has seen all these blobs (as they were written) and folders made durable."""
        return self._durable.issuperset(names)

    def remember_durable(self, names: Iterable[str]) -> None:
        """Note what a batch has made durable, so that no later one needs to sync it again."""
        if len(self._durable) > _REMEMBERED:
            self._durable.clear()
        self._durable.update(names)


def _sync(path: Path) -> None:
    """Make all that was written so far on the path's file system durable; only when a vault is made."""
    fd = os.open(path, REGULAR)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)
