"""The names of things: recipes, cards, profiles, forges. Quick, read-only, and silent where there are none."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anvil
from anvil.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SUMMARY = re.compile(r'^r?"""(?:[^:"\n]*: )?([^"\n]*)')


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the words before say about where names come from."""

    project: Path | None
    home: Path

    @classmethod
    def of(cls, words: Mapping[str, str]) -> Said:
        """words: the values given so far, by the argument's name."""
        from anvil.mainframe import project

        home = options.home(argparse.Namespace(home=words.get("home") or None))
        named = words.get("project")
        return cls(project=Path(named).absolute() if named else project.find(Path.cwd()), home=home)


def path_kind(action: argparse.Action) -> str:
    """What an argument that is a path may be, by its type and how it is called in the help: "files", "dirs" or ""."""
    if action.metavar == "DIR":
        return "dirs"
    return "files" if action.type is Path or action.metavar in {"FILE", "PATH", "A", "B"} else ""


def known(action: argparse.Action, said: Said) -> Iterator[tuple[str, str]]:
    """The names that an argument may be, each with a line about it, by how it is called."""
    called = {str(action.metavar or "").casefold(), action.dest}
    if called & {"recipe", "recipes"}:
        yield from _recipes(said)
    elif called & {"card", "cards"}:
        yield from ((name, "") for name in _names(said, cards=True))
    elif called & {"profile"}:
        yield from ((name, "") for name in profiles())
    elif called & {"forge", "deck", "a", "b"}:
        yield from ((name, "") for name in _names(said, cards=False))


def profiles() -> list[str]:
    """The source locks that there are."""
    return sorted(path.stem for path in (Path(anvil.__file__).parent / "sources" / "locks").glob("*.json"))


def _recipes(said: Said) -> Iterator[tuple[str, str]]:
    from anvil.mainframe.book import RecipeBook

    for name, path in sorted(RecipeBook(project=said.project).paths.items()):
        yield name, _about(path)


def _about(recipe: Path) -> str:
    """The first sentence of a recipe's docstring, without its own name; the recipe is not run."""
    try:
        with recipe.open(encoding="utf-8", errors="replace") as file:
            match = _SUMMARY.match(file.readline(1000))
    except OSError:
        return ""
    return match[1].rstrip(".") if match else ""


def _names(said: Said, *, cards: bool) -> list[str]:
    path = said.home / "cortex.db"
    if not path.is_file():
        return []
    from anvil.cortex import glance

    return glance.names(path, cards=cards)
