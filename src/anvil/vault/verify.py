"""Reading every byte of a vault, to say what of it is wrong."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anvil.errors import AnvilError
from anvil.model.layer import Digest
from anvil.vault.collect import entries_of
from anvil.vault.digests import MEND, is_digest
from anvil.vault.disk import hash_file, translated
from anvil.vault.layers import TREE, Layers, label_of
from anvil.vault.scan import OutputLimits, scan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from anvil.vault.manifest import LayerRef
    from anvil.vault.store import Vault

_NO_LIMITS = OutputLimits(total_bytes=1 << 62, entries=1 << 62)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    kind: blob (its bytes are not its name's), layer (malformed, or something it needs is missing or damaged), tree (a
    cached directory differs from its layer), stray (a file that has no business here). subject: a digest or a path.
    mend: what to do; ``path`` may be discarded for a blob, tree or stray: all are made again when needed.
    """

    kind: Literal["blob", "layer", "tree", "stray"]
    subject: str
    message: str
    mend: str
    path: Path


def verify(vault: Vault, *, layers: Iterable[LayerRef] = ()) -> Iterator[Finding]:
    """Everything that is wrong with a vault: each blob is read whole, each cached tree is compared with its layer.

    layers: those that something needs (results in the cortex); each must be whole.
    """
    bad: set[Digest] = set()
    for finding in _blobs(vault):
        bad.add(Digest(finding.subject))
        yield finding
    store = Layers(vault)
    for layer in layers:
        yield from _layer(store, layer, bad)
    yield from _trees(store)


def _blobs(vault: Vault) -> Iterator[Finding]:
    with translated("verifying the vault", vault.blobs):
        for folder in sorted(os.listdir(vault.blobs)):
            place = vault.blobs / folder
            if not place.is_dir():
                yield _stray(place)
                continue
            for name in sorted(os.listdir(place)):
                path, digest = place / name, Digest(folder + name)
                if len(folder) != 2 or not is_digest(digest):
                    yield _stray(path)
                elif problem := _blob_problem(path, digest):
                    yield Finding(kind="blob", subject=digest, message=problem, mend=MEND, path=path)


def _stray(path: Path) -> Finding:
    return Finding(
        kind="stray", subject=str(path), message="not a blob's name", mend="anvil vault verify --mend", path=path
    )


def _blob_problem(path: Path, digest: Digest) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""  # collected as garbage meanwhile
    except OSError as problem:
        return f"cannot be opened: {problem.strerror}"
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        return "" if hash_file(fd, status.st_size) == digest else "its bytes have another sha256"
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    finally:
        os.close(fd)


def _layer(store: Layers, layer: LayerRef, bad: set[Digest]) -> Iterator[Finding]:
    path = store.vault.path(layer.digest)
    try:
        needed = store.closure(layer)
    except AnvilError as problem:
        yield Finding(kind="layer", subject=layer.digest, message=problem.message, mend=MEND, path=path)
        return
    for digest in sorted(needed):
        if digest in bad or not store.vault.has(digest):
            message = f"needs blob {digest}, which is {'damaged' if digest in bad else 'missing'}"
            yield Finding(kind="layer", subject=layer.digest, message=message, mend=MEND, path=path)


def _trees(store: Layers) -> Iterator[Finding]:
    with translated("verifying the cached trees", store.vault.trees):
        for name in sorted(os.listdir(store.vault.trees)):
            home = store.vault.trees / name
            try:
                problem = _tree_problem(store, home)
            except (AnvilError, OSError) as error:
                if not home.exists():
                    continue  # collected as garbage meanwhile
                problem = str(error)
            if problem:
                yield Finding(kind="tree", subject=str(home), message=problem, mend=MEND, path=home)


def _tree_problem(store: Layers, home: Path) -> str:
    layer = label_of(home).layer
    if store.home(layer) != home:
        return "is not the tree its label says"
    manifest = store.manifest(layer.digest)
    entries, mtimes = entries_of(manifest, store.times(layer))
    found = scan(home / TREE, kind="changes", limits=_NO_LIMITS, keep=_Hasher())
    listed = {entry.path: entry for entry in found.entries}
    for entry in entries:
        if listed.pop(entry.path, None) != entry:
            return f"{entry.path!r} differs from its layer"
        if mtimes and entry.type == "file" and found.mtimes[entry.path] != mtimes[entry.path]:
            return f"{entry.path!r} has another time than in its layer"
    if listed:
        return f"{next(iter(listed))!r} is not in its layer"
    hidden = {*found.removed, *found.replaced}
    return "" if hidden == set(manifest.removed) else "it hides something else than its layer"


class _Hasher:
    """Takes bytes without keeping them."""

    def put_descriptor(self, fd: int, size: int) -> Digest:
        return Digest(hash_file(fd, size))
