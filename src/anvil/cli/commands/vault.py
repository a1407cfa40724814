"""The content store: verify reads every byte that is kept, gc takes away what nobody needs any more.

verify      read every byte, and name what is damaged; with --mend it is taken away, to be made again
gc          take garbage away, by age or until the home is small enough; also while forges run
export-oss  write what was forged, and what it was made from, as a tree of plain folders
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from anvil.cli import garbage, options, oss, terminal
from anvil.cli.progress import Progress
from anvil.errors import AnvilError
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    from anvil.vault.verify import Finding

EXAMPLE = "anvil vault verify --mend\n  anvil vault gc --dry-run"

_VERIFY = """Read every byte that the vault keeps, and name what is damaged.

With --mend that is taken away, with the results that need it, and the next forge makes it again. Exit code 1 says that
something was damaged, also when it was mended."""

_GC = """Take away what nobody needs any more; at any time, also while forges run.

Released artifacts stay with all they were made from, as long as they are where they were put, and so do jammed cards,
running forges and cards on the stack with all they need. Of the rest, what was not of use for --older-than goes, or
what was used least lately until the home has --keep-size."""

_GC_EXAMPLE = "anvil vault gc --dry-run\n  anvil vault gc --older-than 2w --keep-size 20GB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="verify|gc|export-oss")
    one = _action(actions, "verify", _VERIFY, "anvil vault verify --mend")
    one.add_argument("--mend", action="store_true", help="take damaged things away, to be made again")
    one = _action(actions, "gc", _GC, _GC_EXAMPLE)
    garbage.add_arguments(one)
    one = _action(actions, "export-oss", oss.TEXT, oss.EXAMPLE)
    oss.add_arguments(one)


def _action(actions: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, description=text, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_home(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Verify. 0: all is whole. 1: something is damaged. The others: 0. 1, too, where there is no home."""
    if not (home := options.home(args)).exists():
        raise AnvilError(
            f"there is no home of Anvil at {home}", hint="anvil forge makes one; --home DIR names another"
        )
    actions = {"verify": _verify, "gc": garbage.run, "export-oss": oss.run}
    return actions[args.action](args)


def _verify(args: argparse.Namespace) -> int:
    from anvil.mainframe.mending import verify_vault

    progress = Progress(stopped="stopped; not everything was read")

    def tell(finding: Finding) -> None:
        progress.clear()
        print(f"  {finding.kind}  {finding.subject}: {terminal.plain(finding.message)}")
        if not args.mend:
            print(f"    next: {finding.mend}")

    with progress, Services(options.settings(args)) as services, services.vault.generations.only_collection():
        damaged, forgotten = verify_vault(services, tell, mend=args.mend, progress=progress.tell)
    if args.mend and damaged:
        print(f"  {forgotten} results forgotten: the next forge makes them again")
    print(f"  {damaged} damaged" if damaged else "  everything kept is whole")
    return 1 if damaged else 0
