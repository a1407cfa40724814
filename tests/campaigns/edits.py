"""``make campaign-edits``: edits chosen by a seed, what ``anvil why`` names for each, and what runs because of it.

Twenty edits of recipes, files, fragments, sources, base locks and options are made one after the other, some in a
little project whose cards run in real cells, the others in a copy of the road to the ISO (see edits_ground). Before
each forge ``why`` must name the very input, with its digests, for every card that takes it, and nothing besides; from
the last card it must lead there; after the forge it must still say so. The cards that ran must be those that depend
on it. A comment in a recipe, made in between, may run nothing; edits of which the output is equal must cut off.

The control: no answer may pass for that to another edit. ``--estimates RECIPE`` measures estimates instead: two forges
of a recipe in a home of its own, everything forced the second time. Results are kept as bench/results/edits.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import describe

from tests.campaigns import edits_pool
from tests.campaigns.edits_estimates import measure
from tests.campaigns.edits_ground import Ground
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.campaigns.edits_pool import Edit, Told

    Maker = Callable[[Ground, random.Random], Edit]

RESULT = Path(__file__).parents[2] / "bench" / "results" / "edits.json"
SEED = "anvil"
SMALL = 8
ISO = 12
"""How many edits are made of each kind of ground."""

LAST = {"small": "whole/artifact:facts.json", "iso": "iso/artifact:anvilos-phase2.iso"}
_NOT_OWN = frozenset({"texts"})


def choose(seed: str, *, small: int = SMALL, iso: int = ISO) -> list[tuple[str, Maker]]:
    """Which edits: every kind of the ISO's once before any comes twice, and none of the little deck's twice."""
    chance = random.Random(f"{seed} choice")
    first = chance.sample(edits_pool.SMALL, small)
    second = chance.sample(edits_pool.ISO, min(iso, len(edits_pool.ISO)))
    second += [chance.choice(edits_pool.ISO) for _ in range(iso - len(second))]
    return [*(("small", maker) for maker in first), *(("iso", maker) for maker in second)]


def names(answer: dict[str, Any], told: Told) -> bool:
    """Whether an answer of ``why`` names just what was told: that input, and no other of the card's own."""
    own = [change for change in answer["changes"] if change["own"] and change["what"] not in _NOT_OWN]
    return len(own) == 1 and is_it(own[0], told)


def is_it(change: dict[str, Any], told: Told) -> bool:
    """Whether a change is the one that was told."""
    lines = "\n".join(line for line in change["lines"] if not line.startswith(" "))  # not those around it
    return (
        (change["what"], change["name"]) == (told.what, told.name)
        and (not told.before or change["before"] == told.before)
        and (not told.after or change["after"] == told.after)
        and all(word in lines for word in told.lines)
        and told.words in f"{change['after']}\n{lines}"
    )


def complaints(ground: Ground, edit: Edit, answers: list[dict[str, Any]]) -> Iterator[str]:
    """Ask before the forge, forge, and ask again; all that is not as it must be. answers: those of ``why``, added."""
    told = edit.told
    plan = {row["card"]: row["fate"] for row in ground.anvil("plan")["cards"]}
    to_do = {card for card, fate in plan.items() if fate != "kept"}
    if told is None:
        yield from (f"{card} would run" for card in sorted(to_do))
    else:
        if not edit.ran <= to_do:
            yield f"the plan lacks {sorted(edit.ran - to_do)}"
        for card in sorted(told.cards):
            [answer] = ground.anvil("why", card)["cards"]
            answers.append(answer)
            if not names(answer, told):
                yield f"why {card} says {_short(answer)}"
        yield from _led(ground, told, plan)
        listed = {answer["card"] for answer in ground.anvil("why")["cards"]}
        itself = {f"images/{told.name}", f"sources/{told.name}"}
        if listed - itself != set(told.cards):
            yield f"why alone lists {sorted(listed)}"
    ran = ground.forge()
    if wrongly := edit.wrongly_ran(ground, ran):
        yield wrongly
    if told is not None:
        for card in sorted(told.cards & ran):
            [answer] = ground.anvil("why", card)["cards"]
            answers.append(answer)
            if answer["fate"] != "ran" or not names(answer, told):
                yield f"afterwards, why {card} says {_short(answer)}"


def _led(ground: Ground, told: Told, plan: dict[str, str]) -> Iterator[str]:
    """Whether the last card leads to the edit, and to nothing else."""
    last = LAST[ground.kind]
    if plan[last] == "kept":
        return
    [answer] = ground.anvil("why", last)["cards"]
    roots = [root["change"] for root in answer["roots"] if root["change"] is None or root["change"]["what"] != "texts"]
    if not roots or not all(change is not None and is_it(change, told) for change in roots):
        yield f"why {last} leads to {roots!r:.400}"


def _short(answer: dict[str, Any]) -> str:
    return json.dumps({key: answer[key] for key in ("fate", "reason", "changes")})[:600]


def carry_out(folder: Path, images: Path, seed: str, makers: Sequence[tuple[str, Maker]]) -> list[dict[str, Any]]:
    """Make the edits; a row for each, with its answers and what it told, for the control."""
    chance = random.Random(f"{seed} edits")
    grounds: dict[str, Ground] = {}
    rows = []
    for kind, maker in makers:
        if kind not in grounds:
            grounds[kind] = Ground(kind, folder / kind, images)
            grounds[kind].forge()
        ground = grounds[kind]
        edit = maker(ground, chance)
        answers: list[dict[str, Any]] = []
        began = time.monotonic()
        wrong = list(complaints(ground, edit, answers))
        rows.append({"ground": kind, "edit": edit, "answers": answers, "wrong": wrong})
        _say(f"{'good ' if not wrong else 'WRONG'}  {kind:5}  {edit.kind:16} {edit.what}  {len(edit.ran)} cards run, "
             f"{time.monotonic() - began:.0f} s")  # fmt: skip
        for line in wrong:
            _say(f"       {line}")
    return rows


def confused(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The control: answers to one edit that would pass for those to another."""
    found = []
    for one in rows:
        for two in rows:
            told = two["edit"].told
            if one is not two and told and any(names(answer, told) for answer in one["answers"]):
                found.append(f"{one['edit'].what} passes for {two['edit'].what}")
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def summary(seed: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a run."""
    told = [row for row in rows if row["edit"].told]
    comments = [row for row in rows if not row["edit"].told]
    equal = [row for row in told if row["edit"].kind == "equal output"]
    return {
        "seed": seed,
        "edits": len(told),
        "named_and_only_what_depends_ran": sum(not row["wrong"] for row in told),
        "answers_of_why": sum(len(row["answers"]) for row in told),
        "comments_only": len(comments),
        "comments_that_ran_nothing": sum(not row["wrong"] for row in comments),
        "equal_outputs": len(equal),
        "equal_outputs_cut_off": sum(not row["wrong"] for row in equal),
        "control_answers_that_pass_for_another_edit": len(confused(rows)),
        "rows": [
            {
                "ground": row["ground"],
                "kind": row["edit"].kind,
                "edit": row["edit"].what,
                "named": sorted(row["edit"].told.cards) if row["edit"].told else [],
                "ran": len(row["edit"].ran),
                "wrong": row["wrong"],
            }
            for row in rows
        ],
    }


def main() -> int:
    """Run the campaign, or the measuring of estimates."""
    parser = argparse.ArgumentParser(prog="tests.campaigns.edits")
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--estimates", default="", metavar="RECIPE")
    args = parser.parse_args()
    kept = json.loads(RESULT.read_bytes()) if RESULT.is_file() else {}
    folder = Path(tempfile.mkdtemp(prefix="anvil-edits-"))
    try:
        if args.estimates:
            result = measure(folder, user_home(), args.estimates, _say)
            good = result["within_a_quarter"] == result["cards_over_5_s"] > 0
            kept["estimates"] = {"machine": describe(), **result}
        else:
            makers = choose(args.seed)
            makers = [*makers[:SMALL], ("small", edits_pool.comment), *makers[SMALL:], ("iso", edits_pool.comment)]
            rows = carry_out(folder, user_home() / "images", args.seed, makers)
            kept["edits"] = {"machine": describe(), **summary(args.seed, rows)}
            good = not any(row["wrong"] for row in rows) and not confused(rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    _say("all is as it must be" if good else "NOT all is as it must be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
