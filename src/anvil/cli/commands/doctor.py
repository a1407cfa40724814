"""What this machine or this home lacks for a forge, and the exact mend; nothing is built.

Looks at the home's disk and folders, memory, the cortex and its ledger, what killed processes left, the base images,
the vault, the mirrors and the cell (user namespaces, bubblewrap, overlay, what holds it to its limits). The image in
which recipes are evaluated is made if it lacks, since cells are made of images.

With --mend every byte of the vault is read too, and what is damaged or left over is taken away: the next forge makes
it again. A damaged cortex cannot be mended: doctor says so, and what to do.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.cli.progress import Progress
from anvil.errors import AnvilError, EnvironmentLack
from anvil.mainframe import mending
from anvil.mainframe.home import NEEDED
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from anvil.mainframe.mending import Damage
    from anvil.vault.verify import Finding

EXAMPLE = "anvil doctor --mend"

NEEDED_MEMORY = 3_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("--mend", action="store_true", help="take away what is damaged or left over")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line per finding. 0: all is well, or mended. 3: something lacks, or is damaged."""
    settings = options.settings(args)
    with Services(settings) as services:
        checks: list[tuple[str, Callable[[], str]]] = [
            ("home", lambda: _disk(services)),
            ("folders", lambda: mending.folders(services)),
            ("memory", _memory),
            ("cortex", lambda: f"{sum(services.db.counts().values())} cards, {services.db.verify_ledger()} events"),
        ]
        lacking = sum(_report(name, check) for name, check in checks)
        damages: list[tuple[str, Callable[[Services], Iterator[Damage]]]] = [
            ("remains", mending.left_behind),
            ("images", mending.images),
            ("vault", mending.missing),
        ]
        lacking += sum(_heal(name, services, find, mend=args.mend) for name, find in damages)
        if args.mend:
            lacking += _report("bytes", lambda: _verify(services))
        lacking += _report("mirrors", lambda: _mirrors(services))
        lacking += _report("cell", lambda: _cell(services))
    return 3 if lacking else 0


def _report(name: str, check: Callable[[], str]) -> bool:
    """Print what a check found, if anything; True when something lacks."""
    try:
        if well := check():
            print(f"  ok    {name:<8} {well}")
    except AnvilError as error:
        print(f"  LACK  {name:<8} {error.message}")
        terminal.show_error(error)
        return True
    return False


def _heal(name: str, services: Services, find: Callable[[Services], Iterator[Damage]], *, mend: bool) -> bool:
    """Print what is damaged, and mend it if asked to; True when something stays so."""
    found = 0

    def told() -> str:
        nonlocal found
        for damage in find(services):
            found += 1
            print(f"  {'mend' if mend else 'HURT'}  {name:<8} {terminal.plain(damage.message)}")
            if mend:
                damage.mend()
            else:
                print("        next:    anvil doctor --mend")
        if found:
            return "what was found is mended" if mend else ""
        return "nothing is damaged or left over"

    return _report(name, told) or (found > 0 and not mend)


def _verify(services: Services) -> str:
    progress = Progress(stopped="stopped; not everything was read")

    def tell(finding: Finding) -> None:
        progress.clear()
        print(f"  mend  bytes    {finding.kind} {terminal.plain(finding.subject)}")

    with progress:
        damaged, forgotten = mending.verify_vault(services, tell, mend=True, progress=progress.tell)
    if not damaged:
        return "every byte that is kept is right"
    return f"{damaged} damaged things taken away, {forgotten} results forgotten: the next forge makes them again"


def _disk(services: Services) -> str:
    free = shutil.disk_usage(services.home.path).free
    if free < NEEDED:
        raise EnvironmentLack(
            f"{terminal.size(free)} are free, a forge of the ISO takes up to {terminal.size(NEEDED)}",
            where=str(services.home.path),
            hint="free some space, or name another disk with --home DIR",
        )
    return f"{services.home.path}, {terminal.size(free)} free"


def _memory() -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total < NEEDED_MEMORY:
        raise EnvironmentLack(
            f"{terminal.size(total)} of memory; the kernel's build takes up to {terminal.size(NEEDED_MEMORY)}",
            hint="forge with --jobs 1, or add swap",
        )
    return f"{terminal.size(total)}, {len(os.sched_getaffinity(0))} cores"


def _mirrors(services: Services) -> str:
    from anvil.sources import mirrors

    found = mirrors.find(settings=services.settings.mirrors).bases
    if not found.get("debian"):
        raise mirrors.no_mirror("debian", "any source")
    return ", ".join(base for bases in found.values() for base in bases)


def _cell(services: Services) -> str:
    from anvil.mainframe.images import ability

    found = ability(services)
    overlay = "overlay" if found.overlay else "no overlay: trees are copied, which is slower"
    weaker = " (weaker: sampled)" if found.fence == "watchdog" else ""
    return f"{found.bwrap}, limits by {found.fence}{weaker}, {overlay}"
