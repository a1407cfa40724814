"""Make a recipe and all it uses, and put its artifacts into build_artifacts/.

Cards whose inputs have not changed are kept, whatever was interrupted goes on where it was, and Ctrl-C is safe at any
moment: it ends every card but one that another forge waits for (a second Ctrl-C ends that too). The artifacts come
with a human JSON file each that says what they were made from.

With --check everything is then made a second time, in an empty home and in other surroundings, and compared byte by
byte: every artifact and whatever any card left. It takes as long as a first forge, and as much disk.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from anvil.cli import checked, faces, options, report
from anvil.errors import UsageError
from anvil.mainframe.forge import Forge

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from anvil.cli.faces import Face
    from anvil.mainframe.settings import Settings

EXAMPLE = "anvil forge iso --jobs 2\n  anvil forge iso --check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_forge(parser)
    parser.add_argument("--json", action="store_true", help="print MicroJSON events instead of text")
    parser.add_argument("--check", action="store_true", help="make it a second time elsewhere, and compare")
    parser.add_argument("--check-images", action="store_true", help="the same, the base images made again as well")
    parser.add_argument(
        "--keep", action="store_true", help="with --check: keep the second home though all is the same"
    )


def run(args: argparse.Namespace) -> int:
    """Forge. 0: all is in the output folder. 1: a jam, a wrong recipe, two makings that differ. 3, 130: as ever."""
    settings = options.settings(args)
    check = args.check or args.check_images
    if args.keep and not check:
        raise UsageError("--keep is a word for --check", hint="anvil forge --check --keep")
    asked = 0

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1

    began = time.monotonic()
    face = faces.choose(json=args.json, jobs=settings.jobs)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if check:
        return _check(args, settings, face, lambda: asked > 0)
    forge = Forge(settings, face, stopped=lambda: asked > 0, insisted=lambda: asked > 1)
    try:
        outcome = forge.run(args.recipe)
    finally:
        face.end()
    took = time.monotonic() - began
    if args.json:
        for message, data in report.messages(outcome, took):
            face.event(message, data)
    elif outcome.jams:
        for jam in outcome.jams:
            report.show_jam(jam)
    else:
        report.show_outcome(outcome, took)
    return 1 if outcome.jams else 0


def _check(args: argparse.Namespace, settings: Settings, face: Face, stopped: Callable[[], bool]) -> int:
    from anvil.mainframe.check import Check

    began = time.monotonic()
    check = Check(settings=settings, face=face, stopped=stopped, images=args.check_images, keep=args.keep)
    try:
        found = check.run(args.recipe)
    finally:
        face.end()
    took = time.monotonic() - began
    if args.json:
        for message, data in checked.messages(found, took):
            face.event(message, data)
    else:
        checked.show(found, took)
    return 0 if found.ok else 1
