"""Make a recipe and all it uses, and put its artifacts into build_artifacts/.

Cards whose inputs have not changed are kept, whatever was interrupted goes on where it was, and Ctrl-C is safe at any
moment. The artifacts come with a human JSON file each that says what they were made from.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from anvil.cli import faces, options, report
from anvil.mainframe.forge import Forge

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil forge iso --jobs 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_forge(parser)
    parser.add_argument("--json", action="store_true", help="print MicroJSON events instead of text")


def run(args: argparse.Namespace) -> int:
    """Forge. 0: everything is in the output folder. 1: a card jammed or the recipe is wrong. 3, 130: as ever."""
    settings = options.settings(args)
    stopped = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    began = time.monotonic()
    face = faces.choose(json=args.json, jobs=settings.jobs)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    forge = Forge(settings, face, stopped=lambda: stopped)
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
