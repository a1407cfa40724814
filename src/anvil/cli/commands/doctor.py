"""What this machine or this home lacks for a forge, and the exact mend; nothing is built.

Looks at the machine (kernel, /proc, devices, Python, SQLite, memory, limits, encoding, clocks), user namespaces and
bubblewrap, the disk and what its file system can, the home's folders, the cortex and its ledger, what killed
processes left, the base images, the vault and the mirrors that are known, and makes a cell. The image in which recipes
are evaluated is made if it lacks, since cells are made of images. A forge asks the same of the machine before it
builds anything.

With --network the mirrors are asked, a few seconds each at most. With --mend every byte of the vault is read too, and
what is damaged or left over is taken away: the next forge makes it again. A damaged cortex cannot be mended: doctor
says so, and what to do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.cli.progress import Progress
from anvil.errors import AnvilError, EnvironmentLack
from anvil.mainframe import doctor_machine, doctor_mirrors, mending, preflight
from anvil.mainframe.preflight import LACK, OK, WARN, Finding
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from anvil.mainframe.mending import Damage
    from anvil.mainframe.preflight import Check
    from anvil.mainframe.settings import Settings
    from anvil.vault.verify import Finding as Found

EXAMPLE = "anvil doctor --network\n  anvil doctor --mend"

_MARKS = {OK: "ok  ", WARN: "warn", LACK: "LACK"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("--mend", action="store_true", help="take away what is damaged or left over")
    parser.add_argument("--network", action="store_true", help="ask the mirrors whether they answer")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line per finding. 0: all is well, or mended. 3: something lacks, or is damaged."""
    report = _Report(json=args.json)
    try:
        settings = options.settings(args)
    except AnvilError as error:
        report.tell(preflight.look("settings", partial(_raise, error)))
    else:
        for name, check in preflight.of_machine(settings):
            report.tell(preflight.look(name, check))
        _home(args, settings, report)
    if args.json:
        report.print_json()
    return 3 if report.lacks else 0


class _Report:
    """The findings, told as they come, or all at once as JSON."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._found: list[Finding] = []

    @property
    def lacks(self) -> int:
        """How many things lack, or are damaged."""
        return sum(finding.state == LACK for finding in self._found)

    def tell(self, finding: Finding) -> None:
        """A line, and below it what explains and mends."""
        self._found.append(finding)
        if self._json:
            return
        print(f"  {_MARKS[finding.state]}  {finding.name:<9} {terminal.plain(finding.message)}")
        for title, text in (("where", finding.where), ("mend", finding.hint)):
            if text:
                print(f"        {title + ':':<9} {terminal.plain(text)}")
        for line in finding.detail.splitlines():
            print(f"        | {terminal.plain(line)}")

    def print_json(self) -> None:
        """All of it."""
        import json

        print(json.dumps({"lacks": self.lacks, "findings": [each.as_data() for each in self._found]}, indent=2))


def _home(args: argparse.Namespace, settings: Settings, report: _Report) -> None:
    """What can be seen once the home is open; it is made where it lacks."""
    try:
        services = Services(settings, least_free=0)
    except AnvilError as error:
        report.tell(preflight.look("home", partial(_raise, error)))
        return
    with services:
        checks: list[tuple[str, Check]] = [
            *preflight.of_disk(settings),
            ("clock", lambda: doctor_machine.clock(services.sources.resolved, settings.home)),
            ("folders", lambda: mending.folders(services)),
            ("cortex", lambda: f"{sum(services.db.counts().values())} cards, {services.db.verify_ledger()} events"),
        ]
        for name, check in checks:
            report.tell(preflight.look(name, check))
        damages: list[tuple[str, Callable[[Services], Iterator[Damage]]]] = [
            ("remains", mending.left_behind),
            ("images", mending.images),
            ("vault", mending.missing),
        ]
        for name, find in damages:
            report.tell(preflight.look(name, partial(_heal, services, find, mend=args.mend)))
        if args.mend:
            report.tell(preflight.look("bytes", lambda: _verify(services)))
        report.tell(preflight.look("mirrors", lambda: _mirrors(services, ask=args.network)))
        report.tell(preflight.look("cell", lambda: _cell(services)))


def _raise(error: AnvilError) -> str:
    raise error


def _heal(services: Services, find: Callable[[Services], Iterator[Damage]], *, mend: bool) -> str:
    """What is damaged or left over, mended if that is asked for. Raises EnvironmentLack for what stays."""
    messages = []
    for damage in find(services):
        messages.append(damage.message)
        if mend:
            damage.mend()
    if messages and not mend:
        raise EnvironmentLack("; ".join(messages), hint="anvil doctor --mend")
    return f"mended: {'; '.join(messages)}" if messages else "nothing is damaged or left over"


def _verify(services: Services) -> str:
    progress = Progress(stopped="stopped; not everything was read")
    taken: list[str] = []

    def tell(finding: Found) -> None:
        taken.append(f"{finding.kind} {finding.subject}")

    with progress:
        damaged, forgotten = mending.verify_vault(services, tell, mend=True, progress=progress.tell)
    if not damaged:
        return "every byte that is kept is right"
    return (
        f"{damaged} damaged things taken away ({', '.join(taken)}), {forgotten} results forgotten: "
        "the next forge makes them again"
    )


def _mirrors(services: Services, *, ask: bool) -> str:
    said = doctor_mirrors.known(services.settings)
    if not ask:
        return f"{said} (--network asks them)"
    every = [file for source in services.sources.sources.values() for file in source.files]
    return f"{said}: {doctor_mirrors.reach(services, every)}"


def _cell(services: Services) -> str:
    from anvil.mainframe.images import ability

    found = ability(services)
    overlay = "overlay" if found.overlay else "no overlay: trees are copied, which is slower"
    weaker = " (weaker: sampled)" if found.fence == "watchdog" else ""
    return f"{found.bwrap}, limits by {found.fence}{weaker}, {overlay}"
