"""Checks of the mirrors: whether some are known, and whether they have what is about to be fetched. See preflight."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack, SourceGone
from anvil.sources import mirrors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anvil.mainframe.services import Services
    from anvil.mainframe.settings import Settings
    from anvil.model.lock import PinnedFile

SILENCE_SECONDS = 5.0
ASKED = 8
"""Files that are asked for at most, so that a mirror far away costs seconds, and not minutes."""


def known(settings: Settings) -> str:
    """The mirrors of this machine. Raises EnvironmentLack when there is none, UsageError for what is no address."""
    found = mirrors.find(settings=settings.mirrors, snapshot=settings.snapshot).bases
    if not found.get("debian"):
        raise mirrors.no_mirror("debian", "any source")
    return ", ".join(base for bases in found.values() for base in bases)


def reach(services: Services, files: Sequence[PinnedFile]) -> str:
    """Ask the mirrors whether they have these files, without fetching any: one of each archive, and the largest.

    Raises NetworkLack, SourceGone or EnvironmentLack with what mends it; a mirror is waited for some seconds.
    """
    if not files:
        return "nothing is to be fetched"
    # the fetcher brings a web client with it: every forge would wait for that to be imported
    from anvil.sources.fetch import Fetcher
    from anvil.sources.transfer import Patience

    settings, downloads = services.settings, services.home.downloads
    found = services.mirrors()
    fetcher = Fetcher(
        found,
        downloads,
        offline=settings.offline,
        from_dir=settings.from_dir,
        patience=Patience(silence_seconds=SILENCE_SECONDS),
    )
    asked = _sample(files)
    for file in asked:
        if _there(downloads, file) or fetcher.answers(file):
            continue
        if settings.offline:
            raise EnvironmentLack(
                f"{file.name} is not here, and --offline was asked for",
                where=str(settings.from_dir or downloads),
                hint="run it once without --offline, or give a folder that has it: --from DIR",
            )
        raise SourceGone(
            f"no mirror has {file.name} as it was pinned" + (f" ({file.size} bytes)" if file.size else ""),
            where=(found.addresses(file) or (file.path,))[0],
            hint=f"try another mirror ({mirrors.setting_name(file.archive or mirrors.UPSTREAM)}=…), make the lock "
            "again: anvil sources update; or give a folder that has it: --from DIR",
        )
    return f"the mirrors have all {len(asked)} files that they were asked for, of {len(files)}"


def _sample(files: Sequence[PinnedFile]) -> list[PinnedFile]:
    """The largest of each archive, then the largest of all."""
    ordered = sorted(files, key=lambda file: -file.size)
    firsts = {file.archive or file.url: file for file in reversed(ordered)}
    return list({file.sha256: file for file in (*firsts.values(), *ordered)}.values())[:ASKED]


def _there(downloads: Path, file: PinnedFile) -> bool:
    """Whether an earlier run has left the whole of it."""
    try:
        return os.stat(downloads / f"{file.sha256}.part").st_size == file.size > 0
    except OSError:
        return False
