"""``anvil sources bundle``: the source that belongs to an artifact, to be handed on with it."""

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

TEXT = """Write the corresponding source of an artifact into a tar: what the GPL and others ask to be handed on.

It holds the upstream archives, the recipes with the files beside them, every card with its script, and the locks. The
artifact must be as its account (the JSON beside it) says, and its cards must be those of the recipes as they are now.
The same artifact gives the same bytes."""

EXAMPLE = "anvil sources bundle --for build_artifacts/bzImage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument("--for", dest="artifact", type=Path, metavar="ARTIFACT", required=True, help="the file")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: ARTIFACT's name with .source.tar, here")
    parser.add_argument(
        "--recipe",
        default="",
        metavar="NAME",
        help="what was forged, if another recipe than the artifact's extends it",
    )


def run(services: Services, args: argparse.Namespace) -> int:
    """0 when the bundle is there. Errors as ever: 1 when the artifact is not what the recipes make."""
    from anvil.mainframe.source_bundle import write_bundle

    if not args.artifact.is_file():
        raise UsageError(f"--for {args.artifact}: there is no such file", hint="anvil forge makes it")
    output = (args.output or Path(f"{args.artifact.name}.source.tar")).absolute()
    if output.exists():
        raise UsageError(f"{output} is there already", hint="name another file with --output")
    with Progress(stopped="stopped; nothing was written", quiet=args.json) as progress:
        made = write_bundle(services, args.artifact, output, recipe=args.recipe, tell=progress.tell)
    if args.json:
        data = {"path": str(made.path), "sha256": made.sha256, "size": made.size, "cards": made.cards}
        print(json.dumps({**data, "sources": list(made.sources)}, indent=2))
        return 0
    print(f"  {made.path}: {terminal.size(made.size)}, sha256 {made.sha256}")
    print(f"  {len(made.sources)} sources ({', '.join(made.sources)}), {made.cards} cards")
    return 0
