"""The garbage collection of a home: what goes, what stays and why, and taking it away while forges run.

First the results to forget are chosen (``garbage_choice``) and forgotten in the cortex; only then are the blobs that
nothing refers to any more taken away. So a collection may be killed anywhere: what it had not reached is still whole,
or is garbage for the next one. What somebody is at work with is left alone (``anvil.vault.generation``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.errors import AnvilError, IntegrityError
from anvil.image.build import STAMP
from anvil.mainframe import check_home, leftovers, liveness
from anvil.mainframe.evaluation import language_digest
from anvil.mainframe.forge import clear_past_decks, recover
from anvil.mainframe.garbage_choice import Choice, Policy, Survey, Thing, choose
from anvil.mainframe.home import LEAST_FREE
from anvil.mainframe.roots import Needs, find_roots, is_there, result_needs
from anvil.microjson.registry import MessageID
from anvil.model.layer import Digest
from anvil.vault import garbage
from anvil.vault.digests import is_digest
from anvil.vault.discard import discard
from anvil.vault.disk import translated
from anvil.vault.layers import label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.cortex.records import KeptResult
    from anvil.mainframe.roots import Root
    from anvil.mainframe.services import Services
    from anvil.vault.manifest import Layer

_FORGES_LOOKED_AT = 1000
FORGOTTEN_AT_ONCE = 200
"""Results in one transaction: a megabyte of the database's log, and a few milliseconds for whoever waits."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A kind of thing: how many there are, their bytes on the disk, and what or why."""

    what: str
    count: int
    size: int
    why: str = ""


@dataclass(kw_only=True)
class Report:
    """What went (or would go) and what stays; total: bytes of the home before."""

    gone: list[Line] = field(default_factory=list)
    stays: list[Line] = field(default_factory=list)
    total: int = 0

    @property
    def freed(self) -> int:
        """Bytes of all that went."""
        return sum(line.size for line in self.gone)


class Collection:
    """One garbage collection. tell: told in a few words what is being done; may raise to stop it, at any time."""

    def __init__(
        self, services: Services, policy: Policy, *, tell: Callable[[str], None] = lambda _text: None
    ) -> None:
        """services: opened without a demand for free space."""
        self._services = services
        self._policy = policy
        self._tell = tell
        self._closures: dict[Layer, frozenset[Digest]] = {}
        self._names: dict[Digest, Digest] = {}

    def run(self, *, dry: bool = False) -> Report:
        """Collect, or with ``dry`` only say what would be done.

        Raises AnvilError when another process collects or verifies, IntegrityError when a layer is damaged.
        """
        with self._services.vault.generations.only_collection():
            return self._look() if dry else self._collect()

    def _look(self) -> Report:
        vault = self._services.vault
        survey = self._survey(vault.generations.lowest(garbage.highest_mark(vault)))
        choice = choose(survey, self._policy)
        return _report(survey, choice)

    def _collect(self) -> Report:
        services = self._services
        generations = services.vault.generations
        made_room = self._make_room()
        recover(services)
        clear_past_decks(services, jammed=False)
        self._settle()
        oldest = generations.begin(garbage.highest_mark(services.vault))
        survey = self._survey(oldest)
        choice = choose(survey, self._policy)
        report = _report(survey, choice)
        if made_room.count:
            report.gone.insert(
                0, Line(what="trees", count=made_room.count, size=made_room.size, why="the disk is full")
            )
        forgotten = self._forget(choice.results, survey.now_us)
        for tree in choice.trees:
            self._tell("taking cached trees away")
            garbage.remove_tree(services.vault, tree.path, oldest)
        needed = self._needed(choice)
        swept = garbage.sweep(
            services.vault,
            needed,
            oldest,
            tell=lambda swept: self._tell(f"{swept.count} files of the vault taken away"),
        )
        report.gone = [line for line in report.gone if line.what not in {"results", "blobs"}]
        report.gone.append(Line(what="results", count=forgotten, size=0, why="forgotten"))
        report.gone.append(Line(what="blobs", count=swept.count, size=swept.size, why="nothing refers to them"))
        for thing in choice.things:
            self._tell("taking the rest away")
            self._remove(thing)
        if choice.decks_before:
            services.db.forget_decks(choice.decks_before)
        report.gone = [line for line in report.gone if line.count]
        if report.gone:
            body = {line.what: {"count": line.count, "bytes": line.size} for line in report.gone}
            services.db.log_event(MessageID.GARBAGE_COLLECTED, body)
        return report

    # --- looking ---------------------------------------------------------------------------------------------

    def _survey(self, oldest: int) -> Survey:
        services = self._services
        home = services.home
        now_us = int(time.time() * 1_000_000)
        self._tell("looking at the vault")
        blobs = garbage.blobs(services.vault)
        self._names = {digest: digest for digest in blobs}
        results, roots = self._read_cortex()
        needs = {key: result_needs(result.ret) for key, result in results.items()}
        for each in (*needs.values(), *(root.needs for root in roots)):
            self._read_layers(each)
        self._tell("looking at the cached trees")
        trees = garbage.trees(services.vault, lambda: self._tell("looking at the cached trees"))
        return Survey(
            now_us=now_us,
            oldest=oldest,
            blobs=blobs,
            results=results,
            needs=needs,
            roots=roots,
            closures=self._closures,
            trees=trees,
            images=list(self._images()),
            packages=self._packages(),
            things=list(self._things()),
            others=bool(liveness.living(home.workers)),
            decks=services.db.old_decks,
            database=sum(garbage.size_on_disk(path) for path in home.path.glob("cortex.db*")),
        )

    def _read_cortex(self) -> tuple[dict[str, KeptResult], list[Root]]:
        """Results and roots as they were at one moment."""
        with self._services.db.batch():
            results = {result.key: result for result in self._services.db.kept_results()}
            return results, find_roots(self._services, results)

    def _read_layers(self, needs: Needs) -> None:
        """Find out what some layers consist of. Raises IntegrityError for one that cannot be read.

        Then it is not known what must stay, and nothing more is taken away: perhaps it is the disk that fails.
        """
        for layer in needs.layers - self._closures.keys():
            self._tell(f"reading what {len(self._closures) + 1} layers consist of")
            try:
                found = self._services.layers.closure(layer)
            except IntegrityError as error:
                error.hint = "anvil vault verify --mend, then collect again"
                raise
            self._closures[layer] = frozenset(self._names.get(digest, digest) for digest in found)

    def _images(self) -> Iterator[Thing]:
        """Base images; none where the folder is only borrowed from another home."""
        home = self._services.home
        if home.images.is_symlink():
            return
        known = {digest: name for name, (digest, _) in self._services.image_locks.items()}
        for folder in sorted(home.images.iterdir()):
            if is_digest(folder.name):
                self._tell("looking at the base images")
                yield Thing(
                    kind="image",
                    path=folder,
                    name=known.get(folder.name, ""),
                    size=garbage.size_on_disk(folder),
                    used=_changed(folder / STAMP),
                )

    def _packages(self) -> dict[str, tuple[float, frozenset[Digest]]]:
        """The package files of each base image that may be made, and when that was made last; now, if it is to be."""
        found = {}
        for name, (digest, lock) in self._services.image_locks.items():
            made = _changed(self._services.home.images / digest / STAMP) or time.time()
            files = frozenset(self._names[d] for p in lock.packages if (d := Digest(p.file.sha256)) in self._names)
            found[name] = (made, files)
        return found

    def _things(self) -> Iterator[Thing]:
        """Files and folders beside the vault."""
        home = self._services.home
        on_stack = {state.deck for state in self._services.db.decks()}
        running = {forge.deck for forge in self._services.db.forges(_FORGES_LOOKED_AT) if not forge.ended}
        for path in home.logs.iterdir():
            if path.name not in on_stack | running:
                yield _thing("log", path)
        for path in home.downloads.glob("*.part"):
            yield _thing("download", path)
        for path in home.language.iterdir():
            # one that is being copied now is somebody's; `recover` takes away what nobody copies any more
            if path.name != language_digest() and not path.name.startswith("tmp-"):
                yield _thing("language", path)
        for path in leftovers.dead_cells(self._services):
            yield _thing("leftover", path)
        for path in check_home.left_homes(home.path):
            self._tell("looking at what checks left")
            yield _thing("check", path)
        for path in home.images.glob("tmp-*") if not home.images.is_symlink() else ():
            yield _thing("half an image", path)

    # --- taking away -----------------------------------------------------------------------------------------

    def _make_room(self) -> garbage.Swept:
        """When the disk is full: give the reserve back, and throw every cached tree away that nobody is at work on.

        Nothing of this needs space, or the cortex.
        """
        services, freed = self._services, garbage.Swept()
        self._settle()  # what dead processes left is being deleted since the vault was opened
        if shutil.disk_usage(services.home.path).free >= LEAST_FREE:
            return freed
        self._tell("the disk is full: making room")
        services.home.reserve.unlink(missing_ok=True)
        oldest = services.vault.generations.begin(garbage.highest_mark(services.vault))
        for tree in garbage.trees(services.vault):
            if garbage.remove_tree(services.vault, tree.path, oldest):
                freed.add(tree.size)
        return freed

    def _settle(self) -> None:
        while not self._services.vault.settle(1.0):
            self._tell("deleting what dead processes left")

    def _forget(self, keys: list[str], now_us: int) -> int:
        """Forget results, but for those that are of use since they were chosen; how many."""
        services, forgotten = self._services, 0
        for start in range(0, len(keys), FORGOTTEN_AT_ONCE):
            self._tell(f"{start} results of {len(keys)} forgotten")
            some = keys[start : start + FORGOTTEN_AT_ONCE]
            # in here nobody is between finding a result and saying so on the stack, or in the output folder
            with services.vault.generations.alone(self._waiting):
                released = {key for each in services.db.releases() if is_there(each) for key in each.keys}
                forgotten += services.db.forget_results(set(some) - released, unused_since=now_us)
        return forgotten

    def _needed(self, choice: Choice) -> set[Digest]:
        """Every blob that something refers to now."""
        results, roots = self._read_cortex()
        needs = [*(result_needs(result.ret) for result in results.values()), *(root.needs for root in roots)]
        needed: set[Digest] = set(choice.packages)
        for each in needs:
            self._read_layers(each)
            needed |= each.blobs
        for layer in {layer for each in needs for layer in each.layers}:
            needed |= self._closures[layer]
        for tree in self._services.vault.trees.iterdir():
            with contextlib.suppress(AnvilError, OSError):  # damaged, or gone meanwhile
                layer = label_of(tree).layer
                needed |= {layer.digest, layer.times}
        return needed

    def _remove(self, thing: Thing) -> None:
        with translated("taking garbage away", thing.path), contextlib.suppress(FileNotFoundError, BlockingIOError):
            if thing.kind in {"image", "half an image"}:
                self._remove_image(thing.path)
            elif thing.kind == "download":
                _remove_download(thing.path)
            elif thing.kind == "check":
                check_home.collect(thing.path)
            else:
                discard(thing.path)

    def _remove_image(self, path: Path) -> None:
        """Take an image away, or half of one, unless somebody is making it; nobody finds one that is half gone."""
        digest = path.name.removeprefix("tmp-")
        lock = os.open(path.with_name(f"{digest}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            half = path.with_name(f"tmp-{digest}")
            if path != half:
                discard(half)
                path.rename(half)
            discard(half)
        finally:
            os.close(lock)

    def _waiting(self) -> None:
        self._tell("waiting for a process that is just taking something out of the vault")


def _report(survey: Survey, choice: Choice) -> Report:
    gone, stays = ([Line(what=r.what, count=r.number, size=r.size, why=r.why) for r in rows]
                   for rows in (choice.gone, choice.stays))  # fmt: skip
    return Report(gone=gone, stays=stays, total=survey.total)


def _remove_download(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not the one that a living fetcher writes
        path.unlink()
    finally:
        os.close(fd)


def _thing(kind: str, path: Path) -> Thing:
    return Thing(kind=kind, path=path, name="", size=garbage.size_on_disk(path), used=_changed(path))


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
