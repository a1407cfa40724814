"""The last cards on the stack, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import options
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil stack --limit 40"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_home(parser)
    parser.add_argument("--limit", type=int, default=12, metavar="N", help="how many (default: 12)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the cards."""
    with Services(options.settings(args)) as services:
        cards = services.db.peek_stack(args.limit)
    if args.json:
        import json

        print(json.dumps([{"seq": c.seq, "id": c.id, "op": c.op, "stat": int(c.stat), "deck": c.deck} for c in cards]))
        return 0
    for card in cards:
        print(f"  {card.seq:>7}  {card.stat.name.lower():<10} {card.op:<8} {card.id}  ({card.deck})")
    return 0
