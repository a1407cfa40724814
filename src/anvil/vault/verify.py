"""Reading every byte of a vault, to say what of it is wrong."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anvil.errors import AnvilError
from anvil.model.layer import Digest
from anvil.vault.compare import difference
from anvil.vault.digests import MEND, is_digest
from anvil.vault.disk import hash_file, translated
from anvil.vault.layers import TREE, Layers, label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from anvil.vault.manifest import LayerRef
    from anvil.vault.store import Vault


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


def verify(
    vault: Vault, *, layers: Iterable[LayerRef] = (), tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Finding]:
    """Everything that is wrong with a vault: each blob is read whole, each cached tree is compared with its layer.

    layers: those that something needs (results in the cortex); each must be whole. tell: told in a few words what is
    being read; may raise to stop it.
    """
    bad: set[Digest] = set()
    for finding in _blobs(vault, tell):
        bad.add(Digest(finding.subject))
        yield finding
    store = Layers(vault)
    for layer in dict.fromkeys(layers):  # many results have the same
        tell("looking whether all that results need is there")
        yield from _layer(store, layer, bad)
    yield from _trees(store, tell)


def _blobs(vault: Vault, tell: Callable[[str], None]) -> Iterator[Finding]:
    with translated("verifying the vault", vault.blobs):
        folders = sorted(os.listdir(vault.blobs))
        for number, folder in enumerate(folders):
            place = vault.blobs / folder
            if not place.is_dir():
                yield _stray(place)
                continue
            for name in sorted(os.listdir(place)):
                tell(f"reading the vault, {100 * number // len(folders)} %")
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


def _trees(store: Layers, tell: Callable[[str], None]) -> Iterator[Finding]:
    with translated("verifying the cached trees", store.vault.trees):
        names = sorted(os.listdir(store.vault.trees))
        for number, name in enumerate(names):
            tell(f"comparing cached tree {number + 1} of {len(names)}")
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
    label = label_of(home)
    if store.home(label.layer) != home or label.boot != store.boot:
        return "is not the tree its label says"
    return difference(home / TREE, store.manifest(label.layer.digest), store.times(label.layer))
