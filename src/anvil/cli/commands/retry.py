"""Run a jammed card again: forge on with the recipe, profile and project of the forge in which it jammed.

A failure is never kept as a result, so a forge tries a jammed card again anyway; what was punched is kept. Here nobody
has to remember what was being forged.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import options
from anvil.errors import UsageError
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

    from anvil.cortex.records import ForgeRun
    from anvil.model.card import Card

EXAMPLE = "anvil retry kernel/build --jobs 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("card", nargs="?", metavar="CARD", help="the jammed card (default: the last one)")
    which.add_argument("--all", action="store_true", help="every jammed card, one forge after the other")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells and compiler jobs at once (default: all cores)")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: build_artifacts")
    parser.add_argument("--json", action="store_true", help="print MicroJSON, a message a line")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Forge on. The exit code is that of anvil forge: 1 when a card jams again; with --all the worst of them."""
    from anvil.mainframe import shell

    with Services(options.settings(args)) as services:
        cards = shell.jammed_cards(services)
        if args.card:
            cards = shell.of_name(services, args.card, cards)
        if not cards:
            raise UsageError("no card is jammed: there is nothing to retry", hint="anvil forge goes on where it was")
        chosen = _forges(services, cards if args.all else cards[:1])
    codes = []
    for forge in chosen:
        words = _words(forge, args)
        if not args.json:
            print(f"  {shlex.join(['anvil', 'forge', *words])}", flush=True)
        codes.append(_forge(words))
    return max(codes)


def _forges(services: Services, cards: list[Card]) -> list[ForgeRun]:
    """The forges in which they jammed, each once. Raises UsageError while one of them has not ended."""
    from anvil.mainframe import mending, shell

    found: dict[tuple[str, str], ForgeRun] = {}
    for card in cards:
        forge = shell.forge_of(services, card.deck)
        if forge is None:
            raise UsageError(f"it is not known what was being forged when {card.id} jammed", hint="anvil forge RECIPE")
        if not forge.ended and not mending.was_killed(services, forge):
            raise UsageError(
                f"the forge in which {card.id} jammed still runs",
                where=forge.id,
                hint="its other cards end first; then run this again",
            )
        found.setdefault((forge.recipe, forge.machine), forge)
    return list(found.values())


def _words(forge: ForgeRun, args: argparse.Namespace) -> list[str]:
    """The words of ``anvil forge`` that make it again."""
    from anvil.microjson.codec import parse_canonical

    machine = parse_canonical(forge.machine)
    words = [forge.recipe]
    words += ["--profile", machine["profile"]] if machine.get("profile", "debian") != "debian" else []
    words += ["--project", machine["project"]] if machine.get("project") else []
    words += ["--mainframe"] if "standing" in machine else []
    words += ["--jobs", str(args.jobs)] if args.jobs else []
    words += ["--output", str(args.output)] if args.output else []
    words += ["--home", str(args.home)] if args.home else []
    words += [flag for flag, given in (("--offline", args.offline), ("--json", args.json)) if given]
    return words


def _forge(words: list[str]) -> int:
    from anvil.cli import parsing

    code: int = parsing.command("forge").run(parsing.parser_of("forge").understand(words))
    return code
