"""Read the ledger and check its chain from the first event to the last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.mainframe.services import Services
from anvil.microjson.registry import message_id

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil audit --last 20"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_home(parser)
    parser.add_argument("--last", type=int, default=0, metavar="N", help="print the last N events too")


def run(args: argparse.Namespace) -> int:
    """Check the chain. 0: it is whole. 1: it is broken, and where."""
    with Services(options.settings(args)) as services:
        count = services.db.verify_ledger()
        for event in services.db.events(after=count - args.last) if args.last else []:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.at_us / 1e6))
            print(f"  {event.seq:>7}  {at}Z  {_name(event.kind):<18} {terminal.plain(event.body)}")
    print(f"  {count} events, the chain is whole")
    return 0


def _name(kind: int) -> str:
    try:
        return message_id(kind).name.lower()
    except KeyError:
        return str(kind)
