"""``make campaign-kill``: 10,000 kill -9 in forges of a small deck that has every kind of card.

In each turn a deck with a new nonce is forged: its forge is killed, that of the next run perhaps too, and so on, until
the last run, which must end well with the right artifacts. Killed is the forge itself, a worker, a process of a cell,
of the evaluation, QEMU, all at once, or whoever makes the nth call that writes; at any time, right after a message,
or at that call. After each kill no process, mount or loop device may be left; after the last run no temporary file
either, the ledger must be whole, no card that was punched may have run again, and every byte of the vault be right.

Ends with 1 when anything else was seen. Stopped, it goes on where it was; the result is kept as
bench/results/kill.json. A failure is done again by ``--seed N --only TURN``. ``--iso 20`` kills the forge of the real
ISO so often, twice in the kernel's build (see kill_iso); ``--controls`` shows that each check can fail.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.campaigns import fault_lab, kill_checks, kill_iso, kill_lab, kill_run
from tests.campaigns.kill_controls import CONTROLS, is_red
from tests.campaigns.kill_lab import Lab, read
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.campaigns.kill_lab import Turned

RESULT = Path(__file__).parents[2] / "bench" / "results" / "kill.json"
SEED = 20261124
KILLS = 10_000
_TOLD_EVERY = 30.0


def summary(turns: Iterable[Turned], seed: int) -> dict[str, Any]:
    """What all turns come to."""
    turns = list(turns)
    kills = [kill for turn in turns for kill in turn.kills]
    ops: Counter[str] = Counter()
    for kill in kills:
        ops.update(kill["ops"] or ["none"])
    moments = Counter(f"{kill['moment']} {kill['what'].split(' ')[0]}".strip() for kill in kills
                      if kill["moment"] != "call")  # fmt: skip
    calls = Counter(kill["what"].split(" ")[2] for kill in kills if kill["moment"] == "call")
    return {
        "seed": seed,
        "kills": len(kills),
        "turns": len(turns),
        "turns_with_machines": sum(turn.machines for turn in turns),
        "runs": sum(turn.runs for turn in turns),
        "cards_run": sum(turn.ran for turn in turns),
        "missed": sum(turn.missed for turn in turns),
        "swept_by_a_second_run": sum(bool(turn.again) for turn in turns),
        "slowest_end_s": max((turn.slowest_end for turn in turns), default=0.0),
        "by_target": dict(Counter(kill["target"] for kill in kills).most_common()),
        "by_phase": dict(Counter(kill["phase"] for kill in kills).most_common()),
        "while_a_card_ran": dict(ops.most_common()),
        "by_moment": dict(moments.most_common()),
        "by_call": dict(calls.most_common()),
        "in_the_run_after_a_kill": sum(kill["run"] > 1 for kill in kills),
        "exit_codes": dict(Counter(str(kill["code"]) for kill in kills).most_common()),
        "failures": [{"turn": turn.number, "kills": turn.kills, "problems": turn.problems}
                     for turn in turns if turn.problems],
    }  # fmt: skip


def shard(args: argparse.Namespace) -> int:
    """One process of the campaign: every so manyth turn, until its part of the kills has hit."""
    folder = args.folder / f"shard-{args.shard}"
    folder.mkdir(parents=True, exist_ok=True)
    fault_lab.under_shim(folder, [*sys.orig_argv[1:]])
    kill_lab.import_all()
    lab = Lab(folder, args.images, state=folder / "state")
    if args.only is not None:
        turn = lab.turn(args.seed, args.only)
        _say(json.dumps(asdict(turn), indent=1))
        return 1 if turn.problems else 0
    book = args.folder / f"seed-{args.seed}-{args.shard}.jsonl"
    turns = read(book)
    hit = sum(len(turn.kills) for turn in turns)
    number = turns[-1].number + args.shards if turns else args.shard
    with book.open("a", encoding="utf-8") as out:
        while hit < args.kills / args.shards:
            turn = lab.turn(args.seed, number)
            out.write(json.dumps(asdict(turn)) + "\n")
            out.flush()
            for problem in turn.problems:
                _say(f"turn {number}: {problem}")
            hit += len(turn.kills)
            number += args.shards
    return 0


def campaign(args: argparse.Namespace) -> int:
    """All shards, side by side."""
    args.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    books = [args.folder / f"seed-{args.seed}-{number}.jsonl" for number in range(args.shards)]
    clock = args.folder / f"seed-{args.seed}-seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    words = [sys.executable, "-m", "tests.campaigns.kill", "--folder", args.folder, "--seed", str(args.seed)]
    words += ["--kills", str(args.kills), "--shards", str(args.shards), "--images", args.images]
    shards = [subprocess.Popen([*words, "--shard", str(number)]) for number in range(args.shards)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while any(process.poll() is None for process in shards):
            _wait(shards)
            result = summary((turn for book in books for turn in read(book)), args.seed)
            result["seconds"] = round(before + time.monotonic() - began)
            clock.write_text(str(result["seconds"]))
            _keep("small_deck", result, args.result)
            _say(f"{result['kills']} kills, {len(result['failures'])} turns with problems, {result['seconds']} s")
    finally:
        for process in shards:
            process.terminate()
    bad = result["failures"] or any(process.returncode for process in shards) or result["kills"] < args.kills
    return 1 if bad else 0


def iso(args: argparse.Namespace) -> int:
    """The kills of a real recipe's forge."""
    kill_lab.import_all()
    kill_run.adopt_orphans()
    kill_checks.own_groups(args.folder)
    began = time.monotonic()
    result = kill_iso.Killing(args).carry_out()
    result["seconds_since_last_start"] = round(time.monotonic() - began)
    _keep(f"recipe_{args.recipe}", result, args.result)
    for problem in result["problems"]:
        _say(problem)
    return 1 if result["problems"] else 0


def controls(args: argparse.Namespace) -> int:
    """Every control; 0 when each check has turned red."""
    kill_lab.import_all()
    lab = Lab(args.folder / "controls", args.images)
    green = 0
    for name, control in CONTROLS.items():
        red = "red" if not control.possible() or is_red(lab, control) else "GREEN"
        green += red != "red"
        _say(f"{red if control.possible() else 'impossible here'}: {name}")
    return 1 if green else 0


def _wait(shards: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + _TOLD_EVERY
    while time.monotonic() < end and any(process.poll() is None for process in shards):
        time.sleep(0.2)


def _keep(part: str, result: dict[str, Any], path: Path) -> None:
    """Put a result beside those that the file has of other parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps({**kept, part: result}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Carry the campaign out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "anvil-campaign-kill")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--shards", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--images", type=Path, default=Path(os.environ.get("ANVIL_IMAGES", user_home() / "images")))
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--iso", type=int, metavar="KILLS", help="kill the forge of a real recipe so often instead")
    parser.add_argument("--recipe", default="iso", help="with --iso: which (default: iso)")
    parser.add_argument("--controls", action="store_true", help="weaken Anvil, and see each check turn red, instead")
    parser.add_argument("--shard", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", type=int, metavar="TURN", help="this turn alone, and print what came of it")
    args = parser.parse_args()
    if args.iso:
        return iso(args)
    if args.controls:
        return controls(args)
    if not fault_lab.compiler():
        _say("no C compiler on this machine (cc): the shim cannot be made, nothing was tried")
        return 3
    if args.only is not None:
        args.shard = 0
        args.folder /= "only"
    return campaign(args) if args.shard is None else shard(args)


if __name__ == "__main__":
    sys.exit(main())
