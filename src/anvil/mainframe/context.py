"""What an operation works with while it runs one card."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from anvil.cell.jobserver import make_fifo
from anvil.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from anvil.mainframe.graph import Node
    from anvil.mainframe.results import StepResult
    from anvil.mainframe.services import Services


@dataclass(kw_only=True)
class Context:
    """One card's surroundings.

    results: those of the card's needs. report: sends progress (any plain data) to the faces. tick: called at least
    every few seconds by long work; keeps the lease and returns True when the card must stop. log: where its output
    goes. background: others of the deck have a longer way before them, and go first.
    """

    services: Services
    node: Node
    results: Mapping[str, StepResult]
    report: Callable[[dict[str, Any]], None]
    tick: Callable[[], bool]
    log: Path
    background: bool = False

    def stop_if_asked(self) -> None:
        """Raise Interrupted when the card must stop."""
        if self.tick():
            raise Interrupted(f"{self.node.id} was stopped")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder of this card's own, on the vault's file system; gone afterwards whatever happened."""
        folder = self.services.home.cells / f"{self.services.worker.token}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            self.services.vault.throw_away(folder)

    @contextmanager
    def jobs(self, folder: Path) -> Iterator[Path]:
        """A jobserver for the card's cell, made in ``folder`` and fed by the mainframe while the block lasts."""
        fifo = folder / "jobs"
        settings = self.services.settings
        make_fifo(fifo, owner=settings.cell_uid if os.geteuid() == 0 else None)
        # Held open for writing, so that a make which opens it before the mainframe does is not kept waiting.
        fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.report({"jobs": str(fifo), "background": self.background})
        try:
            yield fifo
        finally:
            self.report({"jobs": ""})
            os.close(fd)


class Operation(Protocol):
    """An operation is a module ``anvil.mainframe.ops.<op>`` with this function."""

    def run(self, context: Context) -> StepResult:
        """Do the card. Raises CardJam and its kin for the card's own failure, EnvironmentLack for the machine's."""
