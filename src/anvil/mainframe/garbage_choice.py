"""What a garbage collection takes and what it leaves, decided purely from what a home holds.

Two rules, either or both: *age*, what nobody used for so long goes; *size*, what was used least lately goes until the
home is small enough: first what no forge needs (cached trees, downloads, logs, what checks left), then packages of
base images that are made, then results. What a root needs stays whatever the rules say, and so does what somebody is
at work with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from anvil.cortex.records import KeptResult
    from anvil.mainframe.roots import Needs, Root
    from anvil.model.layer import Digest
    from anvil.vault.garbage import Blob, CachedTree
    from anvil.vault.manifest import Layer

_CACHES = frozenset({"log", "download", "language", "check"})
_ALWAYS = frozenset({"leftover", "half an image"})
_WHY = {
    "released": "an artifact that is there, with all it was made from",
    "jam": "a jammed card, with all it needs to be entered again",
    "forge": "the deck of a forge that is running",
    "lease": "a card under work, with all it needs",
    "stack": "cards on the stack",
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """older: seconds without use; keep: bytes that the home may have. None: that rule is not asked for."""

    older: float | None = None
    keep: int | None = None


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A file or folder beside the vault.

    name: of a base image that may be made here, else "". size: bytes of the disk. used: when it was last written.
    """

    kind: str
    path: Path
    name: str
    size: int
    used: float


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a home holds.

    now_us: microseconds UTC. oldest: what has an older mark is in nobody's hand. needs: of each result, by key.
    closures: what layers consist of. packages: of each base image, when that was
    made, and the files. others: whether other processes are at work. decks: counts the evaluated decks that are older
    than a moment.
    """

    now_us: int
    oldest: int
    blobs: Mapping[Digest, Blob]
    results: Mapping[str, KeptResult]
    needs: Mapping[str, Needs]
    roots: list[Root]
    closures: Mapping[Layer, frozenset[Digest]]
    trees: list[CachedTree]
    images: list[Thing]
    packages: Mapping[str, tuple[float, frozenset[Digest]]]
    things: list[Thing]
    others: bool
    decks: Callable[[int], tuple[int, int]]
    database: int

    @property
    def total(self) -> int:
        """Bytes of the home on the disk."""
        parts = (self.trees, self.images, self.things)
        return sum(blob.size for blob in self.blobs.values()) + sum(t.size for p in parts for t in p) + self.database

    def size(self, digests: Iterable[Digest]) -> int:
        """Bytes of some blobs, of those that are there."""
        return sum(self.blobs[digest].size for digest in digests if digest in self.blobs)


class Row(NamedTuple):
    """A line of a report."""

    what: str
    number: int
    size: int
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What goes: results by key, trees, things; packages: the blobs of these that stay; decks_before: or 0."""

    results: list[str]
    trees: list[CachedTree]
    things: list[Thing]
    packages: frozenset[Digest]
    decks_before: int
    gone: list[Row]
    stays: list[Row]


@dataclass(kw_only=True)
class _Fate:
    """What is decided so far."""

    results: list[str] = field(default_factory=list)
    trees: list[CachedTree] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)


def choose(survey: Survey, policy: Policy) -> Choice:
    """Decide."""
    fate = _by_age(survey, policy)
    _follow(survey, fate)
    if policy.keep is not None:
        _by_size(survey, fate, policy.keep)
        _follow(survey, fate)
    gone = set(fate.results)
    packages = {d for name, (_, files) in survey.packages.items() if name not in fate.packages for d in files}
    held, stays = _held(survey, gone, packages, fate)
    loose = [digest for digest, blob in survey.blobs.items() if digest not in held and blob.mark < survey.oldest]
    before = survey.now_us - int(policy.older * 1_000_000) if policy.older is not None else 0
    rows = [
        Row("results", len(gone), 0, "not of use for so long" if policy.keep is None else "by age or size"),
        Row("blobs", len(loose), survey.size(loose), "nothing refers to them then"),
        Row("trees", len(fate.trees), sum(tree.size for tree in fate.trees), "cached, made again when needed"),
        *(_kinds(fate.things)),
        Row("decks", *survey.decks(before), "evaluated again when needed"),
    ]
    return Choice(
        results=fate.results,
        trees=fate.trees,
        things=fate.things,
        packages=frozenset(packages),
        decks_before=before,
        gone=[row for row in rows if row.number],
        stays=stays,
    )


def _by_age(survey: Survey, policy: Policy) -> _Fate:
    fate = _Fate()
    now = survey.now_us / 1_000_000

    def is_old(used: float) -> bool:
        return policy.older is not None and min(used, now) <= now - policy.older

    rooted = {key for root in survey.roots for key in root.needs.keys}
    for key, result in survey.results.items():
        if key not in rooted and is_old(result.used / 1_000_000):
            fate.results.append(key)
    fate.trees += [tree for tree in survey.trees if tree.mark < survey.oldest and is_old(tree.used)]
    for thing in survey.things:
        if (thing.kind in _ALWAYS and not survey.others) or (thing.kind in _CACHES and is_old(thing.used)):
            fate.things.append(thing)
    wanted = {image for root in survey.roots for image in root.needs.images}
    gone = set(fate.results)
    wanted |= {image for key, needs in survey.needs.items() if key not in gone for image in needs.images}
    for image in survey.images:
        unknown = not image.name and image.path.name not in wanted and not survey.others
        if unknown and (policy.older is None or is_old(image.used)):
            fate.things.append(image)
    fate.packages |= {name for name, (made, _) in survey.packages.items() if is_old(made)}
    return fate


def _follow(survey: Survey, fate: _Fate) -> None:
    """A cached tree goes with the last result that has its layer."""
    gone = set(fate.results)
    lost = {layer for key in gone for layer in survey.needs[key].layers}
    lost -= {layer for key, needs in survey.needs.items() if key not in gone for layer in needs.layers}
    lost -= {layer for root in survey.roots for layer in root.needs.layers}
    taken = {tree.path for tree in fate.trees}
    fate.trees += [
        tree for tree in survey.trees if tree.layer in lost and tree.mark < survey.oldest and tree.path not in taken
    ]


def _by_size(survey: Survey, fate: _Fate, keep: int) -> None:
    """Take more, least lately used first, until the home has no more than ``keep`` bytes or nothing may go."""
    users = _Users(survey, set(fate.results), fate.packages)
    total = users.size + survey.database
    trees, things = {tree.path for tree in fate.trees}, {thing.path for thing in fate.things}
    total += sum(tree.size for tree in survey.trees if tree.path not in trees)
    total += sum(thing.size for thing in (*survey.things, *survey.images) if thing.path not in things)
    caches: list[CachedTree | Thing] = [t for t in survey.trees if t.mark < survey.oldest and t.path not in trees]
    caches += [thing for thing in survey.things if thing.kind in _CACHES and thing.path not in things]
    for each in sorted(caches, key=lambda each: each.used):
        if total <= keep:
            return
        total -= each.size
        if isinstance(each, Thing):
            fate.things.append(each)
        else:
            fate.trees.append(each)
    for name, _ in sorted(survey.packages.items(), key=lambda item: item[1][0]):
        if total <= keep:
            return
        if name not in fate.packages:
            fate.packages.add(name)
            total -= users.drop((), survey.packages[name][1])
    rooted = {key for root in survey.roots for key in root.needs.keys}
    decided = rooted.union(fate.results)
    rest = [result for key, result in survey.results.items() if key not in decided]
    # of those used together the last one made goes first: the others begin what is made of them again
    for result in sorted(rest, key=lambda result: (result.used, -result.created)):
        if total <= keep:
            return
        fate.results.append(result.key)
        needs = survey.needs[result.key]
        total -= users.drop(needs.layers, needs.blobs)


class _Users:
    """How many users each layer and blob has; size: bytes of all blobs that have any, or are in somebody's hand."""

    def __init__(self, survey: Survey, gone: set[str], packages: set[str]) -> None:
        self._survey = survey
        self._layers: Counter[Layer] = Counter()
        self._blobs: Counter[Digest] = Counter()
        for needs in (
            *(needs for key, needs in survey.needs.items() if key not in gone),
            *(root.needs for root in survey.roots),
        ):
            self._layers.update(needs.layers)
            self._blobs.update(needs.blobs)
        for name, (_, files) in survey.packages.items():
            if name not in packages:
                self._blobs.update(files)
        for layer in self._layers:
            self._blobs.update(survey.closures.get(layer, ()))
        self.size = sum(
            blob.size for digest, blob in survey.blobs.items() if self._blobs[digest] or blob.mark >= survey.oldest
        )

    def drop(self, layers: Iterable[Layer], blobs: Iterable[Digest]) -> int:
        """One user less of each; the bytes that nobody uses any more."""
        freed = self._less(blobs)
        for layer in layers:
            self._layers[layer] -= 1
            if not self._layers[layer]:
                freed += self._less(self._survey.closures.get(layer, ()))
        return freed

    def _less(self, blobs: Iterable[Digest]) -> int:
        freed = 0
        for digest in blobs:
            self._blobs[digest] -= 1
            blob = self._survey.blobs.get(digest)
            if not self._blobs[digest] and blob is not None and blob.mark < self._survey.oldest:
                freed += blob.size
        return freed


def _held(survey: Survey, gone: set[str], packages: set[Digest], fate: _Fate) -> tuple[set[Digest], list[Row]]:
    """Every blob that stays, and why; what several need is counted for the first of them."""
    held: set[Digest] = set()
    rows: list[Row] = []

    def hold(what: str, count: int, blobs: Iterable[Digest], why: str) -> None:
        fresh = set(blobs) - held
        held.update(fresh)
        if count:
            rows.append(Row(what, count, survey.size(fresh), why))

    def all_of(needs: Iterable[Needs]) -> set[Digest]:
        layers = {layer for each in needs for layer in each.layers}
        return {d for each in needs for d in each.blobs}.union(*(survey.closures.get(layer, ()) for layer in layers))

    for root in survey.roots:
        hold(root.kind, len(root.needs.keys) or 1, all_of([root.needs]), f"{_WHY[root.kind]}: {root.name}")
    rest = [needs for key, needs in survey.needs.items() if key not in gone]
    hold("results", len(rest), all_of(rest), "of use lately")
    hold("packages", len(packages), packages, "of base images, by age")
    taken = {thing.path for thing in fate.things} | {tree.path for tree in fate.trees}
    trees = [tree for tree in survey.trees if tree.path not in taken]
    labels = [tree.layer for tree in trees if tree.layer]
    hold("labels", 0, [d for layer in labels for d in (layer.digest, layer.times)], "")
    busy = [digest for digest, blob in survey.blobs.items() if blob.mark >= survey.oldest]
    hold("in use", len(set(busy) - held), busy, "somebody is at work with them")
    rows.append(Row("trees", len(trees), sum(tree.size for tree in trees), "cached, used lately or in use"))
    left = [thing for thing in (*survey.images, *survey.things) if thing.path not in taken]
    rows += _kinds(left)
    rows.append(Row("cortex", 1, survey.database, "results, ledger and history"))
    return held, [row for row in rows if row.number]


def _kinds(things: Iterable[Thing]) -> list[Row]:
    why = {
        "image": "base images",
        "log": "what cards printed",
        "download": "unfinished",
        "language": "copies of the recipe language",
        "check": "second makings that differed, were kept or were stopped",
        "leftover": "of processes that died",
        "half an image": "whose maker died",
    }
    found: dict[str, list[Thing]] = {}
    for thing in things:
        found.setdefault(thing.kind, []).append(thing)
    return [Row(f"{kind}s", len(each), sum(t.size for t in each), why[kind]) for kind, each in sorted(found.items())]
