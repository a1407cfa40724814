"""Anvil beside its peers, in one run on one machine.

    python -m bench [PART ...] [--quick] [--images-from HOME] [--save NAME]
    python -m bench --long                      the cold forge of the ISO too: takes an hour
    python -m bench --compare OLD.json NEW.json

Trust the ratios, not the times: contestants take turns, so a busy moment hits all alike, and a ratio is taken round by
round. Shown are the median and in brackets the spread. ``--save`` writes bench/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import cellstart, compare, kernel, machine, memory, microjson, noop, queue, show, trivial
from bench.part import QUICK, Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.part import Facts

RESULTS = Path(__file__).parent / "results"
MODULES = (microjson, cellstart, noop, queue, trivial, memory)
LONG = (kernel,)

Part = tuple[str, "Callable[[Scale], Facts]"]
PARTS: dict[str, Part] = {module.NAME: (module.WHAT, module.measure) for module in (*MODULES, *LONG)}
SHORT = [module.NAME for module in MODULES]


def main() -> None:
    """Measure and print, or compare."""
    parts = "\n".join(f"  {name:10} {what}" for name, (what, _) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=f"{__doc__}\nparts:\n{parts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all that are not long")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.cards} cards and {QUICK.rounds} rounds")
    parser.add_argument("--long", action="store_true", help="also the parts that take an hour")
    parser.add_argument("--cards", type=int, metavar="N", help=f"of a trivial deck (default: {Scale.cards})")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {Scale.rounds}")
    parser.add_argument("--images-from", type=Path, metavar="HOME", help="a home whose base images are borrowed")
    parser.add_argument("--scratch", type=Path, default=Scale.scratch, metavar="DIR", help="default: /var/tmp")
    parser.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="compare two results")
    told = parser.parse_args()
    if told.compare:
        print(compare.text(*(json.loads(path.read_text(encoding="utf-8")) for path in told.compare)))
        return
    if unknown := set(told.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    given = {"cards": told.cards, "rounds": told.rounds, "images_from": told.images_from, "scratch": told.scratch}
    scale = replace(QUICK if told.quick else Scale(), **{name: value for name, value in given.items() if value})
    names = told.parts or [*SHORT, *([kernel.NAME] if told.long else [])]
    _measure(names, scale, RESULTS / f"{told.save}.json" if told.save else None)


def _measure(names: list[str], scale: Scale, save: Path | None) -> None:
    result: Facts = {
        "machine": machine.describe(),
        "scale": {name: value for name, value in asdict(scale).items() if isinstance(value, int)},
        "parts": {},
    }
    for name in names:
        what, measure = PARTS[name]
        print(f"\n{name}: {what}", flush=True)
        result["parts"][name] = measure(scale)
        print(show.text(result["parts"][name]), flush=True)
        result["machine"]["load_after"] = machine.load()
        if save:  # after each part: what was measured is kept whatever comes
            save.parent.mkdir(exist_ok=True)
            save.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if save:
        print(f"\nwritten: {save}")


if __name__ == "__main__":
    main()
