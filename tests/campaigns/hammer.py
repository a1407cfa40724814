"""``make campaign-hammer``: eight processes hammer one cortex for ten minutes.

Each pushes, claims, begins keys, beats, stamps, reads, and opens the cortex anew every so often. Nobody may see an
error, and the slowest must get at least half of the mean. The result is kept as bench/results/hammer.json. Ends with 1
otherwise, or when the cortex is not whole afterwards.

python -m tests.campaigns.hammer [--seconds N] [--processes N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, StoredResult
from anvil.model.card import Status

RESULT = Path(__file__).parents[2] / "bench" / "results" / "hammer.json"
SECONDS = 600
PROCESSES = 8
_REOPEN = 50


def hammer(path: str, seconds: float) -> dict[str, Any]:
    """One process: how many rounds it did, and its longest one in milliseconds."""
    worker = secrets.token_hex()
    rounds, longest = 0, 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with CortexDB(path) as db:
            for _ in range(_REOPEN):
                began = time.monotonic()
                if began >= end:
                    break
                one_round(db, worker, rounds)
                longest = max(longest, time.monotonic() - began)
                rounds += 1
    return {"rounds": rounds, "longest_ms": round(longest * 1000, 1)}


def one_round(db: CortexDB, worker: str, number: int) -> None:
    """Push two cards, claim one of anybody's, work on it, stamp it and claim the next in one commit, read."""
    names = [f"{number}.a", f"{number}.b"]
    db.push_deck(worker, [NewCard(id=names[0], op="run", pld="{}"), NewCard(id=names[1], op="boot", pld="{}")])
    card = db.pop_card(worker)
    for _ in range(2):
        if card is None:
            break
        key = f"{card.deck} {card.id}"
        assert db.begin_key(key, card)
        db.heartbeat(card)
        with db.batch():
            db.log_result(card, stat=Status.PUNCHED, ret="", key=key, result=StoredResult(key=key))
            card = db.pop_card(worker)
    if card is not None:
        db.release_card(card, "enough")
    db.peek_stack()
    assert db.card(worker, names[0]) is not None


def run(folder: Path, seconds: float, processes: int = PROCESSES) -> dict[str, Any]:
    """Hammer a new cortex; what was seen, for JSON."""
    path = folder / "cortex.db"
    CortexDB(path).close()
    words = [sys.executable, "-m", "tests.campaigns.hammer", "--one", str(path), "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    children = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    answers = [child.communicate() for child in children]
    errors = [said[1].strip().splitlines()[-1] for said in answers if said[1].strip()]
    figures = [json.loads(said[0]) for said in answers if said[0].strip()]
    rounds = [figure["rounds"] for figure in figures]
    with CortexDB(path) as db:
        whole = db._db.value("PRAGMA integrity_check") == "ok"
        events = db.verify_ledger()
        left = db.counts()[Status.PROCESSING]
    mean = sum(rounds) / processes
    return {
        "seconds": seconds,
        "processes": processes,
        "errors": errors,
        "rounds": rounds,
        "slowest_of_mean": round(min(rounds, default=0) / mean, 3) if mean and len(rounds) == processes else 0,
        "longest_round_ms": [figure["longest_ms"] for figure in figures],
        "rounds_per_second": round(sum(rounds) / seconds, 1),
        "events": events,
        "whole": whole and left == 0,
    }


def main() -> int:
    """Hammer, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work; of a real disk")
    parser.add_argument("--one", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        sys.stdout.write(json.dumps(hammer(args.one, args.seconds)))
        return 0
    with tempfile.TemporaryDirectory(prefix="anvil-hammer-", dir=args.folder) as folder:
        result = run(Path(folder), args.seconds, args.processes)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if not result["errors"] and result["whole"] and result["slowest_of_mean"] >= 0.5 else 1


if __name__ == "__main__":
    sys.exit(main())
