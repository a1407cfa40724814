"""Reading recipes' decks: plain data as ``Recipe.deck`` gives it. The evaluator and the host both read by these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Data = dict[str, Any]


def references(deck: Data) -> list[Data]:
    """Every reference in a deck: of its steps' inputs, its exports, its artifacts and what it adds to others.

    One with "of" was added by the recipe of that name, and is meant as that one means it.
    """
    refs = [ref for step in deck["steps"] for ref in step["inputs"].values()]
    refs += [ref for artifact in deck["artifacts"].values() for ref in artifact["opener"].values()]
    refs += [ref for addition in deck["additions"] for ref in addition["refs"].values()]
    return refs + [entry["ref"] for table in ("exports", "artifacts") for entry in deck[table].values()]


def uses(deck: Data) -> list[str]:
    """The recipes that a deck refers to, sorted; not the one it extends."""
    return sorted({ref["use"][0] for ref in references(deck) if "use" in ref})


def received(chain: Sequence[Data], recipe: str) -> list[Data]:
    """What a chain of extenders, outermost first, adds to a recipe: innermost first, each with its "by"."""
    return [
        {"by": deck["recipe"], **{key: addition[key] for key in ("slot", "name", "value", "refs")}}
        for deck in reversed(chain)
        for addition in deck["additions"]
        if addition["recipe"] == recipe
    ]


def extenders(chain: Sequence[Data], recipe: str) -> list[str]:
    """The recipes of a chain, outermost first, that extend a recipe: those before it where it is in the chain or next.

    A recipe that is only used is extended by none, whatever is added to it.
    """
    names = [deck["recipe"] for deck in chain]
    if recipe in names:
        return names[: names.index(recipe)]
    return names if chain and chain[-1]["extends"] == recipe else []
