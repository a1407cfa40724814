"""A forge that has nothing to do, beside build tools that have nothing to do and a Python that does nothing.

    python -m bench noop

Best of five is what counts here: a whole process, from its start to its end. The ISO takes part when the home of the
borrowed images has one that is forged. How soon a command says something is measured, too.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import homes
from bench.part import Facts, Rounds
from bench.peers import Peer, peers, program

if TYPE_CHECKING:
    from bench.part import Scale

NAME = "noop"
WHAT = "the second forge of the same deck: everything is kept; beside build tools whose files are all up to date"

TURNS = 5
PYTHON = "python3 -S -c pass"
BUDGET_MS = {"anvil forge iso": 150, "anvil forge": 150, "anvil --version": 150, "anvil --help": 300}
"""What each may take, the best of five."""


def measure(scale: Scale) -> Facts:
    """Milliseconds of a whole command, on ``scale.cards`` cards, and on the ISO's."""
    borrowed = homes.images(scale)
    rounds, first = Rounds(unit="ms"), Rounds(unit="ms")
    lacks: dict[str, str] = {}
    with homes.folder(scale) as top:
        project = homes.Project.make(top / "anvil", scale, borrowed)
        anvil = _anvil()
        forge = [*anvil, *project.command[3:]]
        contestants = {"anvil forge": Peer(argv=forge, folder=project.top), **_iso(anvil, borrowed.parent, top, lacks)}
        contestants |= peers(top, scale, lacks)
        for peer in contestants.values():
            for _ in range(3):  # the forge, one that finds nothing to do, and one that knows it
                peer.run()
        contestants["anvil --version"] = Peer(argv=[*anvil, "--version"], folder=top)
        contestants["anvil --help"] = Peer(argv=[*anvil, "--help"], folder=top)
        contestants[PYTHON] = Peer(argv=[str(Path(sys.executable).resolve()), "-S", "-c", "pass"], folder=top)
        for _ in range(scale.rounds * TURNS):
            for name, peer in contestants.items():
                rounds.add(name, peer.run().wall * 1000)
        for name, words in _speakers(project).items():
            for _ in range(TURNS):
                first.add(name, _first_byte([*anvil, *words], project.top))
    return {
        "cards": scale.cards,
        "figures": rounds.figures(),
        "best_of_five": {name: _best(values) for name, values in rounds.taken.items()},
        "first_output": first.figures(),
        "ratios": {
            f"anvil / {name}": rounds.ratio("anvil forge", name) for name in rounds.taken if name not in BUDGET_MS
        },
        "remarks": _remarks(rounds),
        "lacks": lacks,
    }


def _anvil() -> list[str]:
    """The command as it is installed, else the module."""
    found = program("anvil")
    return [found] if found else [sys.executable, "-m", "anvil.cli.main"]


def _best(values: list[float]) -> Facts:
    """The best of each five in a row: its median over the rounds."""
    bests = sorted(min(values[start : start + TURNS]) for start in range(0, len(values), TURNS))
    middle = bests[len(bests) // 2]
    shown = [float(f"{each:.4g}") for each in bests]
    return {"unit": "ms", "median": float(f"{middle:.4g}"), "min": shown[0], "max": shown[-1], "values": shown}


def _remarks(rounds: Rounds) -> Facts:
    """Each budget, and what was taken of it."""
    kept = {}
    for name, budget in BUDGET_MS.items():
        if name in rounds.taken:
            share = _best(rounds.taken[name])["median"] / budget
            kept[f"{name}: of {budget} ms"] = {
                "unit": "x", "median": share, "min": share, "max": share, "values": [share]
            }  # fmt: skip
    return kept


def _iso(anvil: list[str], home: Path, top: Path, lacks: dict[str, str]) -> dict[str, Peer]:
    """The ISO, from a home that has all of its cards; its files are laid out below ``top``."""
    asked = subprocess.run(
        [*anvil, "plan", "iso", "--json", "--offline", "--home", str(home)], cwd=top, capture_output=True, check=False
    )
    fates = {card["fate"] for card in json.loads(asked.stdout)["cards"]} if asked.returncode == 0 else set()
    if fates != {"kept"}:
        lacks["the ISO"] = f"not forged in {home}: anvil forge iso"
        return {}
    words = ["forge", "iso", "--home", str(home), "--output", str(top / "iso"), "--offline"]
    return {"anvil forge iso": Peer(argv=[*anvil, *words], folder=top)}


def _speakers(project: homes.Project) -> dict[str, list[str]]:
    """Commands of which it is measured how soon they say something."""
    told = project.settings
    where = ["--home", str(told.home), "--project", str(told.project)]
    return {
        "anvil --help": ["--help"],
        "anvil forge --help": ["forge", "--help"],
        "anvil forge": project.command[3:],
        "anvil plan": ["plan", project.recipe, *where],
        "anvil status": ["status", *where[:2]],
        "anvil stack": ["stack", "--json", *where[:2]],
        "anvil jam": ["jam", *where[:2]],
        "anvil doctor": ["doctor", *where[:2]],
        "anvil audit": ["audit", *where[:2]],
    }


def _first_byte(argv: list[str], folder: Path) -> float:
    """Milliseconds until a command has said anything; it is then let go on to its end."""
    began = time.monotonic()
    with subprocess.Popen(
        argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        select.select([process.stdout], [], [])
        took = (time.monotonic() - began) * 1000
        while os.read(process.stdout.fileno(), 65536):
            pass
    return took
