"""What a vault holds, in bytes of the disk, and taking away what nobody needs; ``generation`` says what is in use."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anvil.errors import AnvilError
from anvil.model.layer import Digest
from anvil.vault.digests import is_digest
from anvil.vault.discard import discard
from anvil.vault.disk import translated
from anvil.vault.layers import label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from anvil.vault.manifest import Layer
    from anvil.vault.store import Vault

AT_ONCE = 64
"""How many blobs are taken away before others are let by: a millisecond or so."""

_BLOCK = 512  # st_blocks counts in these, whatever the file system's own are


class Blob(NamedTuple):
    """A blob's bytes on the disk, and its mark."""

    size: int
    mark: int


@dataclass(frozen=True, kw_only=True)
class CachedTree:
    """A cached tree. layer: None when its label is damaged. size: bytes of the disk. used: seconds since 1970."""

    path: Path
    layer: Layer | None
    size: int
    used: float
    mark: int


@dataclass(kw_only=True)
class Swept:
    """What was taken away."""

    count: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        """One thing more."""
        self.count += 1
        self.size += size


def blobs(vault: Vault) -> dict[Digest, Blob]:
    """Every blob."""
    found: dict[Digest, Blob] = {}
    with translated("looking at the vault", vault.blobs):
        for folder in _folders(vault):
            with os.scandir(vault.blobs / folder) as entries:
                for entry in entries:
                    if is_digest(folder + entry.name):
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            found[Digest(folder + entry.name)] = Blob(status.st_blocks * _BLOCK, int(status.st_mtime))
    return found


def highest_mark(vault: Vault) -> int:
    """The highest mark of all blobs and cached trees."""
    found = [blob.mark for blob in blobs(vault).values()]
    for path in vault.trees.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(int(path.stat(follow_symlinks=False).st_mtime))
    return max(found, default=0)


def trees(vault: Vault, tell: Callable[[], None] = lambda: None) -> list[CachedTree]:
    """Every cached tree; each is walked."""
    found = []
    for path in sorted(vault.trees.iterdir()):
        tell()
        with contextlib.suppress(FileNotFoundError):
            status = path.stat(follow_symlinks=False)
            try:
                layer = label_of(path).layer
            except (AnvilError, OSError):
                layer = None
            found.append(
                CachedTree(
                    path=path, layer=layer, size=size_on_disk(path), used=status.st_atime, mark=int(status.st_mtime)
                )
            )
    return found


def size_on_disk(path: Path) -> int:
    """What a file or folder takes, with all below it; what vanishes meanwhile, or may not be read, is not counted."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    total = status.st_blocks * _BLOCK
    folders = [path] if stat.S_ISDIR(status.st_mode) else []
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
    return total


def sweep(
    vault: Vault, needed: Container[Digest], oldest: int, *, tell: Callable[[Swept], None] = lambda _swept: None
) -> Swept:
    """Take away every blob that is not needed and whose mark is lower than ``oldest`` (``Generations.begin``).

    Needs no space. Others work on meanwhile; stopped anywhere, it can be done again. tell: called for each folder.
    """
    swept = Swept()
    with translated("taking garbage away", vault.blobs):
        for folder in _folders(vault):
            place = vault.blobs / folder
            names = [name for name in os.listdir(place) if is_digest(folder + name) and folder + name not in needed]
            tell(swept)
            for start in range(0, len(names), AT_ONCE):
                some = [name for name in names[start : start + AT_ONCE] if _is_older(place / name, oldest)]
                if some:
                    with vault.generations.hand():
                        for name in some:
                            _take(place / name, oldest, swept)
    return swept


def _take(path: Path, oldest: int, swept: Swept) -> None:
    # looked at again: somebody may have found it, and marked it, a moment ago
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if int(status.st_mtime) < oldest:
            path.unlink()
            swept.add(status.st_blocks * _BLOCK)


def _is_older(path: Path, oldest: int) -> bool:
    try:
        return int(path.lstat().st_mtime) < oldest
    except FileNotFoundError:
        return False


def remove_tree(vault: Vault, path: Path, oldest: int) -> bool:
    """Take a cached tree away, if nobody is at work on it; whether it is gone. Needs no space."""
    # a name that no tree has: nobody takes it for one, and whoever opens the vault next deletes what is left of it
    gone = path.with_name(f"gone-{secrets.token_hex(8)}")
    with vault.generations.hand():
        if not _is_older(path, oldest):
            return False
        path.rename(gone)
    try:
        discard(gone)
    except AnvilError:
        if gone.exists():  # else: somebody else was deleting it, too
            raise
    return True


def _folders(vault: Vault) -> Iterator[str]:
    for folder in sorted(os.listdir(vault.blobs)):
        if len(folder) == 2 and (vault.blobs / folder).is_dir():
            yield folder
