"""What may come next on a command line, by the parsers that would read it: no list of words to keep up to date."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.cli import main, parsing
from anvil.cli.completion import values

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN = re.compile(r"[A-Za-z0-9_.+:/@=-]+")
"""Only such words are offered: a name with anything that a shell could take otherwise is not for it to put in."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What may come: each word with a line about it. paths: "files" or "dirs" when the shell is to offer those too."""

    words: tuple[tuple[str, str], ...] = ()
    paths: str = ""


def offer(words: Sequence[str]) -> Offer:
    """What may be in the place of the last word, which may be begun; words: all after ``anvil``.

    Nothing is printed and no error raised: where the words make no sense nothing is offered.
    """
    if not words:
        return Offer()
    if len(words) == 1:
        found = _commands()
    elif words[0] in main.command_names():
        found = _after(parsing.parser_of(words[0]), words)
    else:
        return Offer()
    fitting = ((word, about) for word, about in found.words if word.startswith(words[-1]) and _PLAIN.fullmatch(word))
    return Offer(words=tuple(fitting), paths=found.paths)


def _commands() -> Offer:
    listed = [(name, main.summary(name)) for name in main.command_names()]
    return Offer(words=(*listed, ("--help", "what the commands are"), ("--version", "the version")))


def _after(parser: parsing.Parser, words: Sequence[str]) -> Offer:
    place = _Place(parser=parser)
    for word in words[1:-1]:
        place.take(word)
    return place.offer(words[-1], values.Said.of(place.said))


@dataclass(kw_only=True)
class _Place:
    """How far a parser has come. owed: the option that still waits for its value."""

    parser: argparse.ArgumentParser
    owed: argparse.Action | None = None
    taken: int = 0
    plain: bool = False
    given: set[str] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)

    def take(self, word: str) -> None:
        """A word that is there already."""
        if self.owed is not None:
            self.said[self.owed.dest] = word
            self.owed = None
        elif word == "--" and not self.plain:
            self.plain = True
        elif word.startswith("-") and len(word) > 1 and not self.plain:
            self._take_option(word)
        elif (action := self._positional()) is not None:
            self._take_positional(action, word)

    def _take_option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        action = self._option(name)
        if action is None:
            return
        self.given.update(action.option_strings)
        if equals:
            self.said[action.dest] = value
        elif action.nargs != 0:
            self.owed = action

    def _take_positional(self, action: argparse.Action, word: str) -> None:
        if word in (below := parsing.subcommands(self.parser)) and _is_subcommand(action):
            self.parser, self.taken = below[word], 0
            return
        self.said[action.dest] = word
        if action.nargs in {None, "?"}:
            self.taken += 1

    def offer(self, begun: str, said: values.Said) -> Offer:
        """What may come in this place."""
        if self.owed is not None:
            return self._values(self.owed, said)
        if begun.startswith("-") and not self.plain:
            name, equals, _ = begun.partition("=")
            if not equals:
                return Offer(words=self._options())
            action = self._option(name)
            if action is None or action.nargs == 0:
                return Offer()
            found = self._values(action, said)
            return Offer(words=tuple((f"{name}={word}", about) for word, about in found.words))
        action = self._positional()
        if action is not None:
            return self._values(action, said)
        return Offer() if begun or self.plain else Offer(words=self._options())

    def _values(self, action: argparse.Action, said: values.Said) -> Offer:
        if _is_subcommand(action):
            below = parsing.subcommands(self.parser)
            return Offer(words=tuple((name, _first_line(one.description)) for name, one in below.items()))
        if action.choices is not None:
            return Offer(words=tuple((str(choice), "") for choice in action.choices))
        return Offer(words=tuple(values.known(action, said)), paths=values.path_kind(action))

    def _options(self) -> tuple[tuple[str, str], ...]:
        shown = []
        for action in self.parser._actions:  # noqa: SLF001 -- argparse has no other way to ask
            often = isinstance(action, argparse._AppendAction)  # noqa: SLF001
            if action.help != argparse.SUPPRESS and (often or self.given.isdisjoint(action.option_strings)):
                text = _first_line(action.help)
                shown += [(name, text) for name in action.option_strings if name.startswith("--")]
        return tuple(shown)

    def _option(self, name: str) -> argparse.Action | None:
        """The option of that name, or the one that it alone begins."""
        actions = [action for action in self.parser._actions if action.option_strings]  # noqa: SLF001
        exact = [action for action in actions if name in action.option_strings]
        begun = [action for action in actions if any(each.startswith(name) for each in action.option_strings)]
        found = exact or begun
        return found[0] if len(found) == 1 else None

    def _positional(self) -> argparse.Action | None:
        actions = [action for action in self.parser._actions if not action.option_strings]  # noqa: SLF001
        return actions[self.taken] if self.taken < len(actions) else None


def _is_subcommand(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)  # noqa: SLF001


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].rstrip(".")
