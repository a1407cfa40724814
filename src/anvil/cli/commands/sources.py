"""The sources and base images: what is pinned, what is here, fetching all of it, pinning more.

list    the sources of the profile and of the project, the base images, and what of them is in the vault
fetch   bring every pinned file into the vault, so that --offline works afterwards
add     pin a source of your own: a Debian source package, or a file at an address
remove  take one of your own out again
update  make Anvil's own locks anew from the newest signed indexes of the archive
verify  compare an unpacked source with its pinned archive
bundle  write the source that belongs to an artifact
"""

from __future__ import annotations

import argparse
import importlib
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cli import options
from anvil.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = "anvil sources fetch --profile debian\n  anvil sources add lua5.4"

_ACTIONS = {
    "list": "anvil.cli.sources.listing",
    "fetch": "anvil.cli.sources.fetching",
    "add": "anvil.cli.sources.adding",
    "remove": "anvil.cli.sources.removing",
    "update": "anvil.cli.sources.updating",
    "verify": "anvil.cli.source_tree",
    "bundle": "anvil.cli.source_bundle",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(_ACTIONS))
    for name, place in _ACTIONS.items():
        module = importlib.import_module(place)
        one = actions.add_parser(
            name,
            description=module.TEXT,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(one)
        _add_common(one)


def run(args: argparse.Namespace) -> int:
    """Run an action: its exit code."""
    if args.from_dir is not None and not args.from_dir.is_dir():
        raise UsageError(f"--from {args.from_dir}: there is no such folder")
    from anvil.mainframe.services import Services

    module: Any = importlib.import_module(_ACTIONS[args.action])
    with _interruptible(), Services(options.settings(args)) as services:
        code: int = module.run(services, args)
        return code


def _add_common(parser: argparse.ArgumentParser) -> None:
    """What every action takes."""
    parser.add_argument("--profile", default="debian", help="the source lock: debian (default) or seed")
    options.add_project(parser)
    parser.add_argument("--offline", action="store_true", help="ask no mirror: --from is all there is")
    parser.add_argument("--from", dest="from_dir", type=Path, metavar="DIR", help="look for files here first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_home(parser)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM stop it as Ctrl-C does: at once, wherever it is; what holds a cell or a download lets go of it."""

    def on_signal(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the clearing up is not to be interrupted in its turn
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped", hint="what was fetched is kept: run the same command to go on") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
