"""What following the archive's chain of signatures works with: the ``lock`` image, gpgv in it, and the fetcher.

Used where locks are made anew (locks.py) and where a project pins a source of its own (pinning.py).
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.errors import RecipeError, SourceGone
from anvil.image.build import find_image
from anvil.mainframe.gpgv import Gpgv, find_keyring
from anvil.mainframe.images import ensure_image
from anvil.mainframe.services import LOCKS
from anvil.model.layer import Digest
from anvil.sources import mirrors
from anvil.sources.debian import Archive
from anvil.sources.fetch import Fetcher, Progress
from anvil.vault.discard import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from anvil.image.build import Image
    from anvil.mainframe.services import Services
    from anvil.model.lock import PinnedFile
    from anvil.sources.fetch import Deliver


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who follows. note: told each decision. report: told how far a fetch or an image is. tick: true ends it all."""

    note: Callable[[str], None] = lambda _: None
    report: Callable[[dict[str, Any]], None] = lambda _: None
    tick: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What of an archive is believed.

    keyring: a file of public keys in place of Debian's. allow_expired: take a Release that is out of date.
    """

    keyring: Path | None = None
    allow_expired: bool = False


@dataclass
class Getter:
    """The fetcher, as those ask it who make locks: nothing that the vault keeps is fetched, nothing is asked twice."""

    services: Services
    watch: Watch
    folder: Path
    fetcher: Fetcher = field(init=False)
    answered: dict[PinnedFile, bool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        settings = self.services.settings
        self.fetcher = Fetcher(
            mirrors.find(settings=settings.mirrors),
            self.services.home.downloads,
            offline=settings.offline,
            from_dir=settings.from_dir,
            progress=self._progress,
            cancel=self.watch.tick,
        )

    def read(self, archive: str, path: str, *, limit: int) -> bytes:
        """An unpinned small file, unverified."""
        self.watch.report({"note": f"asking for {path}"})
        return self.fetcher.read(archive, path, limit=limit)

    def fetch(self, file: PinnedFile, deliver: Deliver) -> None:
        """A pinned file."""
        digest = Digest(file.sha256)
        if not self.services.vault.has(digest):
            self.fetcher.fetch(file, deliver)
            return
        self.services.vault.check(digest)
        copy = self.folder / file.sha256
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.services.vault.path(digest), copy)
        deliver(file, copy)

    def answers(self, file: PinnedFile) -> bool:
        """Whether a mirror has the file: the vault's copy is no answer, other machines have none."""
        if file not in self.answered:
            self.watch.report({"note": f"asking for {file.name}"})
            self.answered[file] = self.fetcher.answers(file)
        return self.answered[file]

    def _progress(self, progress: Progress) -> None:
        name = progress.file.name
        self.watch.report({"note": f"fetching {name}", "done": progress.done, "of": progress.total})


def open_archive(get: Getter, image: Image, trust: Trust, *, folder: Path, now: datetime) -> Archive:
    """The archive's signed indexes, checked by gpgv in the ``lock`` image. folder: for indexes; now: aware."""
    settings, watch = get.services.settings, get.watch
    verify = Gpgv(rootfs=image.rootfs, folder=folder, settings=settings, cancel=watch.tick, note=watch.note)
    return Archive(
        get,
        verify=verify,
        keyring=find_keyring(trust.keyring, image.rootfs),
        work=folder / "indexes",
        now=now,
        allow_expired=trust.allow_expired,
    )


def lock_image(services: Services, watch: Watch) -> Image:
    """The image with gpgv and apt, made from the lock there is."""
    if "lock" not in services.image_locks:
        raise RecipeError(
            "the image in which locks are made has no lock itself",
            where=str(LOCKS / "images" / "lock.json"),
            hint="put back the last good one: a new lock begins with trust in the last one",
        )
    _, lock = services.image_locks["lock"]
    if find_image(lock, services.home.images) is None:
        watch.note("making the image `lock`, in which signatures are checked and packages are chosen …")
    try:
        return ensure_image(services, "lock", watch.report, watch.tick)
    except SourceGone as error:
        raise SourceGone(
            f"the image in which locks are made cannot be made itself: {error.message}",
            where=error.where,
            hint="bring it in once, from a folder (anvil sources fetch --from DIR) or from a mirror as it was on "
            f"{lock.resolved} (ANVIL_MIRROR_DEBIAN=ADDRESS anvil sources fetch); then run this again",
            detail=error.detail,
        ) from error


@contextmanager
def scratch(services: Services) -> Iterator[Path]:
    """A folder of this process's own in the home; what a dead one leaves is swept by the next forge."""
    folder = services.home.cells / f"{services.worker.token}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        discard(folder)
