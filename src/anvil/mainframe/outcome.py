"""How a forge ended, as data: what the faces print, and what is kept of a forge that had nothing to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Published:
    """An artifact in the output folder; written: False when it was there already."""

    path: Path
    sha256: str
    size: int
    written: bool


@dataclass(frozen=True, kw_only=True)
class Jam:
    """A jammed card, complete enough to be mended by someone who was not there."""

    card: str
    message: str
    where: str
    hint: str
    detail: str
    recipe: str
    log: str
    tail: tuple[str, ...]
    command: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a boot card saw."""

    card: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a forge ended. contested: artifacts whose redistribution is contested."""

    deck: str
    ran: int
    kept: int
    artifacts: tuple[Published, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    contested: tuple[str, ...] = ()
    jams: tuple[Jam, ...] = ()
