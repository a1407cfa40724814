"""Trivial cards: push to stamp, beside bare bubblewrap of the same make-up and build tools without a sandbox.

python -m bench.trivial [--cards N] [--rounds N] [--images-from HOME]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench import homes, show
from bench.bare import Bare, card_spec
from bench.part import Facts, Rounds, Scale
from bench.peers import buildstream, peers

NAME = "trivial"
WHAT = "trivial cards in cells, push to stamp, beside bare bubblewrap and build tools that have no cells"


def measure(scale: Scale, *, with_buildstream: bool = True) -> Facts:
    """Seconds for ``scale.cards`` cards, ``scale.lanes`` at a time; BuildStream, which takes minutes, has one turn."""
    borrowed = homes.images(scale)
    rounds, cpu = Rounds(), Rounds()
    lacks: dict[str, str] = {}
    with homes.folder(scale) as top:
        spec = card_spec(homes.Project.make(top / "spec", scale, borrowed))
        for number in range(scale.rounds):
            here = top / str(number)
            project = homes.Project.make(here / "anvil", scale, borrowed)
            took = project.forge()
            rounds.add("anvil: the whole command", took.wall)
            rounds.add("anvil: push to stamp", project.push_to_stamp())
            cpu.add("anvil: CPU of the whole command", took.cpu)
            rounds.add("bare bubblewrap", Bare.make(spec, here / "bare", scale.cards).run(scale.lanes))
            for name, peer in peers(here, scale, lacks).items():
                rounds.add(name, peer.run().wall)
        if with_buildstream:
            image = borrowed / spec.rootfs.parts[-2] / "rootfs"
            if found := buildstream(top / "buildstream", scale, image, lacks):
                rounds.add("buildstream", found.run().wall)
    per_card = 1000 / scale.cards
    ours, bare = "anvil: push to stamp", "bare bubblewrap"
    return {
        "cards": scale.cards,
        "lanes": scale.lanes,
        "figures": rounds.figures() | cpu.figures(),
        "ratios": {
            f"anvil / {name}": rounds.ratio(ours, name) for name in rounds.taken if not name.startswith("anvil")
        },
        "above_bare": {
            "wall per card": rounds.difference(ours, bare, per=per_card, unit="ms"),
            "lane time per card": rounds.difference(ours, bare, per=per_card * scale.lanes, unit="ms"),
        },
        "lacks": lacks,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=int, default=Scale.cards)
    parser.add_argument("--rounds", type=int, default=Scale.rounds)
    parser.add_argument("--images-from", type=Path)
    parser.add_argument("--without-buildstream", action="store_true", help="which takes minutes")
    told = parser.parse_args()
    scale = replace(Scale(), cards=told.cards, rounds=told.rounds, images_from=told.images_from)
    print(show.text(measure(scale, with_buildstream=not told.without_buildstream)))


if __name__ == "__main__":
    main()
