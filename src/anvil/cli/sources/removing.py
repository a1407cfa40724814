"""``anvil sources remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli.sources.telling import print_json

if TYPE_CHECKING:
    import argparse

    from anvil.mainframe.services import Services

TEXT = """Take a source of your own out of the project's lock.

What was fetched stays in the vault until it is old (anvil vault gc); a file in the project's folder stays as well."""

EXAMPLE = "anvil sources remove lua5.4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument("name", help="the source")


def run(services: Services, args: argparse.Namespace) -> int:
    """Take it out. 0."""
    from anvil.mainframe.pinning import unpin

    lock = unpin(services, args.name)
    if args.json:
        print_json({"name": args.name, "lock": str(lock)})
    else:
        print(f"  {args.name} is no longer pinned in {lock}")
    return 0
