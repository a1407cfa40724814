"""A recipe of which everything has been forged: its graph, and what every card left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.errors import AnvilError
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.graph import BlobRef, behind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anvil.mainframe.graph import Graph, Node
    from anvil.mainframe.plan import Planned
    from anvil.mainframe.results import StepResult
    from anvil.mainframe.services import Services

_HOST = frozenset({"sources", "images"})


@dataclass(frozen=True, kw_only=True)
class Finished:
    """plan: every card of the graph, kept, with key and result."""

    graph: Graph
    plan: Mapping[str, Planned]

    @classmethod
    def of(cls, services: Services, recipe: str) -> Finished:
        """Evaluate and plan; nothing is run. Raises AnvilError when something of it is not kept."""
        architect = Architect(services)
        graph = architect.draw(recipe)
        plan = architect.plan(graph)
        lacking = [name for name, planned in plan.items() if planned.result is None]
        if lacking:
            raise AnvilError(
                f"{recipe} is not forged as its recipe is now: {len(lacking)} cards lack, {lacking[0]} first",
                hint=f"anvil forge {recipe}",
            )
        return cls(graph=graph, plan=plan)

    def result(self, node: Node) -> StepResult:
        """What a card left."""
        result = self.plan[node.id].result
        if result is None:
            raise AnvilError(f"{node.id} is not forged")
        return result

    def behind(self, node: Node) -> list[Node]:
        """Every card whose bytes went into ``node``, and itself; no work of the host set."""
        return [one for one in [*behind(self.graph.nodes, node), node] if one.recipe not in _HOST]

    def sources(self, nodes: Sequence[Node]) -> list[str]:
        """The names of the sources that these cards take in, sorted."""
        taken = {ref.node for node in nodes for ref in node.inputs.values() if isinstance(ref, BlobRef) and ref.node}
        return sorted(name.partition("/")[2] for name in taken)
