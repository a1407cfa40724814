"""The cold forge of the ISO beside the kernel's own make of the same configuration, in a cell of the same kind.

The forge begins with an empty home. With borrowed base images these are not made; sources are fetched in any case.
Then the kernel is built once more, from the tree that the forge left configured: ``make bzImage`` with as many jobs
and nothing else in the cell that its card had.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anvil.cell import run as cell
from anvil.mainframe.services import Services
from bench import homes
from bench.bare import card_spec, placed
from bench.part import Facts, Rounds, summary

if TYPE_CHECKING:
    from bench.part import Scale

NAME = "kernel"
WHAT = "the cold forge of the ISO, empty home to files, beside the kernel's own make (an hour)"

CARD = "kernel/build"
SCRIPT = "make -j{jobs} bzImage"


def measure(scale: Scale) -> Facts:
    """Seconds of one forge and one make; the forge is to take at most 1.5 times as long."""
    borrowed = homes.images(scale) if scale.images_from else None
    with homes.folder(scale) as top:
        return beside(homes.Project.make(top, scale, borrowed, recipe="iso"), CARD, SCRIPT)


def beside(project: homes.Project, card: str, script: str) -> Facts:
    """Forge a project; then run ``script`` in a cell like that of ``card``, on the tree that the card began with."""
    rounds = Rounds()
    took = project.forge()
    rounds.add("anvil: cold forge", took.wall)
    with Services(project.settings) as services:
        rounds.add(f"anvil: the card {card}", services.db.runs([card])[card][0].milliseconds / 1000)
    jobs = project.scale.lanes
    command = ("/bin/bash", "-euo", "pipefail", "-c", script.format(jobs=jobs))
    spec = replace(placed(card_spec(project, card), project.top / "own"), command=command, jobserver=None)
    log = project.top / "own.log"
    outcome = cell.run(spec, log)
    if not outcome.ok:
        raise SystemExit(f"the kernel's own make ended with {outcome}:\n{log.read_text(errors='replace')[-4000:]}")
    rounds.add("the kernel's own make", outcome.wall_s)
    return {
        "jobs": jobs,
        "images_borrowed": int((project.home / "images").is_symlink()),
        "figures": rounds.figures(),
        "ratios": {f"{name} / make": rounds.ratio(name, "the kernel's own make") for name in list(rounds.taken)[:2]},
        "cpu": {"anvil: cold forge": summary([took.cpu], "s"), "make": summary([outcome.cpu_s], "s")},
        "lacks": {},
    }
