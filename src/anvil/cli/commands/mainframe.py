"""The standing mainframe: an Architect that takes wishes, a Processor that works them.

run        both, in the foreground, until Ctrl-C or SIGTERM
architect  only the Architect: it takes wishes, makes decks of them and publishes what comes of them
processor  only the Processor: it has the cards of these decks run
status     which of them is at work on this home, and the wishes on the stack; exit code 1 unless both are
cancel     stop a wish; what is done is kept

anvil forge --mainframe hands it a wish. Each is one per home, and either may be ended or killed at any time: cards
that ran are pending again, and it goes on when it is started again. The units in system/services start them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cli import options, terminal
from anvil.errors import UsageError
from anvil.mainframe.services import Services
from anvil.mainframe.standing import cancel, seat
from anvil.mainframe.standing.processor import DECKS
from anvil.mainframe.standing.records import standing
from anvil.mainframe.standing.signs import FIRST_FD, Manager
from anvil.model.card import Status

if TYPE_CHECKING:
    from anvil.mainframe.settings import Settings

EXAMPLE = "anvil mainframe run &\n  anvil forge iso --mainframe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|architect|processor|status|cancel")
    for name, text in (
        ("run", "Both daemons in the foreground."),
        ("architect", "The Architect in the foreground."),
        ("processor", "The Processor in the foreground."),
    ):
        one = _action(actions, name, text, f"anvil mainframe {name} --jobs 2")
        one.add_argument("--jobs", type=int, metavar="N", help="cells at once, a deck (default: all cores)")
        one.add_argument("--offline", action="store_true", help="fetch nothing")
        one.add_argument("--from", dest="from_dir", metavar="DIR", type=Path, help="look for files here first")
        if name != "architect":
            one.add_argument("--decks", type=int, default=DECKS, metavar="N", help=f"decks at once (default: {DECKS})")
    one = _action(actions, "status", "Who is at work, and the wishes on the stack.", "anvil mainframe status")
    one.add_argument("--json", action="store_true", help="print JSON")
    one = _action(actions, "cancel", "Stop a wish.", "anvil mainframe cancel iso-20260101-120000-1a2b3c")
    one.add_argument("deck", help="the wish's name, as anvil mainframe status shows it")


def run(args: argparse.Namespace) -> int:
    """Run an action. status: 1 unless both are at work."""
    settings = options.settings(args)
    if args.action == "status":
        return _status(settings, as_json=args.json)
    if args.action == "cancel":
        cancel.cancel(settings, args.deck)
        print(f"  {args.deck} is stopped; everything done so far is kept")
        return 0
    manager = _manager()
    if args.action == "architect":
        from anvil.mainframe.standing.architect import ArchitectDaemon

        ArchitectDaemon(settings, _say, manager).run()
        return 0
    if not 1 <= args.decks <= 64:
        raise UsageError(f"--decks is a number from 1 to 64, not {args.decks}")
    if args.action == "processor":
        from anvil.mainframe.standing.processor import ProcessorDaemon

        ProcessorDaemon(settings, _say, manager, decks=args.decks).run()
        return 0
    from anvil.mainframe.standing import both

    both.run(settings, _say, manager, decks=args.decks)
    return 0


def _action(actions: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """The parser of one action."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, description=text, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_home(parser)
    return parser


def _say(text: str) -> None:
    # one write: the daemons of run share this output
    sys.stdout.write(f"{terminal.plain(text)}\n")
    sys.stdout.flush()


def _manager() -> Manager:
    """What the service manager said, if it was said to this process (sd_notify(3), sd_listen_fds(3))."""
    mine = str(os.getpid())
    watchdog = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
    listening = os.environ.get("LISTEN_PID") == mine and os.environ.get("LISTEN_FDS") == "1"
    return Manager(
        notify=os.environ.get("NOTIFY_SOCKET", ""),
        watchdog=watchdog if os.environ.get("WATCHDOG_PID", mine) == mine else 0.0,
        listening=FIRST_FD if listening else None,
    )


def _status(settings: Settings, *, as_json: bool) -> int:
    with Services(settings) as services:
        wishes = [(each, services.db.counts(each.deck)) for each in standing(services.db)]
    daemons = {role: seat.holder(settings.home, role) for role in seat.ROLES}
    code = 1 if None in daemons.values() else 0
    if as_json:
        import json

        rows = [
            {
                "deck": each.deck,
                "recipe": each.wish.recipe,
                "started": each.started,
                "cards": {status.name.lower(): number for status, number in counts.items()},
            }
            for each, counts in wishes
        ]
        print(json.dumps({"daemons": daemons, "wishes": rows}, indent=2))
        return code
    for role, pid in daemons.items():
        where = "not at work" if pid is None else f"at work, process {pid}"
        print(f"  {role:<10} {where}")
    for each, counts in wishes:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.started / 1e6))
        done = counts[Status.PUNCHED]
        print(f"  {began}  {each.deck}  {done} of {sum(counts.values())} cards, {counts[Status.PROCESSING]} run now")
    if code:
        print("  next: anvil mainframe run")
    return code
