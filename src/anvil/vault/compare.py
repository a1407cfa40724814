"""Comparing a cached tree with its layer, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.model.layer import Digest
from anvil.vault.collect import entries_of
from anvil.vault.disk import hash_file
from anvil.vault.scan import OutputLimits, scan

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.model.layer import Manifest
    from anvil.vault.manifest import Times

_NO_LIMITS = OutputLimits(total_bytes=1 << 62, entries=1 << 62)


def difference(tree: Path, manifest: Manifest, times: Times) -> str:
    """The first thing in which a directory in overlay form differs from its layer; "" when it does not.

    Every file is read: 92,000 files of 1.5 GB take 2.4 s when they are in memory, and a small card's tree well below a
    millisecond. Raises AnvilError for what no layer may hold, EnvironmentLack for what cannot be read.
    """
    entries, mtimes = entries_of(manifest, times)
    found = scan(tree, kind="changes", limits=_NO_LIMITS, keep=_Hasher())
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
