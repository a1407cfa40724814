"""Planning: which cards are kept, which run, which may run. Pure; the two look-ups are handed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from anvil.mainframe.graph import BlobRef, Node
from anvil.mainframe.keys import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anvil.mainframe.graph import Graph, StepRef
    from anvil.mainframe.results import StepResult


class Fate(Enum):
    """What a plan says of a card."""

    KEPT = "kept"
    RUN = "run"
    MAY_RUN = "may run"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One card of a plan; key, what it is the hash of, and result where they are known."""

    node: Node
    fate: Fate
    key: str = ""
    identity: Identity | None = None
    result: StepResult | None = None


def make_plan(
    graph: Graph,
    *,
    known: Callable[[Node, str], StepResult | None],
    reference: Callable[[StepResult, StepRef], str],
    forced: frozenset[str] = frozenset(),
) -> Mapping[str, Planned]:
    """Walk the graph once.

    known: the kept result of a node and key, if there is one. reference: the digest of a file or folder of a result.
    forced: nodes that run whatever is kept. A card below one that runs *may* run: its key is not known before.
    """
    planned: dict[str, Planned] = {}
    for node in graph.nodes.values():
        results = {need: planned[need].result for need in node.needs}
        if any(planned[need].fate is not Fate.KEPT for need in data_needs(node)):
            planned[node.id] = Planned(node=node, fate=Fate.MAY_RUN)
            continue
        identity = node_identity(node, {need: result for need, result in results.items() if result}, reference)
        result = None if node.id in forced else known(node, identity.key)
        fate = Fate.KEPT if result else Fate.RUN
        planned[node.id] = Planned(node=node, fate=fate, key=identity.key, identity=identity, result=result)
    return planned


def node_key(node: Node, results: Mapping[str, StepResult], reference: Callable[[StepResult, StepRef], str]) -> str:
    """The key of a node whose needs have results."""
    identity = node_identity(node, results, reference)
    assert identity.key, f"something that {node.id} takes in has no result"
    return identity.key


def node_identity(
    node: Node, results: Mapping[str, StepResult], reference: Callable[[StepResult, StepRef], str]
) -> Identity:
    """What a node is given; what comes from a need without a result is not known yet."""
    inputs: dict[str, str | None] = {}
    for name, ref in node.inputs.items():
        if isinstance(ref, BlobRef):
            inputs[name] = ref.sha256
        else:
            inputs[name] = reference(results[ref.node], ref) if ref.node in results else None
    base: list[str] | None = []
    if node.base:
        base = [layer.digest for layer in results[node.base].stack] if node.base in results else None
    return Identity.of(node, base=base, inputs=inputs)


def data_needs(node: Node) -> list[str]:
    """The needs whose results go into the key."""
    taken = [ref.node for ref in node.inputs.values() if not isinstance(ref, BlobRef)]
    return [*([node.base] if node.base else []), *taken]
