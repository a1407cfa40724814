"""The queue at full durability: one producer and two workers, beside huey, litequeue and a bare table in SQLite.

Each of three processes gets every answer only after its change is on the disk. Then 100,000 cards are pushed at once,
and claims from among them are timed.

python -m bench.queue [--cards N] [--rounds N] [--scratch DIR]
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard
from anvil.model.card import Status
from bench import homes, show
from bench.part import Facts, Rounds, Scale, summary
from bench.queue_rivals import OURS, PEERS, RIVALS, lacking

NAME = "queue"
WHAT = "the queue at FULL, one producer and two workers, beside huey, litequeue and bare SQLite; 100,000 cards"

WORKERS = 2
MANY = 100_000
CLAIMS = 2_000
_LONGER = 4
"""Cards of a race for each card of a trivial deck: the fastest would be over in a twentieth of a second otherwise."""

_NAP = 0.001
"""Seconds that a worker sleeps when there is nothing to claim; the same for all."""


def measure(scale: Scale) -> Facts:
    """Cards a second of each queue, ratios to the peers, and how long claims take among 100,000 cards."""
    lacks = lacking()
    rates = Rounds(unit="/s")
    cards = scale.cards * _LONGER
    contestants = [name for name in RIVALS if name not in lacks]
    with homes.folder(scale) as top:
        for number in range(scale.rounds):
            for name in contestants:
                folder = top / f"{number}-{contestants.index(name)}"
                folder.mkdir()
                rates.add(name, race(name, folder, cards))
        many = _many(top)
    return {
        "cards": cards,
        "workers": WORKERS,
        "many": MANY,
        "figures": rates.figures() | many,
        "ratios": {f"{one} / {name}": rates.ratio(one, name) for one in OURS for name in contestants if name in PEERS},
        "lacks": lacks,
    }


def race(name: str, folder: Path, cards: int) -> float:
    """Cards a second, first push to last finish, of one producer and two workers. SystemExit when one is lost."""
    RIVALS[name](folder)
    words = [sys.executable, "-m", "bench.queue", "--folder", str(folder), "--cards", str(cards), "--rival", name]
    runners = [_start([*words, "--role", role]) for role in ("producer", *["worker"] * WORKERS)]
    for runner in runners:
        if _pipe(runner.stdout).readline() != "ready\n":
            raise SystemExit(f"{name}: a process did not start")
    begun = time.monotonic()
    for runner in runners:
        _pipe(runner.stdin).write("go\n")
        _pipe(runner.stdin).flush()
    said = [runner.communicate()[0].split() for runner in runners]
    if any(runner.returncode for runner in runners):
        raise SystemExit(f"{name}: a process failed")
    finished = sum(int(words[0]) for words in said[1:])
    if finished != cards:
        raise SystemExit(f"{name}: {finished} of {cards} jobs were finished")
    return cards / (max(float(words[1]) for words in said) - begun)


def run(name: str, role: str, folder: Path, cards: int) -> None:
    """One process of a race: says "ready", waits for a line, works; says how many it did, and when the last."""
    rival = RIVALS[name](folder)
    over = folder / "all pushed"
    print("ready", flush=True)
    sys.stdin.readline()
    done, last = 0, time.monotonic()
    if role == "producer":
        rival.push(range(cards))
        over.touch()
        done, last = cards, time.monotonic()
    while role == "worker":
        last_look = over.exists()
        finished = rival.work()
        if finished:
            done, last = done + finished, time.monotonic()
        elif finished is None and last_look:
            break
        elif finished is None:
            time.sleep(_NAP)
    print(done, last, flush=True)


def _many(top: Path) -> Facts:
    folder = top / "many"
    with CortexDB(folder / "cortex.db") as db:
        cards = [NewCard(id=f"c{number}", op="run", pld="{}") for number in range(MANY)]
        begun = time.monotonic()
        db.push_deck("many", cards)
        pushed = time.monotonic() - begun
        worker = secrets.token_hex()
        claims, stamps = [], []
        for _ in range(CLAIMS):
            begun = time.monotonic()
            card = db.pop_card(worker, deck="many")
            claimed = time.monotonic()
            if card is None:
                raise SystemExit("a card was lost")
            db.log_result(card, stat=Status.PUNCHED, ret="")
            claims.append((claimed - begun) * 1000)
            stamps.append((time.monotonic() - claimed) * 1000)
    return {
        f"push of {MANY:,} cards": summary([pushed], "s"),
        "claim among them, median": summary([_percentile(claims, 50)], "ms"),
        "claim among them, 99th percentile": summary([_percentile(claims, 99)], "ms"),
        "stamp, 99th percentile": summary([_percentile(stamps, 99)], "ms"),
        "one write and sync of 4 KiB, 99th percentile": summary([_percentile(_syncs(top), 99)], "ms"),
    }


def _syncs(top: Path) -> list[float]:
    taken = []
    with open(top / "sync", "wb") as file:
        for _ in range(CLAIMS):
            begun = time.monotonic()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            taken.append((time.monotonic() - begun) * 1000)
    return taken


def _percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise SystemExit("a pipe is missing")
    return pipe


def main() -> None:
    """Measure and print, or be one process of a race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=int, default=Scale.cards)
    parser.add_argument("--rounds", type=int, default=Scale.rounds)
    parser.add_argument("--scratch", type=Path, default=Scale.scratch)
    parser.add_argument("--rival", choices=sorted(RIVALS), help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=("producer", "worker"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.role:
        run(told.rival, told.role, told.folder, told.cards)
        return
    scale = replace(Scale(), cards=told.cards, rounds=told.rounds, scratch=told.scratch)
    print(show.text(measure(scale)))


if __name__ == "__main__":
    main()
