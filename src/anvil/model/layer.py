"""Layers: what a card left behind, as a canonical list over blobs.

A *tree* manifest lists a whole directory; a *change* manifest lists what a card did to the tree below it, with the
names it removed. Both have one form. File times are kept beside a manifest (``make`` needs them), never in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NewType

Digest = NewType("Digest", str)
"""A sha256 as 64 lower-case hex digits."""

EntryType = Literal["file", "dir", "link"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in a layer.

    path: relative, UTF-8, no "." or "..", "/" between parts. mode: permission bits only (0o000 to 0o777), set-id
    and sticky bits are never kept. size and sha256: of a file. target: of a link, kept as it was written.
    """

    path: str
    type: EntryType
    mode: int = 0o644
    size: int = 0
    sha256: Digest = Digest("")
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A layer's entries, sorted by path, and the paths it removes from the tree below, sorted.

    A directory that is both removed and listed replaces the one below it whole (an opaque directory).
    """

    entries: tuple[Entry, ...]
    removed: tuple[str, ...] = ()
