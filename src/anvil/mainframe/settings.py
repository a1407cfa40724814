"""What a forge is told: read from the command line and the environment by the command line alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.cell.spec import HOST_UID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """home: Anvil's home. project: the folder whose recipes come first, or None. output: where artifacts land.

    jobs: cells that run at once, and the number of jobs that all of them share, 1 to 1024. from_dir: where to look for
    files before any mirror. mirrors: archive name to base addresses (separated by blanks), in place of what apt is
    configured with. snapshot: an address of an archive of old files, tried last (see sources.mirrors). forced: cards
    that run although a result is kept. bwrap: a bubblewrap to use instead of the host's or the image's. cell_uid: the
    host uid that cells take when Anvil is run by root. narrow: cards that see one processor only (see check.py).
    """

    home: Path
    output: Path
    project: Path | None = None
    profile: str = "debian"
    jobs: int = 2
    offline: bool = False
    from_dir: Path | None = None
    mirrors: Mapping[str, str] = field(default_factory=dict)
    snapshot: str = ""
    forced: frozenset[str] = frozenset()
    bwrap: Path | None = None
    cell_uid: int = HOST_UID
    narrow: frozenset[str] = frozenset()
