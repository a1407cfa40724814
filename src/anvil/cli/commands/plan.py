"""What a forge would do: which cards are kept, which run, which may run, and about how long; nothing is run.

Only the recipes themselves are evaluated, in a cell. A card below one that runs *may* run: when that one makes the
same bytes as last time, everything below it is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.mainframe.forge import Forge, Quiet
from anvil.mainframe.plan import Fate

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil plan iso"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_forge(parser, output=False)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan. Always 0 when there is one."""
    settings = options.settings(args)
    rows = Forge(settings, Quiet(), stopped=lambda: False).plan(args.recipe)
    if args.json:
        import json

        cards = [{"card": r.card, "op": r.op, "fate": r.fate.value, "seconds": r.seconds, "key": r.key} for r in rows]
        print(json.dumps({"recipe": args.recipe, "profile": settings.profile, "cards": cards}, indent=2))
        return 0
    for row in rows:
        estimate = "" if row.fate is Fate.KEPT else f"  about {terminal.seconds(row.seconds)}"
        print(f"  {row.fate.value:<8} {row.op:<8} {row.card}{estimate}")
    left = [row for row in rows if row.fate is not Fate.KEPT]
    total = sum(row.seconds for row in left)
    print(f"\n  {len(rows) - len(left)} kept, {sum(r.fate is Fate.RUN for r in left)} run,", end=" ")
    print(f"{sum(r.fate is Fate.MAY_RUN for r in left)} may run: {terminal.seconds(total)} of work, ", end="")
    print(f"about {terminal.seconds(total / settings.jobs)} on {settings.jobs} cores")
    return 0
