"""Boot an ISO or disk image in QEMU, inside a cell, and wait for a line on its serial console.

QEMU comes from Anvil's own machine image: the host needs none. The medium is never written to. With --run the command
logs in as root once the line was seen, runs each command given, and prints what it answers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.errors import UsageError
from anvil.machine.console import PlainText
from anvil.mainframe.images import ensure_image
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse

    from anvil.machine.machine import Machine
    from anvil.machine.shell import Answer
    from anvil.machine.verdict import BootVerdict

EXAMPLE = "anvil boot build_artifacts/anvilos-phase2.iso --expect 'ANVILOS READY' --uefi --as disk"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("file", type=Path, help="the ISO or disk image")
    firmware = parser.add_mutually_exclusive_group()
    firmware.add_argument("--bios", dest="firmware", action="store_const", const="bios", default="bios")
    firmware.add_argument("--uefi", dest="firmware", action="store_const", const="uefi")
    parser.add_argument("--as", dest="attach", choices=("cdrom", "disk", "usb"), default="cdrom", help="attached as")
    parser.add_argument("--expect", default="ANVILOS READY", metavar="TEXT", help="default: ANVILOS READY")
    parser.add_argument("--timeout", type=float, default=180, metavar="S", help="seconds to wait (default: 180)")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="of the machine (default: 512)")
    parser.add_argument("--run", action="append", default=[], metavar="COMMAND", help="log in and run this")
    parser.add_argument("--console", type=Path, metavar="FILE", help="keep the serial console's bytes here")
    parser.add_argument("--quiet", action="store_true", help="do not show the console while it boots")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Boot. 0: the line was seen (and every command ended with 0). 1: it was not."""
    from anvil.machine import machine
    from anvil.machine.spec import MachineSpec

    if not args.file.is_file():
        raise UsageError(f"there is no file {args.file}", hint="forge it first: anvil forge iso")
    with Services(options.settings(args)) as services, tempfile.TemporaryDirectory(prefix="anvil-boot-") as folder:
        image = ensure_image(services, "machine")
        spec = MachineSpec(
            medium=args.file.resolve(),
            firmware=args.firmware,
            attach=args.attach,
            memory_bytes=args.memory * 1024 * 1024,
            accelerator=services.accelerator(),
        )
        console = args.console.absolute() if args.console else Path(folder) / "console"
        echo = _Echo(console, silent=args.quiet or args.json)
        place = machine.Place(image=image.rootfs, cancelled=echo, bwrap=services.settings.bwrap)
        with machine.running(spec, place, transcript=console, wall_seconds=args.timeout + 600) as guest:
            verdict = guest.wait_for(args.expect, timeout=args.timeout)
            echo()
            answers = []
            if verdict.ok and args.run:
                answers = _run_commands(guest, args.run, emergency="ANVIL EMERGENCY" in verdict.line)
    _tell(verdict, answers, as_json=args.json)
    return 0 if verdict.ok and all(answer.status == 0 for _, answer in answers) else 1


class _Echo:
    """Shows what the console said since the last call; the machine asks it several times a second whether to stop."""

    def __init__(self, transcript: Path, *, silent: bool) -> None:
        self._transcript = transcript
        self._silent = silent
        self._shown = 0
        self._plain = PlainText()

    def __call__(self) -> bool:
        if not self._silent and self._transcript.is_file():
            with self._transcript.open("rb") as file:
                file.seek(self._shown)
                data = file.read()
            self._shown += len(data)
            sys.stdout.write(terminal.plain(self._plain.feed(data)))
            sys.stdout.flush()
        return False


def _tell(verdict: BootVerdict, answers: list[tuple[str, Answer]], *, as_json: bool) -> None:
    if as_json:
        import json

        said = [{"command": command, "output": a.output, "status": a.status} for command, a in answers]
        print(json.dumps({**verdict.as_data(), "answers": said}, indent=2))
        return
    print(f"\n{'ok' if verdict.ok else 'FAILED'}: {terminal.plain(verdict.sentence)}")
    for command, answer in answers:
        print(f"# {command}\n{terminal.plain(answer.output)}")


def _run_commands(guest: Machine, commands: list[str], *, emergency: bool) -> list[tuple[str, Answer]]:
    shell = guest.emergency() if emergency else guest.login()
    answers = [(command, shell.run(command)) for command in commands]
    guest.power_off()
    return answers
