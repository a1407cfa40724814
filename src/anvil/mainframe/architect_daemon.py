"""The Architect: turns recipes and what they use into a deck, and writes the deck into the cortex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anvil.cortex.records import NewCard
from anvil.errors import RecipeError, UsageError
from anvil.mainframe.cellwork import run_evaluator
from anvil.mainframe.evaluation import DeckStore, evaluate, named_files
from anvil.mainframe.graph import Graph, Node, build_graph
from anvil.mainframe.plan import Fate, Planned, make_plan
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from anvil.model import near
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anvil.mainframe.services import Services


class Architect:
    """Reads recipes, plans, and pushes decks. The plan is pure; only ``push`` writes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def require(self, recipe: str) -> None:
        """Raise RecipeError for a recipe that is nowhere: before anything is made for its sake."""
        known = self._services.book.paths
        if recipe not in known:
            hint = near.hint(recipe, known, otherwise=f"known recipes: {', '.join(sorted(known))}")
            raise RecipeError(f"no recipe is called {recipe!r}", hint=hint)

    def draw(
        self,
        recipe: str,
        stopped: Callable[[], bool] = lambda: False,
        note: Callable[[str], None] = lambda _text: None,
    ) -> Graph:
        """The graph of a recipe and all it uses. Raises RecipeError, Interrupted; nothing of the deck is run.

        note: told when recipes must be evaluated, which takes a moment.
        """
        self.require(recipe)
        services = self._services

        def evaluator(request: bytes) -> bytes:
            note("evaluating the recipes …")
            return run_evaluator(services, stopped, request)

        store = DeckStore(services.db.get_deck, services.db.put_deck)
        decks = evaluate(
            recipe,
            book=services.book,
            lock=services.sources,
            store=store,
            cell=evaluator,
        )
        files = {(name, path): services.keep_file(name, path) for name, path in sorted(named_files(decks))}
        return build_graph(recipe, decks, sources=services.sources.sources, images=services.image_locks, files=files)

    def plan(self, graph: Graph) -> Mapping[str, Planned]:
        """What is kept and what would run."""
        services = self._services
        for card in sorted(services.settings.forced - graph.nodes.keys()):
            hint = near.hint(card, graph.nodes, otherwise=f"anvil plan {graph.wanted} --all shows all")
            raise UsageError(f"--force: no card is called {card!r}", hint=hint)
        return make_plan(graph, known=services.known, reference=services.reference, forced=services.settings.forced)

    def push(self, deck: str, graph: Graph, plan: Mapping[str, Planned]) -> None:
        """Write the deck, kept cards as punched already, in one transaction, and what goes into them."""
        services = self._services
        estimates = services.estimates(graph.nodes.values())
        priority = graph.depths(lambda node: max(1, round(estimates[node.id].expected)))
        with services.db.batch():
            services.db.push_deck(deck, [self._card(plan[name], priority[name]) for name in graph.nodes])
            for planned in plan.values():
                if planned.identity is not None:
                    services.db.note_identity(planned.identity.noted())
            services.db.note_pins(self._pins(graph))

    def clear_deck(self, deck: str) -> None:
        """Take a deck's cards that nobody is at off the stack; the ledger keeps what happened."""
        self._services.db.clear_deck(deck)

    def _pins(self, graph: Graph) -> dict[str, dict[str, Any]]:
        """What the digests of the sources and base images of a graph stand for."""
        pins: dict[str, dict[str, Any]] = {}
        for node in graph.nodes.values():
            name = node.id.partition("/")[2]
            if node.op == "image":
                digest, lock = self._services.image_locks[name]
                packages = {each.name: [each.version, each.file.sha256] for each in lock.packages}
                pins[digest] = {"image": name, "packages": packages}
            elif node.op == "fetch":
                source = self._services.sources.sources[name]
                pins[source.files[0].sha256] = {
                    "source": name,
                    "version": source.version,
                    "file": source.files[0].name,
                }
        return pins

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
