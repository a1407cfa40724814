"""The seam to the cell: what the machine needs of a process that speaks over pipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anvil.cell.spec import CellSpec, Outcome


class Process(Protocol):
    """A cell that runs, with pipes to its standard input and from its standard output."""

    @property
    def stdin(self) -> int:
        """Descriptor to write to."""

    @property
    def stdout(self) -> int:
        """Descriptor to read from."""

    def wait(self, timeout: float) -> Outcome | None:
        """Its outcome, or None when it has not ended within ``timeout`` seconds."""

    def complaint(self) -> str:
        """The last line it wrote to standard error, or nothing."""


if TYPE_CHECKING:
    Launcher = Callable[[CellSpec, Path], AbstractContextManager[Process]]


def open_cell(spec: CellSpec, log: Path) -> AbstractContextManager[Process]:
    """Start a cell with its console on pipes; leaving the block kills what is left of it."""
    raise NotImplementedError
