"""What processes that died left in a home: found, and taken away; living ones are not disturbed."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from anvil.mainframe import liveness, shellstate
from anvil.model.layer import Digest
from anvil.vault.digests import is_digest
from anvil.vault.discard import discard

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.mainframe.services import Services

_COPYING_SECONDS = 3600
"""A copy of the language that was begun so long ago is nobody's any more."""


def sweep(services: Services) -> int:
    """Take away what dead workers left in the home, but for the vault's own; how many things."""
    gone = 0
    for folder in dead_cells(services):
        services.vault.throw_away(folder)
        gone += 1
    for path in (*arrived(services), *torn_copies(services)):
        with contextlib.suppress(FileNotFoundError):
            discard(path)
            gone += 1
    gone += shellstate.sweep(services)
    liveness.sweep(services.home.workers)
    return gone


def dead_cells(services: Services) -> list[Path]:
    """Staging folders whose worker is gone."""
    home = services.home
    return [folder for folder in home.cells.iterdir() if liveness.is_dead(home.workers, folder.name.partition("-")[0])]


def arrived(services: Services) -> list[Path]:
    """Downloads that are in the vault already: whoever brought them was stopped before it took them away.

    A living fetcher that is at this very point takes away the same file, and does not mind that it is gone.
    """
    return [
        path
        for path in services.home.downloads.glob("*.part")
        if is_digest(path.stem) and services.vault.has(Digest(path.stem))
    ]


def torn_copies(services: Services) -> list[Path]:
    """Copies of the recipe language that were begun and are not being made any more."""
    old = time.time() - _COPYING_SECONDS
    found = []
    for path in services.home.language.glob("tmp-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < old:
                found.append(path)
    return found
