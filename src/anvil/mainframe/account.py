"""The account of an artifact: which cards, sources and tools it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anvil.cortex.records import Release
from anvil.mainframe.graph import BlobRef, behind
from anvil.release.publish import Artifact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from anvil.mainframe.graph import Graph, Node
    from anvil.mainframe.results import LayerRef, StepResult
    from anvil.mainframe.services import Services


@dataclass(frozen=True, kw_only=True)
class Accounted:
    """An artifact, and where its bytes are: a path in a stack of layers.

    keys: of every card that it was made or tried by. blobs: every file that these cards were given from outside.
    """

    artifact: Artifact
    stack: Sequence[LayerRef]
    path: str
    keys: Collection[str]
    blobs: Collection[str]

    def release(self, path: Path) -> Release:
        """What a garbage collection has to leave alone while the artifact is at ``path``."""
        return Release(
            path=str(path),
            sha256=self.artifact.sha256,
            size=self.artifact.size,
            keys=tuple(sorted(self.keys)),
            blobs=tuple(sorted(self.blobs)),
            images=tuple(sorted(image["digest"] for image in self.artifact.images.values())),
        )


@dataclass(frozen=True, kw_only=True)
class Relied:
    """What the outcome of a forge that ended well stands on: every card, what it left, and the artifacts."""

    graph: Graph
    results: Mapping[str, StepResult]
    artifacts: Sequence[Accounted]


def account(services: Services, graph: Graph, results: Mapping[str, StepResult]) -> Iterator[Accounted]:
    """Every artifact of a finished graph."""
    for node in graph.nodes.values():
        if node.op == "release":
            yield _account(services, graph, results, node)


def _account(services: Services, graph: Graph, results: Mapping[str, StepResult], node: Node) -> Accounted:
    made_of = [*behind(graph.nodes, node), node]
    facts = results[node.id].facts
    out = results[node.id].out
    verdicts = [dict(results[name].facts["verdict"]) for name in node.after if graph.nodes[name].op == "boot"]
    artifact = Artifact(
        name=node.extra["name"],
        sha256=facts["sha256"],
        size=facts["size"],
        kind=facts["kind"],
        executable=facts["executable"],
        licence=node.extra["licence"],
        redistribution=node.extra["redistribution"],
        recipe=node.recipe,
        cards=[{"card": n.id, "key": services.key_of(graph, results, n)} for n in made_of if n.recipe not in _HOST],
        sources=[_source(services, n.id.partition("/")[2]) for n in made_of if n.op == "fetch"],
        images=_images(services, made_of),
        members=facts["members"],
        verdicts=verdicts,
    )
    tried = [graph.nodes[name] for name in node.after]
    given = {ref.sha256 for n in made_of for ref in n.inputs.values() if isinstance(ref, BlobRef)}
    return Accounted(
        artifact=artifact,
        stack=(out,) if out else (),
        path="artifact",
        keys={services.key_of(graph, results, n) for n in (*made_of, *tried)},
        blobs=given,
    )


_HOST = frozenset({"sources", "images"})


def _source(services: Services, name: str) -> dict[str, Any]:
    source = services.sources.sources[name]
    file = source.files[0]
    return {
        "name": name,
        "version": source.version,
        "licence": source.licence,
        "file": file.name,
        "sha256": file.sha256,
    }


def _images(services: Services, made_of: list[Node]) -> dict[str, Any]:
    """The base images used, with every package's version: the tools."""
    used = {node.image for node in made_of if node.image}
    return {
        name: {"digest": digest, "tools": {p.name: p.version for p in lock.packages}}
        for name, (digest, lock) in sorted(services.image_locks.items())
        if digest in used
    }
