"""``anvil vault export-oss``: the ASCII_OSS tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.cli.progress import Progress
from anvil.mainframe.oss_view import DEFAULT, write_view
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

TEXT = f"""Write what was forged, and what it was made from, as a tree of plain folders (ASCII_OSS): src bin lib etc.

Each tool below src/ has its upstream archives (origin), the trees that were compiled (sovereign), what its cards left
(buildroot) and a MANIFEST.md with licences, digests and keys. The recipe must be forged. The folder must be empty, not
there, or an earlier export, which is replaced. Default: {DEFAULT}."""

EXAMPLE = "anvil vault export-oss ./ascii_oss --recipe busybox"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT, metavar="DIR", help=f"default: {DEFAULT}")
    parser.add_argument("--recipe", default="iso", metavar="NAME", help="what was forged (default: iso)")
    parser.add_argument("--profile", default="debian", help="the source lock: debian (default) or seed")
    parser.add_argument("--project", type=Path, metavar="DIR", help="a folder whose recipes/ come first")
    parser.add_argument("--without-trees", action="store_true", help="leave out the source trees, the most of it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0 when the tree is there."""
    with (
        Progress(stopped="stopped; nothing was put in place", quiet=args.json) as progress,
        Services(options.settings(args)) as services,
    ):
        target = args.folder.absolute()
        made = write_view(services, args.recipe, target, trees=not args.without_trees, tell=progress.tell)
    if args.json:
        data = {"path": str(made.path), "tools": list(made.tools), "bin": list(made.programs)}
        print(json.dumps({**data, "lib": list(made.libraries), "bytes": made.size}, indent=2))
        return 0
    print(f"  {made.path}: {terminal.size(made.size)}")
    print(f"  src: {', '.join(made.tools)}\n  bin: {', '.join(made.programs)}\n  lib: {', '.join(made.libraries)}")
    return 0
