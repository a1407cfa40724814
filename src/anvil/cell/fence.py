"""What a fence is: the thing that holds one cell to its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from anvil.cell.spec import Reason


@dataclass(kw_only=True)
class Usage:
    """What a cell has used so far: seconds of processor time, bytes of memory (peak)."""

    cpu_s: float = 0.0
    max_rss_bytes: int = 0


class Fence(Protocol):
    """What holds one cell to its limits."""

    kind: str
    usage: Usage

    def join(self) -> None:
        """In the child, still privileged: go inside the fence."""

    def watch(self, pid: int) -> Reason | None:
        """Look at the cell whose first process is ``pid`` (0: gone); the limit that it broke, if any."""

    def remove(self) -> None:
        """Take the fence down; the cell's last process is gone."""
