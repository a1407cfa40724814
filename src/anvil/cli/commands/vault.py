"""The content store: ``anvil vault verify`` reads every byte that is kept and names what is damaged.

With --mend what is damaged is taken away, with the results that need it; the next forge makes it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil vault verify --mend"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("what", choices=("verify",), help="verify: read every byte")
    parser.add_argument("--mend", action="store_true", help="take damaged things away, to be made again")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Verify. 0: all is whole. 1: something is damaged."""
    from anvil.vault.discard import discard
    from anvil.vault.verify import verify

    with Services(options.settings(args)) as services:
        damaged = 0
        for finding in verify(services.vault, layers=services.kept_layers()):
            damaged += 1
            print(f"  {finding.kind}  {finding.subject}: {terminal.plain(finding.message)}")
            if args.mend and finding.kind != "layer":
                discard(finding.path)
            elif not args.mend:
                print(f"    next: {finding.mend}")
        if args.mend and damaged:
            print(f"  {services.forget_damaged()} results forgotten: the next forge makes them again")
    print(f"  {damaged} damaged" if damaged else "  everything kept is whole")
    return 1 if damaged else 0
