"""A worker process for the tests: ``python cortex_claimer.py DB MODE COUNT``; writes the ids it finished, a line each.

MODE: "work" claims and punches until nothing can be claimed; "hang" claims one card, says so, and sleeps;
"hammer" pushes, claims and punches for COUNT seconds and writes how often; "open" opens, reads and closes for COUNT
seconds and writes how often; "full" pushes until the disk is full.
"""

from __future__ import annotations

import secrets
import sys
import time

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import NewCard, StoredResult
from anvil.errors import DiskFull
from anvil.model.card import Status


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def work(path: str) -> None:
    worker = secrets.token_hex()
    with CortexDB(path) as db:
        while card := db.pop_card(worker):
            result = StoredResult(key=f"key of {card.id}", out=card.id)
            db.begin_key(result.key, card)
            db.log_result(card, stat=Status.PUNCHED, ret=worker, key=result.key, result=result)
            say(card.id)


def hang(path: str) -> None:
    worker = secrets.token_hex()
    with CortexDB(path) as db:
        card = db.pop_card(worker)
        assert card is not None
        db.begin_key("key", card)
        say(worker)
        time.sleep(600)


def hammer(path: str, seconds: float) -> None:
    worker = secrets.token_hex()
    rounds = 0
    with CortexDB(path) as db:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            db.push_deck(worker, [NewCard(id=str(rounds), op="run", pld="{}")])
            card = db.pop_card(worker)
            if card is not None:
                db.heartbeat(card)
                db.log_result(card, stat=Status.PUNCHED, ret="")
            db.counts(worker)
            rounds += 1
    say(rounds)


def open_and_close(path: str, seconds: float) -> None:
    rounds = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with CortexDB(path) as db:
            db.peek_stack()
            db.set_fact("opened", str(rounds))
        rounds += 1
    say(rounds)


def full(path: str) -> None:
    """Prints how many pushes returned; then frees nothing, and reads everything back."""
    pushed = 0
    with CortexDB(path) as db:
        try:
            while True:
                db.push_card(f"c{pushed}", "run", "x" * 2000)
                pushed += 1
        except DiskFull as error:
            sys.stderr.write(error.message)
        say(pushed)
    with CortexDB(path) as db:
        assert len(db.cards("")) == pushed
        assert db.verify_ledger() == pushed


if __name__ == "__main__":
    _, where, mode, count = sys.argv
    match mode:
        case "work":
            work(where)
        case "hang":
            hang(where)
        case "hammer":
            hammer(where, float(count))
        case "open":
            open_and_close(where, float(count))
        case "full":
            full(where)
