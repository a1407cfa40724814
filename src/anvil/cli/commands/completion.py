"""Print what lets a shell complete the words of anvil: commands, options, recipes, cards, profiles and files.

The shell asks anvil itself each time, so there is nothing that could be out of date.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from anvil.cli import terminal
from anvil.errors import AnvilError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLE = 'anvil completion bash  # with eval: eval "$(anvil completion bash)"'

_SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("shell", nargs="?", choices=_SHELLS, help="whose")
    # what the scripts ask, the words after "anvil" on standard input, the last one begun; answered as _answer says
    parser.add_argument("--words", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    if args.words:
        _answer(sys.stdin.read().removesuffix("\n").split("\n"))
        return 0
    if args.shell is None:
        raise UsageError("which shell?", hint="anvil completion bash, zsh or fish")
    from anvil.cli.completion import scripts

    print(scripts.OF_SHELL[args.shell], end="")
    return 0


def _answer(words: Sequence[str]) -> None:
    """A line for each word that fits, a tab and what it is; ":files" or ":dirs" where the shell is to offer those."""
    from anvil.cli.completion.words import offer

    with contextlib.suppress(AnvilError, OSError):  # nobody wants to read of it in the middle of a command line
        found = offer(words)
        if found.paths:
            print(f":{found.paths}")
        for word, about in found.words:
            print(f"{word}\t{terminal.plain(about)}")
