"""Reading a recipe's deck: plain data as ``Recipe.deck`` gives it."""

from __future__ import annotations

from typing import Any


def references(deck: dict[str, Any]) -> list[dict[str, Any]]:
    """Every reference in a deck: of its steps' inputs, its exports and its artifacts."""
    refs = [ref for step in deck["steps"] for ref in step["inputs"].values()]
    refs += [ref for artifact in deck["artifacts"].values() for ref in artifact["opener"].values()]
    return refs + [entry["ref"] for table in ("exports", "artifacts") for entry in deck[table].values()]


def uses(deck: dict[str, Any]) -> list[str]:
    """The recipes that a deck refers to, sorted."""
    return sorted({ref["use"][0] for ref in references(deck) if "use" in ref})
