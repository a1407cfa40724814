"""Making the locks anew: InRelease, index, file, each checked before the next is read.

gpgv and apt's solver run in cells of the ``lock`` image; the fetcher alone speaks to the network. ``propose`` decides
and writes nothing; ``write`` puts into a folder what was decided. A lock that says the same as the last one keeps its
day and its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack, RecipeError
from anvil.image.cells import cell_solver
from anvil.image.resolve import ARCHITECTURE, Universe, resolve
from anvil.image.wanted import read_wanted, wanted_names
from anvil.mainframe.chain import Getter, Trust, Watch, lock_image, open_archive, scratch
from anvil.mainframe.lockdiff import Lock, compare
from anvil.mainframe.services import LOCKS
from anvil.model.lock import ImageLock, PinnedFile, SourceLock
from anvil.sources import lockfile
from anvil.sources.debian import Suite
from anvil.sources.resolve import resolve_debian, with_libraries_of
from anvil.sources.stanza import package_file
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from anvil.image.build import Image
    from anvil.mainframe.services import Services
    from anvil.sources.stanza import Stanza

IMAGE_SUITES = (
    Suite(archive="debian", name="trixie"),
    Suite(archive="debian-security", name="trixie-security"),
    Suite(archive="debian", name="trixie-updates"),
)
"""What base images are made of."""


@dataclass(frozen=True, kw_only=True)
class Wish(Trust):
    """What is to be made anew, and what is trusted for it."""

    sources: bool = True
    images: bool = True


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A lock as it would be now. name: "debian", "images/build". changes: a line each; none: it stays as it is."""

    name: str
    lock: Lock
    changes: tuple[str, ...]


def pinned_files(services: Services) -> tuple[PinnedFile, ...]:
    """Every file that the profile's sources and all base images are made of, each digest once."""
    locks: Iterable[Lock] = (services.sources, *(lock for _, lock in services.image_locks.values()))
    found: dict[str, PinnedFile] = {}
    for lock in locks:
        for file in lockfile.files(lock):
            found.setdefault(file.sha256, file)
    return tuple(found.values())


def own_folder() -> Path:
    """The folder of this checkout's locks. Raises EnvironmentLack for an installed Anvil, which has none to change."""
    if not (LOCKS.parents[3] / "pyproject.toml").is_file():
        raise EnvironmentLack(
            "this Anvil is not a checkout: its locks belong to the installed package",
            where=str(LOCKS),
            hint="write them elsewhere: anvil sources update --into DIR",
        )
    return LOCKS


def propose(services: Services, wish: Wish, watch: Watch, *, now: datetime) -> tuple[Proposal, ...]:
    """The locks as they would be now. now: aware; its day is the locks'.

    Raises what the chain can break with: NetworkLack, SourceGone, IntegrityError; CardJam when apt finds no solution;
    EnvironmentLack when no kernel fits OpenZFS; Interrupted.
    """
    image = lock_image(services, watch)
    with scratch(services) as folder, translated("making locks", folder):
        maker = _Maker(services, wish, watch, image=image, folder=folder, now=now)
        proposals: tuple[Proposal, ...] = ()
        if wish.sources:
            proposals += maker.sources()
        if wish.images:
            proposals += maker.images()
        return proposals


def write(proposals: Sequence[Proposal], folder: Path, *, unchanged: bool) -> tuple[Path, ...]:
    """Write the locks that changed (``unchanged``: all of them) below a folder; the files written."""
    written = []
    for proposal in proposals:
        if proposal.changes or unchanged:
            path = folder / f"{proposal.name}.json"
            with translated("writing a lock", path):
                if isinstance(proposal.lock, SourceLock):
                    lockfile.write_source_lock(proposal.lock, path)
                else:
                    lockfile.write_image_lock(proposal.lock, path)
            written.append(path)
    return tuple(written)


class _Maker:
    """One making of locks: the archive's indexes are read once for all that are asked for."""

    def __init__(
        self, services: Services, wish: Wish, watch: Watch, *, image: Image, folder: Path, now: datetime
    ) -> None:
        self._services = services
        self._watch = watch
        self._image = image
        self._folder = folder
        self._day = f"{now:%Y-%m-%d}"
        self._get = Getter(services, watch, folder / "kept")
        self._archive = open_archive(self._get, image, wish, folder=folder, now=now)

    def sources(self) -> tuple[Proposal, ...]:
        """The source locks: ``debian``, and ``seed`` with the libraries of ``debian``."""
        debian = resolve_debian(
            self._archive, self._get, work=self._folder / "tarballs", day=self._day, note=self._watch.note
        )
        seed = lockfile.read_source_lock(LOCKS / "seed.json")
        return (
            _proposal("debian", _last_sources("debian"), debian),
            _proposal("seed", seed, with_libraries_of(seed, debian)),
        )

    def images(self) -> tuple[Proposal, ...]:
        """The locks of all base images that have a wanted list."""
        last = (lock for _, lock in self._services.image_locks.values())
        places = _Places(self._get.answers, {file.sha256: file for lock in last for file in lockfile.files(lock)})
        universe = Universe(self._folder / "universe", self._indexes(places))
        logs = self._services.home.logs / "locks"
        logs.mkdir(exist_ok=True)
        proposals = []
        for name in wanted_names():
            self._watch.report({"note": f"resolving the image {name}"})
            settings = self._services.settings
            solver = cell_solver(
                self._image.rootfs,
                logs / f"{name}.log",
                host_uid=settings.cell_uid,
                bwrap=settings.bwrap,
                cancel=self._watch.tick,
            )
            wanted = read_wanted(name)
            lock = places.settle(resolve(wanted, universe, solver=solver, today=self._day, answers=places.answer))
            self._watch.note(f"image {name}: {len(lock.packages)} packages")
            proposals.append(_proposal(f"images/{name}", self._last_image(name), lock))
        return tuple(proposals)

    def _indexes(self, places: _Places) -> Iterator[tuple[str, Iterator[Stanza]]]:
        for suite in IMAGE_SUITES:
            self._watch.report({"note": f"reading the packages of {suite.name}"})
            stanzas = self._archive.packages(suite, "main", ARCHITECTURE)
            # The first suite's place of a package is the universe's own; it has most of all packages.
            yield suite.archive, stanzas if suite == IMAGE_SUITES[0] else places.noting(suite.archive, stanzas)

    def _last_image(self, name: str) -> ImageLock | None:
        _, lock = self._services.image_locks.get(name, ("", None))
        return lock


class _Places:
    """Where a package may be: after a point release an update is in two archives, and one may have lost it already.

    answers: whether a file is at its place. last: sha256 to the place that the locks name so far: it is asked first,
    so that a lock does not change while the old place still serves.
    """

    def __init__(self, answers: Callable[[PinnedFile], bool], last: Mapping[str, PinnedFile]) -> None:
        self._answers = answers
        self._last = last
        self._others: dict[str, list[PinnedFile]] = {}
        self._found: dict[str, PinnedFile | None] = {}

    def noting(self, archive: str, stanzas: Iterable[Stanza]) -> Iterator[Stanza]:
        """Pass stanzas on, remembering the places that they name."""
        for stanza in stanzas:
            file = package_file(stanza, archive)
            self._others.setdefault(file.sha256, []).append(file)
            yield stanza

    def answer(self, file: PinnedFile) -> bool:
        """Whether any of the file's places has it."""
        if file.sha256 not in self._found:
            places = [file, *self._others.get(file.sha256, ())]
            places.sort(key=lambda place: place != self._last.get(file.sha256))
            self._found[file.sha256] = next(filter(self._answers, places), None)
        return self._found[file.sha256] is not None

    def settle(self, lock: ImageLock) -> ImageLock:
        """The lock with every package at the place that has answered."""
        packages = (
            replace(package, file=self._found.get(package.file.sha256) or package.file) for package in lock.packages
        )
        return replace(lock, packages=tuple(packages))


def _proposal(name: str, old: Lock | None, new: Lock) -> Proposal:
    """Keep the old lock, day and all, when nothing but the day would change."""
    changes = compare(old, new)
    return Proposal(name=name, lock=new if old is None or changes else old, changes=changes)


def _last_sources(name: str) -> SourceLock | None:
    """The lock there is; None when there is none or it cannot be read, for then a new one is what mends it."""
    try:
        return lockfile.read_source_lock(LOCKS / f"{name}.json")
    except RecipeError:
        return None
