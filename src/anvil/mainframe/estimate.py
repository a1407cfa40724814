"""How long cards will take, with the spread: from earlier runs, else from the recipe's hint. Pure.

The middle of the last three runs is expected: one odd run (a busy machine) does not spoil it, and a change of the
recipe is followed after two. Runs by the very same key go before others of the card's name. A single run says little
of how much runs differ, so it is given a quarter each way; more runs show it themselves. A card that never ran is
expected to take what its recipe says, times what this machine took for others beside what theirs said.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anvil.mainframe.ops import HOST_OPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anvil.cortex.records import Run
    from anvil.mainframe.graph import Graph, Node

HOST_LANES = 3
"""Cards of the host set that run at once, besides the cells (see crew.HOST_WORKERS)."""

_LAST_RUNS = 3
_SPREAD_RUNS = 5
_ONE_RUN = 0.25
_LEAST_SPREAD = 0.10
_HINT = 2.0
_HINT_ELSEWHERE = 3.0
_WORTH_COMPARING = 2  # seconds: shorter hints say nothing of a machine's speed


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds. ground: "key", "card" (runs of that key, of that name) or "recipe" (its hint). runs: how many."""

    low: float
    expected: float
    high: float
    ground: Literal["key", "card", "recipe"]
    runs: int = 0


def estimates(
    nodes: Iterable[Node], runs: Mapping[str, Sequence[Run]], keys: Mapping[str, str] | None = None
) -> dict[str, Estimate]:
    """An estimate for each node. runs: of cards by id, newest first. keys: of nodes, where they are known."""
    listed = list(nodes)
    speed = _speed(listed, runs)
    found = {}
    for node in listed:
        past = runs.get(node.id, ())
        same = [run for run in past if keys and run.key == keys.get(node.id)]
        if past:
            found[node.id] = _from_runs(same or past, "key" if same else "card")
        else:
            wide = _HINT if speed else _HINT_ELSEWHERE
            expected = max(1, node.expect) * (speed or 1.0)
            found[node.id] = Estimate(low=expected / wide, expected=expected, high=expected * wide, ground="recipe")
    return found


def _from_runs(runs: Sequence[Run], ground: Literal["key", "card"]) -> Estimate:
    seconds = [run.milliseconds / 1000 for run in runs[:_SPREAD_RUNS]]
    expected = _median(seconds[:_LAST_RUNS])
    wide = _ONE_RUN if len(seconds) == 1 else _LEAST_SPREAD
    return Estimate(
        low=min(*seconds, expected * (1 - wide)),
        expected=expected,
        high=max(*seconds, expected * (1 + wide)),
        ground=ground,
        runs=len(runs),
    )


def _speed(nodes: Sequence[Node], runs: Mapping[str, Sequence[Run]]) -> float:
    """What this machine takes for a second of the recipes' hints; 0 when it has not run any of them."""
    ratios = [
        runs[node.id][0].milliseconds / 1000 / node.expect
        for node in nodes
        if node.expect >= _WORTH_COMPARING and runs.get(node.id)
    ]
    return _median(ratios) if ratios else 0.0


def wall_seconds(graph: Graph, seconds: Mapping[str, float], jobs: int) -> float:
    """How long the cards with these seconds take together, the others being done already.

    They are dealt out as the mainframe does it: what has the longest way behind it first, ``jobs`` cells at once.
    """
    below = graph.dependents()
    way: dict[str, float] = {}
    for name in reversed(list(graph.nodes)):
        way[name] = seconds.get(name, 0.0) + max((way[each] for each in below[name]), default=0.0)
    missing = {name: sum(need in seconds for need in graph.nodes[name].needs) for name in seconds}
    lanes = {False: jobs, True: HOST_LANES}
    ready: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
    running: list[tuple[float, str]] = []
    now = 0.0

    def offer(name: str) -> None:
        heapq.heappush(ready[graph.nodes[name].op in HOST_OPS], (-way[name], name))

    for name, count in missing.items():
        if not count:
            offer(name)
    while running or any(ready.values()):
        for kind, queue in ready.items():
            while queue and lanes[kind]:
                lanes[kind] -= 1
                name = heapq.heappop(queue)[1]
                heapq.heappush(running, (now + seconds[name], name))
        now, name = heapq.heappop(running)
        lanes[graph.nodes[name].op in HOST_OPS] += 1
        for each in below[name]:
            if each in missing:
                missing[each] -= 1
                if not missing[each]:
                    offer(each)
    return now


def _median(values: Sequence[float]) -> float:
    # The module statistics would cost 5 ms at every start.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
