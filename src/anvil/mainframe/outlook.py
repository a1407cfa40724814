"""What a forge would do, as a person or a program reads it: every card's fate, how long, and where it may stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anvil.mainframe.estimate import wall_seconds
from anvil.mainframe.graph import StepRef
from anvil.mainframe.plan import Fate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anvil.mainframe.estimate import Estimate
    from anvil.mainframe.graph import Graph, Node
    from anvil.mainframe.plan import Planned
    from anvil.mainframe.services import Services


@dataclass(frozen=True, kw_only=True)
class Row:
    """A card of a plan. unless: what cuts it off: (card, path) pairs that, all the same as last time, keep it."""

    card: str
    recipe: str
    op: str
    fate: Fate
    key: str
    estimate: Estimate
    unless: tuple[tuple[str, str], ...] = ()

    def as_data(self) -> dict[str, Any]:
        """As JSON; seconds are those that are expected."""
        estimate = self.estimate
        return {
            "card": self.card,
            "op": self.op,
            "fate": self.fate.value,
            "seconds": round(estimate.expected, 3),
            "low": round(estimate.low, 3),
            "high": round(estimate.high, 3),
            "from": estimate.ground,
            "runs": estimate.runs,
            "key": self.key,
            "unless": [list(pair) for pair in self.unless],
        }


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A plan. rows: in the order in which they can run. work: seconds of cards. low, expected, high: of wall time.

    low: everything that may be cut off is; high: nothing is, and all takes long.
    """

    recipes: tuple[str, ...]
    rows: tuple[Row, ...]
    work: float
    low: float
    expected: float
    high: float

    def count(self, fate: Fate) -> int:
        """How many cards have that fate."""
        return sum(row.fate is fate for row in self.rows)

    def as_data(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "cards": [row.as_data() for row in self.rows],
            "kept": self.count(Fate.KEPT),
            "run": self.count(Fate.RUN),
            "may_run": self.count(Fate.MAY_RUN),
            "work": round(self.work, 3),
            "wall": {"low": round(self.low, 3), "expected": round(self.expected, 3), "high": round(self.high, 3)},
        }


def outlook(services: Services, graph: Graph, plan: Mapping[str, Planned]) -> Outlook:
    """The outlook of a plan."""
    keys = {name: planned.key for name, planned in plan.items() if planned.key}
    times = services.estimates(graph.nodes.values(), keys)
    rows = tuple(
        Row(
            card=name,
            recipe=planned.node.recipe,
            op=planned.node.op,
            fate=planned.fate,
            key=planned.key,
            estimate=times[name],
            unless=_unless(planned.node, plan),
        )
        for name, planned in plan.items()
    )
    left = [row for row in rows if row.fate is not Fate.KEPT]
    jobs = services.settings.jobs
    return Outlook(
        recipes=tuple(dict.fromkeys(row.recipe for row in rows)),
        rows=rows,
        work=sum(row.estimate.expected for row in left),
        low=wall_seconds(graph, {row.card: row.estimate.low for row in left if row.fate is Fate.RUN}, jobs),
        expected=wall_seconds(graph, {row.card: row.estimate.expected for row in left}, jobs),
        high=wall_seconds(graph, {row.card: row.estimate.high for row in left}, jobs),
    )


def _unless(node: Node, plan: Mapping[str, Planned]) -> tuple[tuple[str, str], ...]:
    """The things of cards that are not kept which go into a node that may run."""
    if plan[node.id].fate is not Fate.MAY_RUN:
        return ()
    refs = [(ref.node, ref.path) for ref in node.inputs.values() if isinstance(ref, StepRef)]
    taken = [*([(node.base, "")] if node.base else []), *refs]
    return tuple(dict.fromkeys(pair for pair in taken if plan[pair[0]].fate is not Fate.KEPT))
