"""The solver's cell: apt from the ``lock`` image, on indexes bound in read-only, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cell import run as cell
from anvil.cell.spec import Bind, CellSpec, Limits
from anvil.errors import CardJam, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anvil.image.resolve import Solver

SOLVE_SECONDS = 300
LOG_LINES = 20


def cell_solver(
    rootfs: Path,
    log: Path,
    *,
    host_uid: int | None = None,
    bwrap: Path | None = None,
    cancel: Callable[[], bool] = lambda: False,
) -> Solver:
    """A solver for ``resolve``.

    rootfs: the tree of the ``lock`` image. log: a file for what apt says. host_uid, bwrap: as of a CellSpec.
    The solver raises CardJam when apt finds no solution, Interrupted, and CellUnavailable.
    """

    def solve(script: str, folders: tuple[Path, ...]) -> str:
        spec = CellSpec(
            rootfs=rootfs,
            command=("/bin/bash", "-c", script),
            inputs=tuple(Bind(name=f"index-{number}", source=folder) for number, folder in enumerate(folders)),
            limits=Limits(wall_seconds=SOLVE_SECONDS),
            host_uid=host_uid,
            bwrap=bwrap,
        )
        outcome = cell.run(spec, log, cancel=cancel)
        text = log.read_text(encoding="utf-8", errors="replace")
        if outcome.reason == "cancelled":
            raise Interrupted("the resolving of packages was stopped")
        if not outcome.ok:
            raise CardJam(
                "apt finds no way to install the wanted packages together",
                where=str(log),
                hint="look at the wanted list, or try another mirror",
                detail="\n".join(text.splitlines()[-LOG_LINES:]),
            )
        return text

    return solve
