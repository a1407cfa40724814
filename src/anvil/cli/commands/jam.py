"""The jammed cards: what, where, why, the log's telling lines and its end, and the next command."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import options, report, terminal
from anvil.errors import UsageError
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

    from anvil.mainframe.jamreport import JamReport

EXAMPLE = "anvil jam kernel/config --log | less"

_BLOCK = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("card", nargs="?", metavar="CARD", help="only this one (default: every jammed card)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--log", action="store_true", help="print the whole log, its control characters made visible")
    what.add_argument("--json", action="store_true", help="print JSON")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Print the jams. 0: there is none, or --log printed one's log. 1: there is."""
    from anvil.mainframe import jamreport, shell

    with Services(options.settings(args)) as services:
        cards = shell.jammed_cards(services)
        if args.card:
            cards = shell.of_name(services, args.card, cards)
        reports = [jamreport.report(services, card) for card in (cards[:1] if args.log else cards)]
    if args.log:
        return _show_log(reports)
    if args.json:
        import json

        print(json.dumps({"jams": [each.as_data() for each in reports]}, indent=2))
    elif not reports:
        print("  no card is jammed")
    else:
        for each in reports:
            report.show_jam_in_full(each)
    return 1 if reports else 0


def _show_log(reports: list[JamReport]) -> int:
    if not reports:
        raise UsageError("no card is jammed, so there is no log to show", hint="anvil stack")
    if not reports[0].jam.log:
        raise UsageError(f"the log of {reports[0].jam.card} is not kept any more", hint="anvil retry")
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    with Path(reports[0].jam.log).open("rb") as file:
        while block := file.read(_BLOCK):
            sys.stdout.write(terminal.plain(decoder.decode(block)))
    sys.stdout.write(terminal.plain(decoder.decode(b"", final=True)))
    return 0
