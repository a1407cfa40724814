"""Collecting what a card left: walk, hash, bring into canonical form, keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.vault.manifest import Layer, Times, manifest_to_bytes, parent_of, times_to_bytes
from anvil.vault.merge import View, change
from anvil.vault.scan import Kind, OutputLimits, Scan, scan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anvil.model.layer import Digest, Entry, Manifest
    from anvil.vault.batch import Batch

EMPTY = View(())
"""The view of a stack of no layers."""


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What a collected directory still needs before it is the overlay form of its layer, and no more than that.

    unclean: paths that carry set-id bits, another owner or extended attributes (also the mark of a folder that hides
    what is below it: the canonical form names what it hid). whiteouts: paths to be covered. needless: coverings to
    be taken away.
    """

    unclean: tuple[str, ...]
    whiteouts: tuple[str, ...]
    needless: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A layer that is in the vault.

    bytes: apparent sizes of all files found. files: how many files, folders, links and removals were found.
    """

    manifest: Manifest
    manifest_digest: Digest
    times_digest: Digest
    bytes: int
    files: int
    cleaning: Cleaning

    @property
    def layer(self) -> Layer:
        """The layer's name."""
        return Layer(digest=self.manifest_digest, times=self.times_digest)


def collect(
    root: Path, *, kind: Kind, limits: OutputLimits, batch: Batch, below: View = EMPTY, owner: int | None = None
) -> Collected:
    """Keep what a card left in ``root``, in canonical form; durable and visible when ``batch`` ends.

    kind "tree": the folder as it is (``/out``). kind "changes": an overlayfs upper folder, laid over ``below``.
    owner: the uid everything should belong to (when root), None if that does not matter.
    Raises OutputForbidden (a device, FIFO, socket, bad name, overlay trick, a file that changes meanwhile),
    LimitExceeded, DiskFull.
    """
    found = scan(root, kind=kind, limits=limits, keep=batch, owner=owner)
    changed = change(below, found.entries, removed=found.removed, replaced=found.replaced)
    times = Times(
        mtimes=tuple(found.mtimes[entry.path] for entry in changed.manifest.entries),
        touched=tuple((entry, found.mtimes[entry.path]) for entry in changed.touched),
    )
    return _kept(changed.manifest, times, found, batch)


def collect_difference(
    root: Path, *, limits: OutputLimits, batch: Batch, below: View, known: Mapping[str, int]
) -> Collected:
    """Keep what was changed in ``root``, a whole plain copy of the tree ``below``: the way without an overlay.

    known: the times (nanoseconds) that the copy was made with. The same change gives the same manifest as by an
    overlay. Every file is read: a time can be forged.
    """
    found = scan(root, kind="tree", limits=limits, keep=batch)
    changed = change(below, found.entries, removed=(), replaced=("",))
    moved = {
        entry.path
        for entry in changed.touched
        if entry.type != "dir" and found.mtimes[entry.path] != known.get(entry.path)
    }
    stays = {entry.path for entry in changed.manifest.entries}
    for path in tuple(moved):
        folder = parent_of(path)
        while folder and folder not in stays and folder not in moved:
            moved.add(folder)
            folder = parent_of(folder)
    times = Times(
        mtimes=tuple(found.mtimes[entry.path] for entry in changed.manifest.entries),
        touched=tuple((entry, found.mtimes[entry.path]) for entry in changed.touched if entry.path in moved),
    )
    return _kept(changed.manifest, times, found, batch)


def _kept(manifest: Manifest, times: Times, found: Scan, batch: Batch) -> Collected:
    removed = frozenset(manifest.removed)
    found_removed = frozenset(found.removed)
    return Collected(
        manifest=manifest,
        manifest_digest=batch.put_bytes(manifest_to_bytes(manifest)),
        times_digest=batch.put_bytes(times_to_bytes(times)),
        bytes=found.total_bytes,
        files=found.count,
        cleaning=Cleaning(
            unclean=tuple(dict.fromkeys(found.unclean)),
            whiteouts=tuple(sorted(removed - found_removed)),
            needless=tuple(sorted(found_removed - removed)),
        ),
    )


def entries_of(manifest: Manifest, times: Times) -> tuple[list[Entry], dict[str, int]]:
    """Everything a layer's directory holds, what was only touched too, and the times by path."""
    entries = [*manifest.entries, *(entry for entry, _ in times.touched)]
    mtimes = {entry.path: time for entry, time in zip(manifest.entries, times.mtimes, strict=False)}
    mtimes.update((entry.path, time) for entry, time in times.touched)
    return entries, mtimes
