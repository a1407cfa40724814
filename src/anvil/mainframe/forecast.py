"""What the faces are told of the time that cards will take; see estimate for where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.plan import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anvil.mainframe.estimate import Estimate
    from anvil.mainframe.graph import Graph
    from anvil.mainframe.plan import Planned
    from anvil.mainframe.services import Services


def forecast(services: Services, graph: Graph, to_do: Iterable[Planned]) -> dict[str, list[int]]:
    """Of each card that will or may run: low, expected, high and way, in milliseconds.

    low is 0 for a card that may be cut off. way: what is expected until everything that needs the card is done, were
    nothing else to do; with it a face knows the longest way that is left without knowing the graph.
    """
    listed = list(to_do)
    keys = {planned.node.id: planned.key for planned in listed if planned.key}
    times = services.estimates([planned.node for planned in listed], keys)
    way = _ways(graph, times)
    return {
        planned.node.id: [
            0 if planned.fate is Fate.MAY_RUN else _ms(times[planned.node.id].low),
            _ms(times[planned.node.id].expected),
            _ms(times[planned.node.id].high),
            _ms(way[planned.node.id]),
        ]
        for planned in listed
    }


def _ways(graph: Graph, times: dict[str, Estimate]) -> dict[str, float]:
    below = graph.dependents()
    way: dict[str, float] = {}
    for name in reversed(list(graph.nodes)):
        own = times[name].expected if name in times else 0.0
        way[name] = own + max((way[each] for each in below[name]), default=0.0)
    return way


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
