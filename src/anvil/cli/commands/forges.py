"""The forges of this home, newest last, with the numbers by which anvil diff knows them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from anvil.cli import options, terminal
from anvil.mainframe.history import Past
from anvil.mainframe.mending import was_killed
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

    from anvil.cortex.records import ForgeRun

EXAMPLE = "anvil forges --limit 5"

_ALL = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_home(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="the last N (default: 20)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the forges."""
    with Services(options.settings(args)) as services:
        forges = list(enumerate(services.db.forges(_ALL)[::-1], start=1))[-max(0, args.limit) or _ALL :]
        rows = [_row(services, number, forge) for number, forge in forges]
    if args.json:
        import json

        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started"] / 1e6))
        took = terminal.seconds(row["seconds"]) if row["verdict"] != "running" else ""
        cards = f"{row['ran']} ran, {row['kept']} kept" if row["ran"] or row["kept"] else ""
        print(f"  {row['number']:>4}  {began}  {row['recipe']:<12} {row['verdict']:<12} {took:>8}  {cards}".rstrip())
    if not rows:
        print("  no forge in this home yet: anvil forge")
    return 0


def _row(services: Services, number: int, forge: ForgeRun) -> dict[str, Any]:
    cards = Past(services.db, forge.deck).rows.values()
    ran = sum(card.ran for card in cards)
    return {
        "number": number,
        "id": forge.id,
        "recipe": forge.recipe,
        "started": forge.started,
        "seconds": (forge.ended - forge.started) / 1e6 if forge.ended else 0.0,
        "verdict": forge.verdict or ("killed" if was_killed(services, forge) else "running"),
        "ran": ran,
        "kept": sum(card.stat.name == "PUNCHED" for card in cards) - ran,
    }
