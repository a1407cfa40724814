"""``anvil sources verify --tree``: whether an unpacked source is clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import terminal
from anvil.cli.progress import Progress
from anvil.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from anvil.mainframe.services import Services

TEXT = """Compare an unpacked source with its pinned archive, file by file.

Bytes, links and the right to run a file must be as the archive has them, and nothing may lack or be too many. Times,
owners and other mode bits are not looked at. Exit code 1 says that something differs. Nothing is changed; recipes do
not build from such a tree, each of their cards unpacks the archive afresh."""

EXAMPLE = "anvil sources verify --tree oss_sovereignty/linux-6.6.14 --profile seed"
_MOST_SHOWN = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument("--tree", type=Path, metavar="DIR", required=True, help="the unpacked source")
    parser.add_argument(
        "--source", default="", metavar="NAME", help="which source it is (default: what the folder's name says)"
    )


def run(services: Services, args: argparse.Namespace) -> int:
    """0: as the archive has it. 1: something differs, and is listed (the first 200 unless --json)."""
    from anvil.mainframe.source_tree import listing, source_of
    from anvil.sources.tree import compare

    if not args.tree.is_dir():
        raise UsageError(f"--tree {args.tree}: there is no such folder")
    source = source_of(services.sources, args.tree, args.source)
    found = []
    with Progress(stopped="stopped; not everything was compared", quiet=args.json) as progress:

        def tick() -> bool:
            progress.tell(f"reading {source.files[0].name}")
            return False

        listed = listing(services, source, lambda data: progress.tell(str(data.get("note", ""))), tick)
        for difference in compare(listed, args.tree, lambda folder: progress.tell(f"comparing {folder}")):
            found.append(difference)
            if not args.json and len(found) <= _MOST_SHOWN:
                progress.clear()
                what = f": {difference.what}" if difference.what else ""
                print(terminal.plain(f"  {difference.kind:<8} {difference.path}{what}"))
    if args.json:
        data = {
            "tree": str(args.tree),
            "source": source.name,
            "version": source.version,
            "sha256": source.files[0].sha256,
            "names": len(listed),
            "differences": [{"kind": one.kind, "path": one.path, "what": one.what} for one in found],
        }
        print(json.dumps(data, indent=2))
        return 1 if found else 0
    if len(found) > _MOST_SHOWN:
        print(f"  … and {len(found) - _MOST_SHOWN} more; --json lists them all")
    what = f"{source.name} {source.version} ({source.files[0].name}, sha256 {source.files[0].sha256[:16]})"
    print(f"  {len(found)} differ from {what}" if found else f"  clean: all {len(listed)} names are those of {what}")
    return 1 if found else 0
