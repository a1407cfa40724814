"""What a forge would do: which cards are kept, which run, which may run, and about how long; nothing is run.

Only the recipes themselves are evaluated, in a cell. A card below one that runs *may* run: when that one makes the
same bytes as last time, it stops there, and all below is kept. Times are those of earlier runs, from the shortest to
the longest; where there is none, the recipe's own hint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import options, outline, terminal
from anvil.mainframe.forge import Forge, Quiet
from anvil.mainframe.outlook import outlook
from anvil.mainframe.plan import Fate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from anvil.mainframe.estimate import Estimate
    from anvil.mainframe.outlook import Outlook, Row

EXAMPLE = "anvil plan iso\n  anvil plan iso --all"

_MOST_NAMED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_forge(parser, output=False)
    parser.add_argument("--all", action="store_true", help="show every card that is kept, too")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan. Always 0 when there is one."""
    settings = options.settings(args)
    with Forge(settings, Quiet(), stopped=lambda: False).planned(args.recipe) as (services, graph, plan):
        found = outlook(services, graph, plan)
    if args.json:
        import json

        print(json.dumps({"recipe": args.recipe, "profile": settings.profile, **found.as_data()}, indent=2))
        return 0
    for line in _tree(found, whole=args.all):
        print(line)
    print()
    for line in _total(found, settings.jobs):
        print(line)
    return 0


def _tree(found: Outlook, *, whole: bool) -> Iterator[str]:
    """Recipes and their cards; recipes of which everything is kept in one paragraph at the end."""
    untouched = []
    fresh = frozenset(row.card for row in found.rows if row.estimate.ground == "recipe")
    for recipe in found.recipes:
        rows = [row for row in found.rows if row.recipe == recipe]
        shown = [row for row in rows if whole or row.fate is not Fate.KEPT]
        if not shown:
            untouched.append(f"{recipe} ({len(rows)})")
            continue
        yield recipe
        yield from _cards(shown, len(rows) - len(shown), fresh)
    if untouched:
        yield from outline.filled(f"all kept: {', '.join(untouched)}", rest="  ")


def _cards(rows: Sequence[Row], more: int, fresh: frozenset[str]) -> Iterator[str]:
    """A recipe's cards. more: how many are not shown. fresh: cards that never ran, and cannot give the same again."""
    branch, last, below, nothing = outline.branches()
    columns = outline.width()
    for number, row in enumerate(rows):
        end = number == len(rows) - 1 and not more
        first, rest = (last, nothing) if end else (branch, below)
        name = f"{row.fate.value:<8} {row.card.partition('/')[2]}"
        time = "" if row.fate is Fate.KEPT else _time(row.estimate)
        if len(first) + len(name) + 2 + len(time) <= columns:
            yield f"{first}{name}  {time}".rstrip()
        else:
            yield outline.cut(first + name, columns)
            yield from outline.filled(time, first=rest + " " * 9, rest=rest + " " * 9)
        if row.unless and fresh.isdisjoint({row.card, *(card for card, _ in row.unless)}):
            yield from outline.filled(_unless(row), first=rest + " " * 9, rest=rest + " " * 9)
    if more:
        yield f"{last}{more} kept"


def _time(estimate: Estimate) -> str:
    low, expected, high = map(terminal.seconds, (estimate.low, estimate.expected, estimate.high))
    if estimate.ground == "recipe":
        return f"{expected} ({low} to {high}, never ran here)"
    return expected if low == high else f"{expected} ({low} to {high})"


def _unless(row: Row) -> str:
    things: dict[str, list[str]] = {}
    for card, path in row.unless:
        things.setdefault(card, []).append(path)
    if len(things) > _MOST_NAMED:
        return f"stops here if {len(things)} cards give the same bytes"
    named = [
        f"{card} gives the same {' and '.join(p for p in paths if p) or 'bytes'}" for card, paths in things.items()
    ]
    return terminal.plain(f"stops here if {' and '.join(named)}")


def _total(found: Outlook, jobs: int) -> Iterator[str]:
    kept, runs, may = (found.count(fate) for fate in (Fate.KEPT, Fate.RUN, Fate.MAY_RUN))
    yield from outline.filled(f"{kept} kept, {runs} run, {may} may run", first="  ", rest="  ")
    if runs or may:
        low, high = terminal.seconds(found.low), terminal.seconds(found.high)
        text = f"about {terminal.seconds(found.expected)} on {jobs} jobs ({low} to {high}); "
        text += f"{terminal.seconds(found.work)} of work"
        yield from outline.filled(text, first="  ", rest="  ")
