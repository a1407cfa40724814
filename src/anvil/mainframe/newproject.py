"""Making a project of one's own from the template: an empty folder becomes one that can be forged as it is."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import UsageError
from anvil.mainframe.book import BUILT_IN
from anvil.mainframe.project import LOCK
from anvil.model.lock import SourceLock
from anvil.sources import lockfile
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")  # a recipe's name that is a host name too
_RESERVED = frozenset({"images", "sources"})  # what cards of the host's own begin with


def name_for(folder: Path, given: str = "") -> str:
    """A new project's name: the one given, else the folder's. Raises UsageError for one that cannot be."""
    name = given or folder.name.lower().replace("_", "-").replace(" ", "-")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a project cannot be called {name!r}",
            hint="give a name of a-z, 0-9 and '-', from 2 to 63 of them, beginning with a letter: --name my-os",
        )
    if name in _RESERVED or any(BUILT_IN.glob(f"*/{name}.py")):
        raise UsageError(f"{name!r} is a recipe that Anvil comes with", hint="give another name: --name my-os")
    return name


def create(folder: Path, name: str, *, now: datetime | None = None) -> tuple[Path, ...]:
    """Make a project in a folder that is empty or not there; the files made, relative to it.

    Nothing that is there is ever written over; what was made is taken away again when something fails. Raises
    UsageError for a folder that has something in it, or that is none; EnvironmentLack, DiskFull.
    """
    from datetime import datetime

    from anvil.vault.disk import translated

    require_empty(folder)
    made: list[Path] = []
    with translated("making the project", folder):
        try:
            for parent in reversed([folder, *folder.parents]):
                if not parent.exists():
                    parent.mkdir()
                    made.append(parent)
            for place, text in _files(name):
                _put(folder / place, text, made)
            lock = SourceLock(profile="project", resolved=f"{now or datetime.now(UTC):%Y-%m-%d}", sources={})
            lockfile.write_source_lock(lock, folder / LOCK)
            made.append(folder / LOCK)
        except BaseException:
            for path in reversed(made):
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
            raise
    return tuple(sorted((path.relative_to(folder) for path in made if path.is_file()), key=str))


def require_empty(folder: Path) -> None:
    """Refuse a folder in which something lies, and what is none. Raises UsageError, EnvironmentLack."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is there, and is no folder", hint="name a folder that is empty or not there yet")
    with translated("looking into the folder", folder):
        found = sorted(path.name for path in folder.iterdir())
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(
            f"{folder} is not empty: it has {', '.join(found[:3])}{more}",
            hint="name a folder that is empty or not there yet; nothing was written",
        )


def _files(name: str) -> Iterator[tuple[Path, str]]:
    """The template's files, with the project's name in their places and texts."""
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_file():
            place = str(path.relative_to(TEMPLATE)).replace("NAME", name).replace("dot-", ".").removesuffix(".in")
            yield Path(place), path.read_text(encoding="utf-8").replace("@NAME@", name)


def _put(path: Path, text: str, made: list[Path]) -> None:
    for parent in reversed([*path.parents]):
        if not parent.exists():
            parent.mkdir()
            made.append(parent)
    with path.open("x", encoding="utf-8") as file:  # "x": never over what somebody else has just put there
        made.append(path)
        file.write(text)
