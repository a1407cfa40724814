"""What this machine lacks for a forge, and the exact mend; nothing is built.

Looks at the cell (user namespaces, bubblewrap, overlay, what holds it to its limits), the home's disk, memory, SQLite
and the mirrors. The image in which recipes are evaluated is made if it lacks, since cells are made of images.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.errors import AnvilError, EnvironmentLack
from anvil.mainframe.home import NEEDED
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

EXAMPLE = "anvil doctor"

NEEDED_MEMORY = 3_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line per finding. 0: all is well. 3: something lacks."""
    settings = options.settings(args)
    with Services(settings) as services:
        checks: list[tuple[str, Callable[[], str]]] = [
            ("home", lambda: _disk(services)),
            ("memory", _memory),
            ("cortex", lambda: f"{sum(services.db.counts().values())} cards, {services.db.verify_ledger()} events"),
            ("mirrors", lambda: _mirrors(services)),
            ("cell", lambda: _cell(services)),
        ]
        lacking = [name for name, check in checks if _report(name, check)]
    return 3 if lacking else 0


def _report(name: str, check: Callable[[], str]) -> bool:
    """Print what a check found; True when something lacks."""
    try:
        print(f"  ok    {name:<8} {check()}")
    except AnvilError as error:
        print(f"  LACK  {name:<8} {error.message}")
        terminal.show_error(error)
        return True
    return False


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
