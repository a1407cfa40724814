"""Is a push of cards a deck that can be done? Decided without the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.errors import RecipeError
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anvil.cortex.records import NewCard


def check_deck(deck: str, cards: Sequence[NewCard], present: Collection[str]) -> None:
    """Raise RecipeError for a card that is there twice, an unknown need, or a cycle.

    present: those of the ids and needs of ``cards`` that the deck in the cortex has already.
    """
    new: dict[str, NewCard] = {}
    for card in cards:
        if card.id in new or card.id in present:
            raise RecipeError("two cards of a deck have one id", where=_where(deck, card.id))
        if card.stat is Status.PROCESSING:
            raise RecipeError("a card cannot be pushed as processing", where=_where(deck, card.id))
        new[card.id] = card
    for card in cards:
        for need in card.needs:
            if need not in new and need not in present:
                raise RecipeError(f"a card needs {need!r}, which is not in its deck", where=_where(deck, card.id))
    if rest := _in_cycles(new):
        path = " needs ".join(_one_cycle(rest))
        raise RecipeError(f"cards need each other in a circle: {path}", where=deck)


def _in_cycles(cards: dict[str, NewCard]) -> dict[str, NewCard]:
    # Kahn's algorithm: what is left when every card without open needs has been taken away.
    if not any(card.needs for card in cards.values()):
        return {}
    open_needs = {card.id: sum(need in cards for need in set(card.needs)) for card in cards.values()}
    needed_by: dict[str, list[str]] = {}
    for card in cards.values():
        for need in set(card.needs):
            needed_by.setdefault(need, []).append(card.id)
    free = [each for each, count in open_needs.items() if count == 0]
    while free:
        done = free.pop()
        del open_needs[done]
        for each in needed_by.get(done, ()):
            open_needs[each] -= 1
            if open_needs[each] == 0:
                free.append(each)
    return {each: cards[each] for each in open_needs}


def _one_cycle(rest: dict[str, NewCard]) -> list[str]:
    # Every card left has a need that is left: following them must come round.
    path: list[str] = []
    here = min(rest)
    while here not in path:
        path.append(here)
        here = next(need for need in rest[here].needs if need in rest)
    return [*path[path.index(here) :], here]


def _where(deck: str, card: str) -> str:
    return f"{deck}: {card}" if deck else card
