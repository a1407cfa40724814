"""The jammed cards of the last forge: what, where, why, the log's end and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import options, report
from anvil.mainframe.forge import describe_jam, forge_command
from anvil.mainframe.services import Services
from anvil.microjson.codec import parse_canonical
from anvil.model.card import Status

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil jam"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Print the jams. 0: there is none. 1: there is."""
    with Services(options.settings(args)) as services:
        for forge in services.db.forges(1):
            jams = [card for card in services.db.cards(forge.deck) if card.stat is Status.JAMMED]
            machine = parse_canonical(forge.machine)
            command = forge_command(forge.recipe, machine.get("profile", "debian"), machine.get("project", ""))
            for card in jams:
                report.show_jam(describe_jam(services, card, command))
            if jams:
                return 1
    print("  no card is jammed")
    return 0
