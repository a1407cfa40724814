"""Layers laid over each other, decided purely: what is where, and what a card changed.

A stack is a sequence of layers, *topmost first*, as overlayfs takes them.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anvil.model.layer import Entry, Manifest
from anvil.vault.manifest import parent_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Index:
    """A manifest made quick to ask."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.entries = {entry.path: entry for entry in manifest.entries}
        self.removed = frozenset(manifest.removed)
        self.paths = [entry.path for entry in manifest.entries]

    def below(self, folder: str) -> list[str]:
        """The listed paths below a folder, sorted; all of them for ""."""
        if not folder:
            return self.paths
        # "0" follows "/": no path below the folder sorts behind it
        return self.paths[bisect_left(self.paths, folder + "/") : bisect_left(self.paths, folder + "0")]


class View:
    """What a stack of layers, topmost first, shows."""

    def __init__(self, layers: Sequence[Index]) -> None:
        self._layers = layers
        self._reach: dict[str, int] = {"": len(layers)}

    def lookup(self, path: str) -> Entry | None:
        """What is at a path, None for nothing. Links on the way are not followed: below a link is nothing."""
        for layer in self._layers[: self._reach_of(parent_of(path))]:
            if (entry := layer.entries.get(path)) is not None:
                return entry
            if path in layer.removed:
                return None
        return None

    def is_folder(self, path: str) -> bool:
        """Whether a path is a folder; "" is one."""
        if not path:
            return True
        entry = self.lookup(path)
        return entry is not None and entry.type == "dir"

    def below(self, folder: str) -> Iterator[Entry]:
        """Every entry below a folder ("" for all), sorted by path."""
        layers = self._layers[: self._reach_of(folder)]
        if len(layers) == 1:
            for path in layers[0].below(folder):
                yield layers[0].entries[path]
            return
        paths: set[str] = set()
        for layer in layers:
            paths.update(layer.below(folder))
        for path in sorted(paths):
            if (entry := self.lookup(path)) is not None:
                yield entry

    def subtree(self, folder: str) -> Manifest:
        """A folder's content as a tree of its own."""
        if not folder:
            return Manifest(entries=tuple(self.below("")))
        cut = len(folder) + 1
        return Manifest(entries=tuple(replace(entry, path=entry.path[cut:]) for entry in self.below(folder)))

    def _reach_of(self, folder: str) -> int:
        """How many layers, from the top, are seen in a folder: those below a removal or a non-folder are hidden."""
        known = self._reach.get(folder)
        if known is not None:
            return known
        reach = self._reach_of(parent_of(folder))
        for number, layer in enumerate(self._layers[:reach]):
            entry = layer.entries.get(folder)
            is_folder = entry is not None and entry.type == "dir"
            if folder in layer.removed:
                reach = number + 1 if is_folder else number
                break
            if entry is not None and not is_folder:
                reach = number
                break
        self._reach[folder] = reach
        return reach


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change in its one canonical form, and what was written without being changed (sorted by path)."""

    manifest: Manifest
    touched: tuple[Entry, ...] = ()


def change(below: View, entries: Iterable[Entry], *, removed: Iterable[str], replaced: Iterable[str]) -> Change:
    """The canonical form of what was done to the tree ``below``.

    entries: what is listed above it, every entry's folder too. removed: paths taken away. replaced: folders
    among the entries (or "" for the whole) that hide everything that was in them.

    Two cards that turn one tree into the same other tree get the same form, however they did it: an entry equal
    to the one below is dropped, unless it is the folder of something that stays; nothing is replaced whole, what
    vanished is named by its topmost path.
    """
    listed = {entry.path: entry for entry in entries}
    gone = {path for path in removed if below.lookup(path) is not None}
    for folder in replaced:
        if below.is_folder(folder):
            gone.update(_vanished(below, folder, listed))
    kept = {path for path, entry in listed.items() if below.lookup(path) != entry}
    for path in (*kept, *gone):
        folder = parent_of(path)
        while folder and folder not in kept:
            kept.add(folder)
            folder = parent_of(folder)
    changed = tuple(listed[path] for path in sorted(kept))
    touched = tuple(listed[path] for path in sorted(listed.keys() - kept))
    return Change(manifest=Manifest(entries=changed, removed=tuple(sorted(gone))), touched=touched)


def _vanished(below: View, folder: str, listed: dict[str, Entry]) -> Iterator[str]:
    """The topmost paths below a folder that are not listed and not hidden by what is."""
    prefix = folder + "/" if folder else ""
    for entry in below.below(folder):
        if entry.path in listed:
            continue
        up = parent_of(entry.path)
        above = listed.get(up)
        if up == prefix[:-1] or (above is not None and above.type == "dir"):
            yield entry.path


def merged(layers: Sequence[Index]) -> Manifest:
    """The whole tree a stack shows."""
    return View(layers).subtree("")
