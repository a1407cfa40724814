"""The graph of a forge: every card of the wanted recipe and of all it uses, with every name resolved.

Pure: decks in, graph out; nothing is read or run here. Errors: RecipeError, naming recipe and step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from anvil.errors import RecipeError
from anvil.model import near
from anvil.recipe.deck import uses
from anvil.recipe.kinds import archive, disk_image, iso_image
from anvil.release.gate import POLICY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anvil.model.lock import ImageLock, Source

Data = dict[str, Any]

OPENED_KINDS = frozenset({archive, disk_image, iso_image})
"""Kinds that the gate opens, in a cell of the machine image."""

_HOST_NAMES = frozenset({"images", "sources"})  # what cards of the host's own begin with

Tree = Literal["work", "out"]


@dataclass(frozen=True, kw_only=True)
class StepRef:
    """A file or folder that another card leaves: in its work tree or its output; path "" is all of it."""

    node: str
    tree: Tree
    path: str


@dataclass(frozen=True, kw_only=True)
class BlobRef:
    """One file whose sha256 is known beforehand: a recipe's own file (node "") or a pinned source."""

    sha256: str
    name: str
    node: str = ""


NodeRef = StepRef | BlobRef


@dataclass(frozen=True, kw_only=True)
class Node:
    """A card to be, with all its references resolved.

    id: "recipe/step". image: a base image's digest ("" for work of the host set). base: the node whose tree it
    starts from ("" for none). after: nodes that must have passed although nothing of theirs is taken in.
    memory: bytes; wall and expect: seconds. extra: what only its operation understands.
    """

    id: str
    recipe: str
    op: str
    image: str = ""
    base: str = ""
    inputs: Mapping[str, NodeRef] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    script: str = ""
    memory: int = 0
    wall: int = 3600
    expect: int = 0
    keep: str = "all"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Every node that must be done first, in a fixed order."""
        return tuple(dict.fromkeys([*self.takes, *self.after]))

    @property
    def takes(self) -> tuple[str, ...]:
        """The nodes whose bytes go into this one."""
        taken = [self.base, *(ref.node for ref in self.inputs.values())]
        return tuple(name for name in taken if name)

    def as_data(self) -> Data:
        """The node as the data of a card's payload."""
        inputs = {
            name: {"step": [ref.node, ref.tree, ref.path]}
            if isinstance(ref, StepRef)
            else {"blob": [ref.sha256, ref.name, ref.node]}
            for name, ref in self.inputs.items()
        }
        return {
            "id": self.id, "recipe": self.recipe, "op": self.op, "image": self.image, "base": self.base,
            "inputs": inputs, "after": list(self.after), "script": self.script, "memory": self.memory,
            "wall": self.wall, "expect": self.expect, "keep": self.keep, "extra": dict(self.extra),
        }  # fmt: skip

    @classmethod
    def from_data(cls, data: Data) -> Node:
        """The inverse of ``as_data``."""
        inputs: dict[str, NodeRef] = {}
        for name, ref in data["inputs"].items():
            if "step" in ref:
                node, tree, path = ref["step"]
                inputs[name] = StepRef(node=node, tree=tree, path=path)
            else:
                sha256, file_name, node = ref["blob"]
                inputs[name] = BlobRef(sha256=sha256, name=file_name, node=node)
        return cls(**{**data, "inputs": inputs, "after": tuple(data["after"])})


@dataclass(frozen=True, kw_only=True)
class Graph:
    """All nodes in an order in which they can run, and the recipes in the order in which they were met.

    files: the sha256 of every file beside a recipe that is named, by recipe and path.
    """

    wanted: str
    nodes: Mapping[str, Node]
    recipes: tuple[str, ...]
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def dependents(self) -> dict[str, list[str]]:
        """Who needs a node, for every node."""
        below: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for need in node.needs:
                below[need].append(node.id)
        return below

    def depths(self, seconds: Callable[[Node], int]) -> dict[str, int]:
        """The longest way from the start of a node to the end of the deck: who must start first."""
        longest: dict[str, int] = {}
        below = self.dependents()
        for name in reversed(list(self.nodes)):
            longest[name] = seconds(self.nodes[name]) + max((longest[d] for d in below[name]), default=0)
        return longest


def build_graph(
    wanted: str,
    decks: Mapping[str, Data],
    *,
    sources: Mapping[str, Source],
    images: Mapping[str, tuple[str, ImageLock]],
    files: Mapping[tuple[str, str], str],
) -> Graph:
    """Resolve every name.

    decks: by recipe, as the evaluator gave them. images: name to (digest, lock). files: (recipe, path) to sha256.
    """
    order = _recipe_order(wanted, decks)
    _refuse_shared_names(order, decks)
    nodes: dict[str, Node] = {}
    resolve = _Resolver(decks=decks, sources=sources, files=files)
    for recipe in order:
        deck = decks[recipe]
        for step in deck["steps"]:
            node = _step_node(recipe, step, resolve, images)
            _add_sources(nodes, resolve)
            _add_image(nodes, step["image"], images)
            nodes[node.id] = node
        for name, export in deck["exports"].items():  # it must be something, also when nobody uses it
            resolve.result(recipe, name, export["ref"], f"{recipe}.py")
        resolve.take_sources()
        tests = tuple(f"{recipe}/{s['name']}" for s in deck["steps"] if s["op"] in {"check", "boot"})
        for name, artifact in deck["artifacts"].items():
            earlier = tuple(n.id for n in nodes.values() if n.op == "release" and n.recipe != recipe)
            node = _release_node(recipe, name, artifact, resolve, (*tests, *earlier))
            _add_sources(nodes, resolve)
            if artifact["kind"] in OPENED_KINDS:
                _add_image(nodes, "machine", images)
                node = replace(node, image=images["machine"][0], after=(*node.after, "images/machine"))
            nodes[node.id] = node
    nodes = _in_order(nodes)
    for node in nodes.values():
        if node.op == "release":
            texts = _declared_texts(nodes, node)
            nodes[node.id] = replace(node, extra={**node.extra, "texts": texts})
    return Graph(wanted=wanted, nodes=nodes, recipes=tuple(order), files=files)


def _in_order(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes so that each comes after what it needs, otherwise as they are.

    It is the steps that must not need each other in a ring: a recipe may use what another makes of its own steps, as
    one does that boots the medium into which its program has gone. A ring is told with its path.
    """
    done: dict[str, Node] = {}
    for start in nodes:
        path: dict[str, Iterator[str]] = {start: iter(nodes[start].needs)} if start not in done else {}
        while path:
            current = next(reversed(path))
            need = next((need for need in path[current] if need not in done), None)
            if need is None:
                done[current] = nodes[current]
                del path[current]
            elif need in path:
                _refuse_ring([*path, need], need)
            else:
                path[need] = iter(nodes[need].needs)
    return done


def _refuse_ring(path: list[str], again: str) -> NoReturn:
    ring = list(reversed(path[path.index(again) :]))  # from what is made first to what is made of it
    recipes = list(dict.fromkeys(name.partition("/")[0] for name in ring))
    raise RecipeError(
        f"steps are made of each other in a ring: {' -> '.join(ring)}",
        where=f"{recipes[0]}.py",
        hint=f"cut it between {' and '.join(recipes)}" if len(recipes) > 1 else "cut one of its inputs",
    )


def _declared_texts(nodes: Mapping[str, Node], release: Node) -> list[str]:
    """The sha256 of every text that the recipes behind an artifact show: their own files and what they write."""
    texts: set[str] = set()
    for node in behind(nodes, release):
        texts |= {ref.sha256 for ref in node.inputs.values() if isinstance(ref, BlobRef) and not ref.node}
        if node.op == "write":
            texts.add(hashlib.sha256(node.extra["text"].encode()).hexdigest())
    return sorted(texts)


def behind(nodes: Mapping[str, Node], last: Node) -> list[Node]:
    """Every node whose bytes went into ``last``, which need not be among the nodes itself, in their order."""
    met: set[str] = set()
    queue = list(last.takes)
    while queue:
        name = queue.pop()
        if name not in met:
            met.add(name)
            queue += nodes[name].takes
    return [node for node in nodes.values() if node.id in met]


def _refuse_shared_names(order: list[str], decks: Mapping[str, Data]) -> None:
    """No two cards share an id, and no two released files a place: every artifact ``N`` also has an ``N.json``."""
    taken: dict[str, str] = {}
    for recipe in order:
        if recipe in _HOST_NAMES:
            raise RecipeError(f"a recipe cannot be called {recipe!r}", where=f"{recipe}.py", hint="rename the file")
        for name in decks[recipe]["artifacts"]:
            _take_place(name, f"{recipe}:{name}", taken)
            _take_place(f"{name}.json", f"{recipe}:{name}", taken)


def _take_place(path: str, owner: str, taken: dict[str, str]) -> None:
    """Take the place of a released file; "a/" in ``taken`` says that a is a folder."""
    parts = path.split("/")
    folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
    for met in (path, f"{path}/", *folders):
        if met in taken:
            raise RecipeError(
                f"the artifacts {taken[met]} and {owner} cannot both be released: each needs {met.rstrip('/')!r}",
                where=f"{owner.partition(':')[0]}.py",
                hint="an artifact N takes the names N and N.json, which can be no folders; rename one",
            )
    taken[path] = owner
    for folder in folders:
        taken.setdefault(f"{folder}/", owner)


def _recipe_order(wanted: str, decks: Mapping[str, Data]) -> list[str]:
    """Recipes that are used or extended before those that do it, as far as there is no ring of recipes."""
    order: list[str] = []
    met: set[str] = set()

    def visit(name: str) -> None:
        if name in met:
            return
        met.add(name)
        extended = decks[name]["extends"]
        for used in [*([extended] if extended else []), *uses(decks[name])]:
            visit(used)
        order.append(name)

    visit(wanted)
    return order


@dataclass(kw_only=True)
class _Resolver:
    decks: Mapping[str, Data]
    sources: Mapping[str, Source]
    files: Mapping[tuple[str, str], str]
    _met: set[str] = field(default_factory=set)
    _path: list[str] = field(default_factory=list)  # the results that are being looked up

    def take_sources(self) -> set[str]:
        met, self._met = self._met, set()
        return met

    def __call__(self, recipe: str, ref: Data, where: str) -> NodeRef:
        """The thing that ``recipe``, or the one who added the reference, means by it."""
        if "of" in ref:
            recipe, where = ref["of"], f"{ref['of']}.py"
        path = ref.get("path", "")
        if "step" in ref:
            return StepRef(node=f"{recipe}/{ref['step']}", tree=ref["tree"], path=path)
        if "file" in ref:
            return BlobRef(sha256=self.files[(recipe, ref["file"])], name=ref["file"].rsplit("/", 1)[-1])
        if "source" in ref:
            source = self.sources[ref["source"]]
            self._met.add(source.name)
            return BlobRef(sha256=source.files[0].sha256, name=source.files[0].name, node=f"sources/{source.name}")
        used, name = ref["use"]
        deck = self.decks[used]
        entry = deck["exports"].get(name) or deck["artifacts"].get(name)
        if entry is None:
            known = sorted([*deck["exports"], *deck["artifacts"]])
            hint = near.hint(name, known, otherwise=f"its results: {', '.join(known) or 'none'}")
            raise RecipeError(f"recipe {used!r} has no result called {name!r}", where=where, hint=hint)
        found = self.result(used, name, entry["ref"], where)
        if path and not isinstance(found, StepRef):
            raise RecipeError(f"{used}:{name} is one file; nothing lies below it", where=where)
        if path and isinstance(found, StepRef):
            return StepRef(node=found.node, tree=found.tree, path="/".join(p for p in (found.path, path) if p))
        return found

    def result(self, recipe: str, name: str, ref: Data, where: str) -> NodeRef:
        """What a result is; it may be another recipe's, and so on, but not in a ring."""
        result = f"{recipe}:{name}"
        if result in self._path:
            ring = " -> ".join([*self._path[self._path.index(result) :], result])
            raise RecipeError(f"results are each other in a ring: {ring}", where=where, hint="make one in a step")
        self._path.append(result)
        found = self(recipe, ref, where)
        self._path.pop()
        return found


def _step_node(recipe: str, step: Data, resolve: _Resolver, images: Mapping[str, tuple[str, ImageLock]]) -> Node:
    where = f"{recipe}/{step['name']}"
    if step["image"] not in images:
        hint = near.hint(step["image"], images, otherwise=f"known images: {', '.join(sorted(images))}")
        raise RecipeError(f"no base image is called {step['image']!r}", where=where, hint=hint)
    inputs = {name: resolve(recipe, ref, where) for name, ref in step["inputs"].items()}
    return Node(
        id=where,
        recipe=recipe,
        op=step["op"],
        image=images[step["image"]][0],
        base=f"{recipe}/{step['base']}" if step["base"] else "",
        inputs=inputs,
        after=(f"images/{step['image']}",),
        script=step["script"],
        memory=step["limits"]["memory"],
        wall=step["limits"]["wall"],
        expect=step["expect"],
        keep=step["keep"],
        extra=step["extra"],
    )


def _add_sources(nodes: dict[str, Node], resolve: _Resolver) -> None:
    for name in sorted(resolve.take_sources()):
        nodes.setdefault(f"sources/{name}", _source_node(name, resolve.sources[name]))


def _add_image(nodes: dict[str, Node], name: str, images: Mapping[str, tuple[str, ImageLock]]) -> None:
    extra = {"name": name, "digest": images[name][0]}
    nodes.setdefault(f"images/{name}", Node(id=f"images/{name}", recipe="images", op="image", expect=30, extra=extra))


def _source_node(name: str, source: Source) -> Node:
    files = [
        {"name": f.name, "sha256": f.sha256, "size": f.size, "archive": f.archive, "path": f.path, "url": f.url}
        for f in source.files[:1]
    ]
    return Node(id=f"sources/{name}", recipe="sources", op="fetch", expect=5, extra={"files": files})


def _release_node(recipe: str, name: str, artifact: Data, resolve: _Resolver, tests: tuple[str, ...]) -> Node:
    where = f"{recipe}/artifact:{name}"
    extra = {key: artifact[key] for key in ("kind", "licence", "redistribution")}
    inputs = {"file": resolve(recipe, artifact["ref"], where)}
    inputs |= {key: resolve(recipe, ref, where) for key, ref in artifact["opener"].items()}
    return Node(
        id=where,
        recipe=recipe,
        op="release",
        inputs=inputs,
        after=tests,
        wall=600,
        keep="out",
        extra={"name": name, "policy": POLICY, **extra},
    )
