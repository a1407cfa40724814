"""Both daemons below one process, for a machine without a service manager, and for a container."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from anvil.cell.process import fork_worker
from anvil.errors import AnvilError, EnvironmentLack
from anvil.mainframe.standing.architect import ArchitectDaemon
from anvil.mainframe.standing.loop import Asked, end_all
from anvil.mainframe.standing.processor import ProcessorDaemon
from anvil.mainframe.standing.seat import ROLES
from anvil.mainframe.standing.signs import Manager, Signs

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.process import Child
    from anvil.mainframe.settings import Settings
    from anvil.mainframe.standing.seat import Role

_TICK_SECONDS = 0.2
_LONGEST_PAUSE = 30.0
_SOUND_SECONDS = 60.0
"""One that lived so long is started again at once when it ends; else after a pause that doubles."""


class _Kept:
    """A daemon that is started again when it was killed."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.child: Child | None = None
        self.since = 0.0
        self.pause = 0.0

    def ended(self, now: float) -> int | None:
        """Its exit code if it has just ended; it may be started again after ``pause``."""
        if self.child is None or not self.child.reap(0):
            return None
        code = self.child.exit_code
        self.child = None
        self.pause = 0.0 if now - self.since > _SOUND_SECONDS else min(_LONGEST_PAUSE, max(1.0, 2 * self.pause))
        self.since = now
        return code


def run(settings: Settings, say: Callable[[str], None], manager: Manager, *, decks: int) -> None:
    """Keep both at work until SIGTERM or SIGINT. Raises EnvironmentLack when one of them cannot be at all."""
    asked = Asked()
    signs = Signs(manager)

    def life(role: Role) -> int:
        daemon = (
            ArchitectDaemon(settings, say, Manager())
            if role == "architect"
            else ProcessorDaemon(settings, say, Manager(), decks=decks)
        )
        try:
            daemon.run()
        except AnvilError as error:
            say(f"{role}: {error.message}; next: {error.hint}")
            return error.exit_code
        return 0

    kept = [_Kept(role) for role in ROLES]
    try:
        while not asked.stop:
            now = time.monotonic()
            for each in kept:
                code = each.ended(now)
                if code == EnvironmentLack.exit_code:
                    raise EnvironmentLack(f"there can be no {each.role} here", hint="anvil mainframe status")
                if code is not None:
                    say(f"{each.role}: ended with {code}; it is started again")
                if each.child is None and now - each.since >= each.pause:
                    each.child, each.since = fork_worker(partial(life, each.role)), now
            if all(each.child for each in kept):
                signs.ready()
            signs.alive()
            time.sleep(_TICK_SECONDS)
    finally:
        signs.stopping()
        end_all(each.child for each in kept if each.child is not None)
