"""Comparing two makings: every card's layers and every artifact, file by file, into archives and images.

A card is a *cause* when both makings gave it the same inputs (its keys are equal) and it left something else: there
the search begins. What lies below a cause differs as a matter of course.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from anvil.errors import AnvilError, EnvironmentLack
from anvil.image.build import find_image
from anvil.image.tidy import tree_lines
from anvil.mainframe.ops import release
from anvil.model.layer import Digest, Entry
from anvil.release.gate import File
from anvil.release.judge import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import Graph, Node
    from anvil.mainframe.results import StepResult
    from anvil.mainframe.services import Services
    from anvil.model.layer import Manifest
    from anvil.model.lock import ImageLock
    from anvil.release.judge import Container

Tree = Literal["work", "out", "artifact", "image"]

MOST_SHOWN = 200
"""Differences of one layer or one container that are told one by one."""

DEEPEST = 6
"""Containers in containers that are opened."""

_PATH = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_BLOCK = 1 << 20
_WORDS = 100  # characters of a line that is shown


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which the makings differ.

    card: which card left it. tree: its work tree, its output, the artifact, or a base image. path: of a file there,
    then of what is in that file, and so on. what: "bytes", "mode", "type", "target", "only first", "only second";
    "entry": a line of tidy.tree_lines; "unopened": a container that would not open, why is in ``first``; "more": how
    many are not shown is in ``first``. first, second: a digest, mode, type, target or line. sizes: in bytes. offset:
    of the first byte that differs (-1: there is none). lines: the two lines around it, where both are text. cause:
    whether the card was given the same in both makings.
    """

    card: str
    tree: Tree
    path: tuple[str, ...]
    what: str
    first: str = ""
    second: str = ""
    sizes: tuple[int, int] = (0, 0)
    offset: int = -1
    lines: tuple[str, ...] = ()
    cause: bool = False

    def as_data(self) -> dict[str, Any]:
        """As the data of a message."""
        return {**vars(self), "path": list(self.path), "sizes": list(self.sizes), "lines": list(self.lines)}


@dataclass(frozen=True, kw_only=True)
class Making:
    """One of the two: what it worked with and what every card left."""

    services: Services
    graph: Graph
    results: Mapping[str, StepResult]

    def key(self, node: Node) -> str:
        """A card's key."""
        return self.services.key_of(self.graph, self.results, node)


@dataclass(kw_only=True)
class Comparison:
    """Compares two makings of one graph.

    context: the surroundings for opening containers, for a node of the first making. Containers are opened in cells
    of the first home, and what differs is copied into the first vault for that, where nothing needs it.
    """

    first: Making
    second: Making
    context: Callable[[Node], Context]
    stop_if_asked: Callable[[], None]
    cards: int = 0
    layers: int = 0
    files: int = 0
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def run(self) -> Iterator[Difference]:
        """Every difference, the cards in the order in which they can run."""
        for node in self.first.graph.nodes.values():
            self.stop_if_asked()
            self.cards += 1
            yield from self._card(node)

    def _card(self, node: Node) -> Iterator[Difference]:
        one, two = self.first.results[node.id], self.second.results[node.id]
        pairs: list[tuple[Tree, Digest, Digest]] = []
        if node.keep == "all" and one.stack and two.stack:
            pairs.append(("work", one.stack[0].digest, two.stack[0].digest))
        if one.out and two.out:
            pairs.append(("artifact" if node.op == "release" else "out", one.out.digest, two.out.digest))
        for tree, ours, theirs in pairs:
            self.layers += 1
            listed = self.first.services.layers.manifest(ours)
            self.files += sum(entry.type == "file" for entry in listed.entries)
            if ours == theirs:
                continue
            other = self.second.services.layers.manifest(theirs)
            cause = self.first.key(node) == self.second.key(node)
            for found in self._manifests(node, tree, (), listed, other):
                yield replace(found, cause=cause)

    def _manifests(
        self, node: Node, tree: Tree, path: tuple[str, ...], ours: Manifest, theirs: Manifest
    ) -> Iterator[Difference]:
        count = 0
        for found in _rows(node.id, tree, path, ours, theirs):
            count += 1
            if count <= MOST_SHOWN:
                yield from self.told(node, found)
        if count > MOST_SHOWN:
            yield Difference(card=node.id, tree=tree, path=path, what="more", first=str(count - MOST_SHOWN))

    def told(self, node: Node, found: Difference) -> Iterator[Difference]:
        """A difference with what the bytes show of it and of what is in them, the first time that it is met."""
        if found.what != "bytes":
            yield found
            return
        self.stop_if_asked()
        vault, theirs = self.first.services.vault, Digest(found.second)
        if not vault.has(theirs):  # what came out of a container is there already
            vault.put_file(self.second.services.vault.path(theirs), expect=theirs)
        with vault.open(Digest(found.first)) as one, vault.open(theirs) as two:
            found = replace(found, offset=first_difference(one, two))
            if (found.first, found.second) in self._seen:
                yield found
                return
            self._seen.add((found.first, found.second))
            lines = (_line(one, found.offset), _line(two, found.offset))
        yield replace(found, lines=lines if all(lines) else ())
        if len(found.path) < DEEPEST:
            yield from self._inside(node, found)

    def _inside(self, node: Node, found: Difference) -> Iterator[Difference]:
        """What differs in two archives or images."""
        vault = self.first.services.vault
        files = [
            File(name=found.path[-1], sha256=digest, size=size, open=partial(vault.open, Digest(digest)))
            for digest, size in zip((found.first, found.second), found.sizes, strict=True)
        ]
        container = _container(files[0])
        if not container or container != _container(files[1]):
            return
        context = self.context(node)
        try:
            ours, theirs = (release.open_container(context, container, file).manifest for file in files)
        except AnvilError as error:
            context.stop_if_asked()
            yield replace(found, what="unopened", first=error.message, second="", sizes=(0, 0))
            return
        yield from self._manifests(node, found.tree, found.path, ours, theirs)


def image_differences(first: Services, second: Services, locks: Iterable[ImageLock]) -> Iterator[Difference]:
    """What differs in base images that were made in both homes."""
    for lock in locks:
        one, two = (find_image(lock, services.home.images) for services in (first, second))
        if one is None or two is None:
            raise EnvironmentLack(f"the base image {lock.name} is gone", hint="run the same command again")
        if one.tree != two.tree:
            yield from _lines(f"images/{lock.name}", tree_lines(one.rootfs), tree_lines(two.rootfs))


def _lines(card: str, ours: Iterable[str], theirs: Iterable[str]) -> Iterator[Difference]:
    """The entries in which the listings of two trees differ; a line begins with its path as Python writes it."""
    one, two = ({_PATH.match(line)[0]: line for line in lines} for lines in (ours, theirs))  # type: ignore[index]
    names = [name for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name)]
    for name in names[:MOST_SHOWN]:
        first, second = (lines.get(name, "").removeprefix(name).strip() for lines in (one, two))
        yield Difference(
            card=card, tree="image", path=(name[1:-1],), what="entry", first=first, second=second, cause=True
        )
    if len(names) > MOST_SHOWN:
        yield Difference(card=card, tree="image", path=(), what="more", first=str(len(names) - MOST_SHOWN), cause=True)


def _container(file: File) -> Container | Literal[""]:
    try:
        with file.open() as stream:
            return judge(stream, file.size, name=file.name, inside=True).container
    except AnvilError:
        return ""


def _rows(card: str, tree: Tree, path: tuple[str, ...], ours: Manifest, theirs: Manifest) -> Iterator[Difference]:
    """The entries in which two manifests differ, sorted by path."""
    one, two = _table(ours), _table(theirs)
    for name in sorted(one.keys() | two.keys()):
        where = (*path, name.removeprefix("members/"))
        if (row := _row(one.get(name), two.get(name))) is not None:
            what, first, second, sizes = row
            yield Difference(card=card, tree=tree, path=where, what=what, first=first, second=second, sizes=sizes)


def _table(manifest: Manifest) -> dict[str, Entry]:
    """Entries by path; a name that was removed and is there again counts as what it is now."""
    removed = {path: Entry(path=path, type="link", target="(removed)") for path in manifest.removed}
    return removed | {entry.path: entry for entry in manifest.entries}


def _row(one: Entry | None, two: Entry | None) -> tuple[str, str, str, tuple[int, int]] | None:
    if one is None or two is None:
        there = one or two
        assert there is not None
        return "only first" if one else "only second", there.type, "", (there.size, there.size)
    sizes = (one.size, two.size)
    if one.type != two.type:
        return "type", one.type, two.type, sizes
    if one.target != two.target:
        return "target", one.target, two.target, sizes
    if one.sha256 != two.sha256:
        return "bytes", one.sha256, two.sha256, sizes
    if one.mode != two.mode:
        return "mode", f"{one.mode:o}", f"{two.mode:o}", sizes
    return None


def first_difference(one: BinaryIO, two: BinaryIO) -> int:
    """The offset of the first byte in which two streams differ, an end counting as a byte; -1 when there is none."""
    place = 0
    while True:
        ours, theirs = one.read(_BLOCK), two.read(_BLOCK)
        if ours != theirs:
            short = min(len(ours), len(theirs))
            if ours[:short] == theirs[:short]:
                return place + short
            low, high = 0, short  # ours[:low] is equal, ours[:high] is not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if ours[:middle] == theirs[:middle] else (low, middle)
            return place + low
        if not ours:
            return -1
        place += len(ours)


def _line(stream: BinaryIO, offset: int) -> str:
    """The line around an offset, where the bytes there are text; "" elsewhere."""
    start = max(0, offset - _WORDS)
    stream.seek(start)
    data = stream.read(2 * _WORDS)
    if b"\0" in data:
        return ""
    before, after = data[: offset - start], data[offset - start :]
    line = before.rpartition(b"\n")[2] + after.partition(b"\n")[0]
    try:
        return line.decode()
    except UnicodeDecodeError:
        return ""
