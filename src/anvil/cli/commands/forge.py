"""Make a recipe and all it uses, and put its artifacts into build_artifacts/.

Cards whose inputs have not changed are kept, whatever was interrupted goes on where it was, and Ctrl-C is safe at any
moment: it ends every card but one that another forge waits for (a second Ctrl-C ends that too). The artifacts come
with a human JSON file each that says what they were made from.

With --check everything is then made a second time, in an empty home and in other surroundings, and compared byte by
byte: every artifact and whatever any card left. It takes as long as a first forge, and as much disk.

With --mainframe the standing mainframe makes it (anvil mainframe run). Ctrl-C stops it as ever; it goes on when the
terminal is closed, and with --detach it is not even waited for.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from anvil.cli import options
from anvil.errors import AnvilError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from anvil.cli.faces import Face
    from anvil.mainframe.outcome import Outcome
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
    parser.add_argument("--mainframe", action="store_true", help="have the standing mainframe make it")
    parser.add_argument("--detach", action="store_true", help="with --mainframe: do not wait for it")


def run(args: argparse.Namespace) -> int:
    """Forge. 0: all is in the output folder. 1: a jam, a wrong recipe, two makings that differ. 3, 130: as ever."""
    settings = options.settings(args)
    check = args.check or args.check_images
    if args.keep and not check:
        raise UsageError("--keep is a word for --check", hint="anvil forge --check --keep")
    if args.detach and not args.mainframe:
        raise UsageError("--detach is a word for --mainframe", hint="anvil forge --mainframe --detach")
    if args.mainframe and check:
        raise UsageError("--check makes everything in this process", hint="anvil forge --check, without --mainframe")
    began = time.monotonic()
    if not args.json:
        return _run(args, settings, began)
    from anvil.cli import report
    from anvil.cli.faces import JsonFace

    face = JsonFace()
    face.event(*report.begun(args.recipe, settings))
    try:
        return _run(args, settings, began)
    except AnvilError as error:
        for message, data in report.failed(error, time.monotonic() - began):
            face.event(message, data)
        raise


def _run(args: argparse.Namespace, settings: Settings, began: float) -> int:
    check = args.check or args.check_images
    if not check and not args.mainframe:
        from anvil.mainframe import noop

        if (known := noop.recall(settings, args.recipe)) is not None:
            return _tell(known, time.monotonic() - began, as_json=args.json)
    asked = 0

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1

    from anvil.cli import faces

    face = faces.choose(json=args.json, jobs=settings.jobs)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if check:
        return _check(args, settings, face, lambda: asked > 0)
    try:
        if args.mainframe:
            from anvil.mainframe.standing.client import Submission

            submission = Submission(settings, face, asked=lambda: asked, detach=args.detach)
            outcome = submission.run(args.recipe)
        else:
            outcome = _forge(settings, face, args.recipe, lambda: asked)
    finally:
        face.end()
    if outcome is None:
        face.note(f"anvil mainframe status shows how far {submission.deck} is")
        return 0
    return _tell(outcome, time.monotonic() - began, as_json=args.json)


def _forge(settings: Settings, face: Face, recipe: str, asked: Callable[[], int]) -> Outcome:
    """Forge in this process, and keep a record of how everything looked; asked: how often it was told to stop."""
    from anvil.mainframe.forge import Forge
    from anvil.mainframe.noop_record import Recorder

    recorder = Recorder(settings, recipe)
    forge = Forge(settings, face, stopped=lambda: asked() > 0, insisted=lambda: asked() > 1)
    outcome = forge.run(recipe)
    recorder.keep(outcome, forge.relied)
    return outcome


def _tell(outcome: Outcome, took: float, *, as_json: bool) -> int:
    """Print how it ended; the exit code."""
    from anvil.cli import report

    if as_json:
        from anvil.microjson.codec import MicroJSON

        for message, data in report.messages(outcome, took):
            print(MicroJSON.message(message, data).decode())
    elif outcome.jams:
        for jam in outcome.jams:
            report.show_jam(jam)
    else:
        report.show_outcome(outcome, took)
    return 1 if outcome.jams else 0


def _check(args: argparse.Namespace, settings: Settings, face: Face, stopped: Callable[[], bool]) -> int:
    from anvil.cli import checked
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
