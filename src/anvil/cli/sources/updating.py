"""``anvil sources update``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import terminal
from anvil.cli.sources.telling import Teller, print_json
from anvil.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from anvil.mainframe.locks import Proposal
    from anvil.mainframe.services import Services

TEXT = """Make Anvil's own locks anew: the newest versions that the archive has signed and its mirrors have.

Signatures are checked by gpgv, and packages chosen by apt, in cells. A lock that says the same as before is left as
it is, and nothing is written before everything has been decided. A project's own sources are pinned one by one:
anvil sources add NAME --replace."""

EXAMPLE = "anvil sources update --check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument("--sources", action="store_true", help="only the locks of sources")
    parser.add_argument("--images", action="store_true", help="only the locks of base images")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--check", action="store_true", help="only say what would change; exit code 1 if anything would"
    )
    where.add_argument("--into", type=Path, metavar="DIR", help="write all locks there, not into this checkout")
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Whose signature on an archive counts."""
    parser.add_argument(
        "--keyring", type=Path, metavar="FILE", help="trust these keys of an archive (default: Debian's, of this host)"
    )
    parser.add_argument("--allow-expired", action="store_true", help="take indexes whose date of expiry has passed")


def require_file(option: str, path: Path | None) -> None:
    """Refuse a file that is not there."""
    if path is not None and not path.is_file():
        raise UsageError(f"{option} {path}: there is no such file")


def run(services: Services, args: argparse.Namespace) -> int:
    """Make them anew. --check: 1 when something would change."""
    from anvil.mainframe import chain, locks

    require_file("--keyring", args.keyring)
    folder = args.into.absolute() if args.into else None if args.check else locks.own_folder()
    both = args.sources == args.images
    wish = locks.Wish(
        sources=both or args.sources,
        images=both or args.images,
        keyring=args.keyring,
        allow_expired=args.allow_expired,
    )
    teller = Teller(silent=args.json)
    try:
        watch = chain.Watch(note=teller.note, report=teller.report)
        proposals = locks.propose(services, wish, watch, now=datetime.now(UTC))
    finally:
        teller.end()
    written = locks.write(proposals, folder, unchanged=args.into is not None) if folder else ()
    _tell(proposals, written, as_json=args.json)
    return 1 if args.check and any(proposal.changes for proposal in proposals) else 0


def _tell(proposals: Sequence[Proposal], written: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "locks": [{"name": each.name, "changes": list(each.changes)} for each in proposals],
                "written": [str(path) for path in written],
            }
        )
        return
    for proposal in proposals:
        count = len(proposal.changes)
        print(f"\n  {proposal.name}: " + (f"{count} change{'s' * (count > 1)}" if count else "as it was"))
        for line in proposal.changes:
            print(f"    {terminal.plain(line)}")
    if written:
        print()
    for path in written:
        print(f"  written: {path}")
