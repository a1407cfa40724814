"""How many cards there are by status, and what the last forges came to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anvil.cli import options
from anvil.mainframe.mending import was_killed
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil status"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_home(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the counts."""
    with Services(options.settings(args)) as services:
        counts = {status.name.lower(): number for status, number in services.db.counts().items()}
        forges = services.db.forges()
        verdicts = {f.id: f.verdict or ("killed" if was_killed(services, f) else "") for f in forges}
    if args.json:
        import json

        rows = [{"id": f.id, "recipe": f.recipe, "started": f.started, "verdict": verdicts[f.id]} for f in forges]
        print(json.dumps({"cards": counts, "forges": rows}, indent=2))
        return 0
    print("  " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    for forge in forges:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(forge.started / 1e6))
        took = f"{(forge.ended - forge.started) / 1e6:.0f} s" if forge.ended else ""
        print(f"  {began}  {forge.recipe:<12} {verdicts[forge.id] or 'running':<12} {took}")
    return 0
