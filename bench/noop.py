"""A forge that has nothing to do, beside build tools that have nothing to do and a Python that does nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bench import homes
from bench.part import Facts, Rounds
from bench.peers import Peer, peers

if TYPE_CHECKING:
    from bench.part import Scale

NAME = "noop"
WHAT = "the second forge of the same deck: everything is kept; beside build tools whose files are all up to date"

TURNS = 5


def measure(scale: Scale) -> Facts:
    """Milliseconds of a whole command on ``scale.cards`` cards."""
    borrowed = homes.images(scale)
    rounds = Rounds(unit="ms")
    lacks: dict[str, str] = {}
    with homes.folder(scale) as top:
        project = homes.Project.make(top / "anvil", scale, borrowed)
        contestants = {"anvil": Peer(argv=project.command, folder=project.top), **peers(top, scale, lacks)}
        for peer in contestants.values():
            peer.run()
        contestants["python3 -S -c pass"] = Peer(argv=[sys.executable, "-S", "-c", "pass"], folder=top)
        for _ in range(scale.rounds * TURNS):
            for name, peer in contestants.items():
                rounds.add(name, peer.run().wall * 1000)
    return {
        "cards": scale.cards,
        "figures": rounds.figures(),
        "ratios": {f"anvil / {name}": rounds.ratio("anvil", name) for name in rounds.taken if name != "anvil"},
        "lacks": lacks,
    }
