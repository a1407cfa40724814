"""``make campaign-hostile``: every attack of tests/hostile, as root and as an ordinary user, with its control.

Ends with 1 unless every attack ended as its verdict says, no wire was touched, every control was seen to succeed, the
homes are whole afterwards, and every hostile card of the list has an attack. Run by an ordinary user it is that user
alone, and says so. The result is kept as bench/results/hostile.json. ``--only NAME…`` runs some, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from bench.machine import describe

from tests.hostile.registry import all_attacks
from tests.hostile.runner import AFTERWARDS, run_as

RESULT = Path(__file__).parents[2] / "bench" / "results" / "hostile.json"
CARDS = range(1, 33)
"""The numbers of the list of hostile cards."""

_KEPT = ("seen", "harm", "control", "good", "complaint", "log", "note", "seconds")


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of one run: no paths of this machine, nothing that is empty."""
    kept = {}
    for key in _KEPT:
        value = result.get(key)
        if isinstance(value, str):
            value = re.sub(r"(/[\w.-]+)*/anvil-(hostile|lab)-\w+", "PLACE", value)[:600]
        if value not in ("", None):
            kept[key] = value
    return kept


def complaints(rows: dict[str, dict[str, Any]], users: list[str]) -> list[str]:
    """All that is not as it must be."""
    found = [
        f"{name} as {user}: {rows[name].get(user, {'complaint': 'it was not run'})}"
        for name in rows
        for user in users
        if not rows[name].get(user, {}).get("good")
    ]
    attacked = {number for row in rows.values() for number in row["cards"]}
    return found + [f"no attack is of card {number}" for number in CARDS if number not in attacked]


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(prog="tests.campaigns.hostile")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    args = parser.parse_args()
    attacks = all_attacks()
    users = ["root", "user"] if os.geteuid() == 0 else ["user"]
    rows: dict[str, dict[str, Any]] = {
        name: {"cards": list(attack.cards), "verdict": str(attack.verdict)}
        for name, attack in attacks.items()
        if not args.only or name in args.only
    }
    if not args.only:
        rows[AFTERWARDS] = {"cards": [], "verdict": "the home is whole, and so is its ledger"}
    began = time.monotonic()
    for user in users:
        for result in run_as(user, args.only):
            row = rows.setdefault(result["name"], {"cards": [], "verdict": result.get("expected", "")})
            row[user] = plain(result)
            word = "held" if result["good"] else "FAIL"
            sys.stdout.write(f"{word}  {user:4}  {result['name']}  {result.get('seen', '')[:100]}\n")
            sys.stdout.flush()
    wrong = complaints(rows, users)
    if args.only:
        wrong = [line for line in wrong if not line.startswith("no attack")]
    summary = {
        "attacks": len(attacks),
        "cards": len(CARDS),
        "users": users,
        "controls_red": sum(bool(row.get(user, {}).get("control")) for row in rows.values() for user in users),
        "runs": sum(user in row for row in rows.values() for user in users),
        "seconds": round(time.monotonic() - began),
        "complaints": wrong,
    }
    if not args.only:
        result = {"machine": describe(), **summary, "results": rows}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
