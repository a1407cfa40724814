"""The Architect: turns recipes and what they use into a deck, and writes the deck into the cortex."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING

from anvil.cortex.records import NewCard
from anvil.errors import UsageError
from anvil.mainframe.cellwork import run_evaluator
from anvil.mainframe.evaluation import DeckStore, evaluate, named_files
from anvil.mainframe.graph import Graph, Node, build_graph
from anvil.mainframe.plan import Fate, Planned, make_plan
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anvil.mainframe.services import Services


class Architect:
    """Reads recipes, plans, and pushes decks. The plan is pure; only ``push`` writes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def draw(self, recipe: str, stopped: Callable[[], bool] = lambda: False) -> Graph:
        """The graph of a recipe and all it uses. Raises RecipeError, Interrupted; nothing of the deck is run."""
        services = self._services
        store = DeckStore(services.db.get_deck, services.db.put_deck)
        decks = evaluate(
            recipe,
            book=services.book,
            lock=services.sources,
            store=store,
            cell=partial(run_evaluator, services, stopped),
        )
        files = {(name, path): services.keep_file(name, path) for name, path in sorted(named_files(decks))}
        return build_graph(recipe, decks, sources=services.sources.sources, images=services.image_locks, files=files)

    def plan(self, graph: Graph) -> Mapping[str, Planned]:
        """What is kept and what would run."""
        services = self._services
        for card in sorted(services.settings.forced - graph.nodes.keys()):
            near = difflib.get_close_matches(card, graph.nodes, n=3)
            raise UsageError(
                f"--force: no card is called {card!r}", hint=f"there is: {', '.join(near)}" if near else ""
            )
        return make_plan(graph, known=services.known, reference=services.reference, forced=services.settings.forced)

    def push(self, deck: str, graph: Graph, plan: Mapping[str, Planned]) -> None:
        """Write the deck, kept cards as punched already, in one transaction."""
        priority = graph.depths(self._services.estimate)
        self._services.db.push_deck(deck, [self._card(plan[name], priority[name]) for name in graph.nodes])

    def clear_deck(self, deck: str) -> None:
        """Take a deck's cards that nobody is at off the stack; the ledger keeps what happened."""
        self._services.db.clear_deck(deck)

    def _card(self, planned: Planned, priority: int) -> NewCard:
        node: Node = planned.node
        kept = planned.fate is Fate.KEPT and planned.result is not None
        ret = ""
        if kept and planned.result is not None:
            ret = MicroJSON.message(MessageID.CARD_RESULT, planned.result.as_data()).decode()
        return NewCard(
            id=node.id,
            op=node.op,
            pld=MicroJSON.message(MessageID.CARD_PAYLOAD, node.as_data()).decode(),
            needs=node.needs,
            key=planned.key,
            stat=Status.PUNCHED if kept else Status.PENDING,
            ret=ret,
            priority=priority,
        )
