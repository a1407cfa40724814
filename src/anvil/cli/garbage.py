"""``anvil vault gc``: its words, and what it prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.cli.progress import Progress
from anvil.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from anvil.mainframe.garbage import Line, Report

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_DEFAULT_AGE = "30d"
_LONGEST = 1000 * 366 * 86_400.0
"""What an age is at most, in seconds: nothing is so old, and the database's whole numbers hold it in microseconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        help=f"what was not of use for so long goes: 12h, 30d, 4w, 0 (default: {_DEFAULT_AGE}, without --keep-size)",
    )
    parser.add_argument(
        "--keep-size", metavar="SIZE", help="least lately used first, until the home is so small: 500MB, 20GB, 0"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go, and why the rest stays")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Collect. 0: done."""
    from anvil.mainframe.garbage import Collection
    from anvil.mainframe.garbage_choice import Policy
    from anvil.mainframe.services import Services

    age = args.older_than if args.older_than or args.keep_size else _DEFAULT_AGE
    policy = Policy(older=seconds(age) if age else None, keep=size(args.keep_size) if args.keep_size else None)
    stopped = "stopped; what was taken away so far is gone, all else is whole"
    progress = Progress(stopped=stopped, quiet=args.json)
    with progress, Services(options.settings(args), least_free=0) as services:
        report = Collection(services, policy, tell=progress.tell).run(dry=args.dry_run)
    if args.json:
        import json

        lines = {"gone": report.gone, "stays": report.stays}
        facts = {name: [vars(line) for line in each] for name, each in lines.items()}
        print(json.dumps({**facts, "total": report.total, "freed": report.freed, "dry": args.dry_run}, indent=2))
    else:
        _show(report, dry=args.dry_run)
    return 0


def seconds(text: str) -> float:
    """An age: a number with s, m, h, d or w; 0 needs none. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match:
        return min(float(match[1]) * _SECONDS[match[2]], _LONGEST)
    if text == "0":
        return 0.0
    raise UsageError(f"--older-than {text!r} is no age", hint="a number with s, m, h, d or w: 30d")


def size(text: str) -> int:
    """A size in powers of ten: 20GB, 500M, 0. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.upper())
    if not match:
        raise UsageError(f"--keep-size {text!r} is no size", hint="a number with MB, GB or TB: 20GB")
    return int(float(match[1]) * _BYTES[match[2]])


def _show(report: Report, *, dry: bool) -> None:
    print("  would go:" if dry else "  gone:")
    for line in report.gone or []:
        _show_line(line)
    if not report.gone:
        print("    nothing")
    if dry:
        print("  stays (what several need is counted for the first):")
        for line in report.stays:
            _show_line(line)
    rest = terminal.size(max(0, report.total - report.freed))
    word = "would be freed" if dry else "freed"
    print(f"  {terminal.size(report.freed)} {word} of {terminal.size(report.total)}, {rest} stay")


def _show_line(line: Line) -> None:
    amount = terminal.size(line.size) if line.size else ""
    print(f"    {amount:>8}  {line.count:>6} {line.what:<10} {terminal.plain(line.why)}")
