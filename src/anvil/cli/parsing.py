"""The parser of a command, and what is said when its words are wrong."""

from __future__ import annotations

import argparse
import importlib
import shlex
from typing import TYPE_CHECKING, Any

from anvil.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType


def command(name: str) -> ModuleType:
    """The module of a command that there is."""
    return importlib.import_module(f"anvil.cli.commands.{name}")


def parser_of(name: str) -> Parser:
    """The parser of a command that there is."""
    module: Any = command(name)
    parser = Parser(
        prog=f"anvil {name}",
        description=module.__doc__,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


class Parser(argparse.ArgumentParser):
    """As argparse's, but that what is wrong is a UsageError, and a mistyped word is told what it may have meant."""

    def error(self, message: str) -> Any:
        """Raise UsageError."""
        raise UsageError(message, hint=f"{self.prog} --help")

    def understand(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say. Raises UsageError for wrong ones; --help prints and raises SystemExit(0)."""
        found, extra = self.parse_known_args(words)
        for word in extra:
            if word.startswith("-"):
                raise self._no_option(word.partition("=")[0], words)
        if extra:
            self.error(f"unrecognized arguments: {shlex.join(extra)}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own check of ``choices``, which also finds a sub-command
        if action.choices is None or value in action.choices:
            return
        from anvil.model import near

        known = [str(choice) for choice in action.choices]
        word = f"{self.prog} {{}}" if isinstance(action, argparse._SubParsersAction) else "{}"  # noqa: SLF001
        name = "/".join(action.option_strings) or str(action.metavar or action.dest)
        raise UsageError(
            f"{name}: {str(value)!r} is none of {', '.join(known)}",
            hint=near.hint(str(value), known, otherwise=f"{self.prog} --help", form=word),
        )

    def _no_option(self, option: str, words: Sequence[str]) -> UsageError:
        from anvil.model import near

        chosen = self._chosen(words)
        known = [name for parser in chosen for name in options_of(parser)]
        program = chosen[-1].prog
        hint = near.hint(option, known, otherwise=f"{self.prog} --help", form=f"{program} {{}}")
        return UsageError(f"{program} has no option {option}", hint=hint)

    def _chosen(self, words: Sequence[str]) -> list[argparse.ArgumentParser]:
        """This parser and those of the sub-commands among the words."""
        chosen: list[argparse.ArgumentParser] = [self]
        for word in words:
            if (below := subcommands(chosen[-1]).get(word)) is not None:
                chosen.append(below)
        return chosen


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The sub-commands of a parser by name; none for most."""
    for action in parser._actions:  # noqa: SLF001 -- argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser, as they are written."""
    for action in parser._actions:  # noqa: SLF001
        yield from action.option_strings
