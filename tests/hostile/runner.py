"""Runs attacks as one user: ``python -m tests.hostile.runner [--user root|user] [NAME…]``, one JSON object a line."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell import limits
from tests.conftest import user_home
from tests.hostile.ground import ORDINARY, Ground, become
from tests.hostile.registry import all_attacks
from tests.hostile.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.attack import Attack

REPOSITORY = Path(__file__).parents[2]
AFTERWARDS = "the-home-afterwards"

TOKEN = "ANVIL_HOSTILE_TOKEN"
"""A variable of the runner's environment that no cell may see."""

_PR_SET_CHILD_SUBREAPER = 36


def run_as(user: str, names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Run attacks (None: all) as "root" or "user" in another process; what came of each, as it comes.

    As root an ordinary user is made; who is one already is that user.
    """
    uid = ORDINARY if user == "user" and os.geteuid() == 0 else os.geteuid()
    place = tempfile.mkdtemp(prefix="anvil-hostile-", dir="/var/tmp")  # /tmp may be in memory
    os.chown(place, uid, uid)
    command = [sys.executable, "-m", "tests.hostile.runner", "--user", user, "--place", place, *(names or [])]
    environment = {**os.environ, TOKEN: "token-4711"}
    try:
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=environment) as runner:
            assert runner.stdout is not None
            for line in runner.stdout:
                yield json.loads(line)
        if runner.returncode:
            raise RuntimeError(f"the runner ended with {runner.returncode}")
    finally:
        subprocess.run(["rm", "-rf", place], check=False)  # Python's own way cannot go a thousand folders down


def run_one(ground: Ground, standing: Standing, attack: Attack) -> dict[str, Any]:
    """Run one attack and its control, and judge them."""
    began = time.monotonic()
    with attack.wire(ground) as wire:
        standing.begin()
        seen = (attack.attempt or Ground.forge)(ground, attack, wire)
        harm = "; ".join(part for part in (wire.harm(), standing.harm()) if part)
        verdict = attack.expected(root=ground.root)
        complaint = verdict.complaint(seen)
        took = time.monotonic() - began
        red = attack.control(ground, attack, wire)
    standing.forget()
    return {
        "name": attack.name,
        "cards": list(attack.cards),
        "user": "root" if ground.root else "user",
        "expected": str(verdict),
        "seen": f"{seen.kind}: {seen.message}" if seen.message else seen.kind,
        "held": not complaint,
        "complaint": complaint,
        "harm": harm,
        "control": red,
        "good": not complaint and not harm and bool(red),
        "seconds": round(took, 2),
        "log": seen.log[-2000:] if complaint else "",
        "note": "" if red else ground.note,
    }


def run_afterwards(ground: Ground) -> dict[str, Any]:
    """What all attacks together have left of the home: every byte as it was kept, the ledger's chain whole."""

    def anvil(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "anvil.cli.main", *words, "--home", str(ground.home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    kept, kept_said = anvil("vault", "verify")
    chain, chain_said = anvil("audit")
    blob = next(
        path for path in (ground.home / "vault" / "blobs").rglob("*") if path.is_file() and path.stat().st_size
    )
    blob.chmod(0o644)
    blob.write_bytes(bytes([blob.read_bytes()[0] ^ 1]) + blob.read_bytes()[1:])
    after, _ = anvil("vault", "verify")
    good = kept == 0 and chain == 0 and "the chain is whole" in chain_said
    return {
        "name": AFTERWARDS,
        "user": "root" if ground.root else "user",
        "seen": "whole" if good else f"{kept_said}\n{chain_said}",
        "control": "one bit turned over is found" if after else "",
        "good": good and bool(after),
    }


def main() -> int:
    """Run the named attacks, or all; 1 unless all hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", choices=["root", "user"], default="root" if os.geteuid() == 0 else "user")
    parser.add_argument("--place", default="")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if not args.place:
        good = True
        for result in run_as(args.user, args.names):
            tell(result)
            good = good and result["good"]
        return 0 if good else 1
    attacks = all_attacks()
    images = (user_home() / "images").resolve()
    if args.user == "user" and os.geteuid() == 0:
        become(ORDINARY, [sys.prefix, sys.base_prefix, str(REPOSITORY), str(images), args.place])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what outlives its parent becomes our child
    mark = os.getpid()
    vars(limits)["_prefix"] = lambda: f"anvil-cell-hostile{mark}-"  # so that ours can be told from others' cgroups
    ground = Ground(Path(args.place) / "ground", images)
    standing = Standing(ground)
    for name in args.names or attacks:
        try:
            result = run_one(ground, standing, attacks[name])
        except Exception:  # noqa: BLE001 -- a broken attack is told, and the others go on
            user = "root" if ground.root else "user"
            result = {"name": name, "user": user, "good": False, "complaint": traceback.format_exc()}
        tell(result)
    if not args.names:
        tell(run_afterwards(ground))
    return 0


def tell(result: dict[str, Any]) -> None:
    """One line of JSON for whoever started this."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
