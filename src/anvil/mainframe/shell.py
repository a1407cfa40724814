"""Finding a card and the state that a shell shows of it: at its failure, before its script, or after it.

The card is looked for among the jams first, then on the stack, then in the recipes of the last forges and in the one
that its name begins with. Nothing is run and nothing is written but evaluated decks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.errors import RecipeError, UsageError
from anvil.mainframe import liveness
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.graph import Node
from anvil.mainframe.ops import operation
from anvil.mainframe.results import StepResult
from anvil.microjson.codec import MicroJSON, parse_canonical
from anvil.model.card import Status
from anvil.model.near import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anvil.cortex.records import ForgeRun
    from anvil.mainframe.cellwork import Script
    from anvil.mainframe.services import Services
    from anvil.model.card import Card

_FORGES_LOOKED_AT = 1000
_RECIPES_TRIED = 4


@dataclass(frozen=True, kw_only=True)
class Found:
    """A card, and what is known of it.

    results: those of its needs, all of them. result: its own, where it is kept. jam: why it jammed, "" if it did not;
    deck: then the deck in which it did. recipe: the recipe whose forge it is a card of.
    """

    node: Node
    script: Script
    results: Mapping[str, StepResult]
    recipe: str
    result: StepResult | None = None
    jam: str = ""
    deck: str = ""


@dataclass(kw_only=True)
class _Search:
    """What was met on the way, to be told when the card is not found."""

    services: Services
    card: str
    met: set[str] = field(default_factory=set)
    problem: RecipeError | None = None


def find(services: Services, card: str, *, recipe: str = "") -> Found:
    """The card of that name. recipe: of a forge of this recipe; else where it jammed, or was forged last.

    Raises UsageError for a name that no card has (with near ones), for a card in which there is no shell (with what
    else can be done), and for one whose needs have not been made.
    """
    search = _Search(services=services, card=card)
    with services.vault.generations.steady():
        for found in (_on_stack(search, recipe), _drawn(search, recipe)):
            if found is not None:
                return found
    if search.problem and (recipe or not search.met):
        raise search.problem
    raise unknown(card, search.met)


def unknown(card: str, names: Iterable[str], *, kind: str = "card") -> UsageError:
    """The error for a card that is not there. names: those that are. kind: what was looked for."""
    known = sorted(names)
    near = nearest(card, known)
    hint = f"there is: {', '.join(near)}" if near else "the cards of a recipe: anvil plan RECIPE"
    return UsageError(f"no {kind} is called {card!r}", hint=hint)


def forge_of(services: Services, deck: str) -> ForgeRun | None:
    """The forge that a deck is or was of."""
    return next((forge for forge in services.db.forges(_FORGES_LOOKED_AT) if forge.deck == deck), None)


def jammed_cards(services: Services) -> list[Card]:
    """Every jammed card on the stack, the last one first."""
    decks = [state.deck for state in services.db.decks() if state.jammed]
    cards = [card for deck in decks for card in services.db.cards(deck) if card.stat is Status.JAMMED]
    return sorted(cards, key=lambda card: card.seq, reverse=True)


def of_name(services: Services, name: str, jammed: list[Card]) -> list[Card]:
    """The jammed card of that name. Raises UsageError, saying how it is instead, or which names are near."""
    if chosen := [card for card in jammed if card.id == name]:
        return chosen[:1]
    others = [card for card in services.db.all_cards() if card.id == name]
    if not others:
        raise unknown(name, (card.id for card in jammed), kind="jammed card")
    card = max(others, key=lambda card: card.seq)
    if card.stat is Status.PROCESSING:
        holder = liveness.holder(services.home.workers, card.lease)
        by = f" in process {holder.pid}" if holder else ""
        raise UsageError(f"{name} is not jammed: it is running{by}", hint="anvil status")
    how = "done" if card.stat is Status.PUNCHED else "waiting to run"
    raise UsageError(f"{name} is not jammed: it is {how}", hint="anvil jam shows what is")


def _on_stack(search: _Search, recipe: str) -> Found | None:
    """The card as a deck on the stack has it: a jammed one first, then the newest."""
    services = search.services
    forges = {forge.deck: forge for forge in services.db.forges(_FORGES_LOOKED_AT)}
    there = services.db.all_cards()
    search.met |= {card.id for card in there}
    cards = [card for card in there if card.id == search.card]
    for card in sorted(cards, key=lambda card: (card.stat is Status.JAMMED, card.seq), reverse=True):
        forge = forges.get(card.deck)
        if recipe and (forge is None or forge.recipe != recipe):
            continue
        deck = {other.id: other for other in services.db.cards(card.deck)}
        node = Node.from_data(MicroJSON.decode(card.pld)["data"])
        results = {need: _stamped(deck[need]) for need in node.needs if need in deck}
        jam = str(MicroJSON.decode(card.ret)["data"]["message"]) if card.stat is Status.JAMMED else ""
        wanted = forge.recipe if forge else node.recipe
        return _found(node, results, recipe=wanted, result=_stamped(card), jam=jam, deck=card.deck)
    return None


def _stamped(card: Card) -> StepResult | None:
    return StepResult.from_data(MicroJSON.decode(card.ret)["data"]) if card.stat is Status.PUNCHED else None


def _drawn(search: _Search, recipe: str) -> Found | None:
    """The card as a recipe has it now, with what is kept."""
    services = search.services
    architect = Architect(services)
    for name in [recipe] if recipe else _recipes(services, search.card):
        try:
            graph = architect.draw(name)
        except RecipeError as error:
            search.problem = search.problem or error
            continue
        search.met |= graph.nodes.keys()
        if search.card in graph.nodes:
            plan = architect.plan(graph)
            node = graph.nodes[search.card]
            results = {need: plan[need].result for need in node.needs}
            return _found(node, results, recipe=name, result=plan[search.card].result)
    return None


def _recipes(services: Services, card: str) -> Iterator[str]:
    """The recipes in whose forge the card may be: of the last forges from the same place, then its own."""
    asked = services.settings
    names: dict[str, None] = {}
    for forge in services.db.forges(_FORGES_LOOKED_AT):
        machine = parse_canonical(forge.machine)
        same = machine.get("profile") == asked.profile and machine.get("project") == str(asked.project or "")
        if same and len(names) < _RECIPES_TRIED:
            names[forge.recipe] = None
    names[card.partition("/")[0]] = None
    yield from names


def _found(
    node: Node,
    results: Mapping[str, StepResult | None],
    *,
    recipe: str,
    result: StepResult | None,
    jam: str = "",
    deck: str = "",
) -> Found:
    script = _script(node)
    missing = [need for need in node.needs if results.get(need) is None and need in node.takes]
    if missing:
        raise UsageError(
            f"{node.id} needs {missing[0]}, which has not been made or is not kept any more",
            hint=f"anvil forge {recipe}",
        )
    made = {need: result for need, result in results.items() if result is not None}
    return Found(node=node, script=script, results=made, recipe=recipe, result=result, jam=jam, deck=deck)


def _script(node: Node) -> Script:
    """What the card runs in its cell. Raises UsageError for one that runs nothing in a cell of its own."""
    told = getattr(operation(node.op), "script", None)
    if told is not None:
        script: Script = told(node)
        return script
    reason, hint = _ELSEWHERE.get(node.op, ("it has no cell of its own", "anvil jam"))
    if node.op == "release":
        taken = next(iter(node.takes), "")
        hint = f"the tree it comes from: anvil shell {taken} --after" if taken else "anvil jam"
    raise UsageError(f"there is no shell in {node.id}: {reason}", hint=hint)


_ELSEWHERE = {
    "fetch": ("the fetcher works outside all cells", "its file is an input of the card that unpacks it"),
    "image": ("base images are made by Anvil itself", "a shell in a card that runs on it shows the image too"),
    "release": ("the output gate works outside all cells", ""),
    "boot": (
        "it runs a virtual machine",
        "boot the medium and speak to it: anvil boot FILE --run COMMAND; the console's text: anvil jam CARD --log",
    ),
    "forge": (
        "it runs a virtual machine",
        "the console's text: anvil jam CARD --log; the programs it is given: anvil shell of the cards it takes from",
    ),
}
