"""What a jammed card left, kept as it left it until its deck is off the stack, for ``anvil shell`` to look at.

::

    home/jams/DECK/CARD/changes   the work tree's changes, in overlay form: laid over what the card began with
                        tree      or the whole work tree, where cells have no overlay
                        out       what was in /out

These are a recipe's files, unjudged. Nobody opens them but a cell: they are bound read-only into one, or are the lower
tree of its overlay. They are moved here, not copied, so a jam costs no time; what they cost is room.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.mainframe.home import jam_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.mainframe.services import Services

LEAST_FREE = 1024 * 1024 * 1024
"""With less free on the disk (bytes) nothing is kept: room is worth more than a look."""


@dataclass(frozen=True, kw_only=True)
class KeptState:
    """What a jammed card left. Either ``changes`` or ``tree`` is there; out: None when it had none."""

    changes: Path | None
    tree: Path | None
    out: Path | None


def keep(services: Services, deck: str, card: str, staging: Path, *, overlay: bool) -> None:
    """Move what a card that has jammed left in its staging folder to where it stays. Never fails: it may not be kept.

    overlay: whether its work tree was one.
    """
    folder = jam_path(services.home, deck, card)
    with contextlib.suppress(OSError):
        if shutil.disk_usage(services.home.path).free < LEAST_FREE:
            return
        services.vault.throw_away(folder)  # of an earlier attempt
        folder.mkdir(parents=True)
        (staging / "upper").rename(folder / ("changes" if overlay else "tree"))
        (staging / "out").rename(folder / "out")


@contextmanager
def held(services: Services, deck: str, card: str) -> Iterator[KeptState | None]:
    """What is kept of a jam, which stays while the block lasts; None when nothing is."""
    folder = jam_path(services.home, deck, card)
    fd = _open(folder)
    try:
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_SH)
        parts = {name: folder / name for name in ("changes", "tree", "out") if (folder / name).is_dir()}
        if fd is None or not {"changes", "tree"} & set(parts):
            yield None
        else:
            yield KeptState(changes=parts.get("changes"), tree=parts.get("tree"), out=parts.get("out"))
    finally:
        if fd is not None:
            os.close(fd)


def sweep(services: Services) -> int:
    """Throw away what jams left whose deck is off the stack, unless a shell is in it; how many there were."""
    on_stack = {state.deck for state in services.db.decks()}
    gone = 0
    for deck in services.home.jams.iterdir():
        if deck.name in on_stack:
            continue
        for folder in list(deck.iterdir()):
            if (fd := _open(folder)) is not None:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    services.vault.throw_away(folder)
                    gone += 1
                os.close(fd)
        with contextlib.suppress(OSError):
            deck.rmdir()
    return gone


def _open(folder: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return None
