"""Planning: which cards are kept, which run, which may run. Pure; the two look-ups are handed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from anvil.mainframe.graph import BlobRef, Node
from anvil.mainframe.keys import card_key

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
    """One card of a plan; key and result where they are known."""

    node: Node
    fate: Fate
    key: str = ""
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
        if any(planned[need].fate is not Fate.KEPT for need in _data_needs(node)):
            planned[node.id] = Planned(node=node, fate=Fate.MAY_RUN)
            continue
        key = node_key(node, {need: result for need, result in results.items() if result}, reference)
        result = None if node.id in forced else known(node, key)
        planned[node.id] = Planned(node=node, fate=Fate.KEPT if result else Fate.RUN, key=key, result=result)
    return planned


def node_key(node: Node, results: Mapping[str, StepResult], reference: Callable[[StepResult, StepRef], str]) -> str:
    """The key of a node whose needs have results."""
    inputs = {}
    for name, ref in node.inputs.items():
        inputs[name] = ref.sha256 if isinstance(ref, BlobRef) else reference(results[ref.node], ref)
    base = [layer.digest for layer in results[node.base].stack] if node.base else []
    return card_key(node, base=base, inputs=inputs)


def _data_needs(node: Node) -> list[str]:
    """The needs whose results go into the key."""
    taken = [ref.node for ref in node.inputs.values() if not isinstance(ref, BlobRef)]
    return [*([node.base] if node.base else []), *taken]
