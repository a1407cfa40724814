"""MicroJSON beside orjson, msgspec (if installed), json and rfc8785, in one run on one machine.

    python bench/microjson.py [--save]

Prints the best time of each and its ratio to orjson: trust the ratios, not the times. ``--save`` writes
bench/results/microjson.json. The contestants take turns, round by round, so that a busy moment hits all alike.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import timeit
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import rfc8785

from anvil.microjson import MessageID, MicroJSON, canonical, codec, parse_canonical

RESULTS = Path(__file__).parent / "results" / "microjson.json"

DIGEST = "5c91a06dad5cb73127b0ef4e1befff836f65244278372a94751367dfb0a80af5"
EVENT = {
    "@ID": int(MessageID.CARD_PUNCHED),
    "data": {"attempt": 1, "card": "kernel/build", "deck": DIGEST, "key": DIGEST[::-1], "ms": 812_345, "worker": 2},
}
PAYLOAD = {
    "@ID": int(MessageID.CARD_PAYLOAD),
    "data": {
        "expect": 35,
        "hold": False,
        "id": "busybox/build",
        "image": "build",
        "keep": "all",
        "limits": {"memory": 4_294_967_296, "processes": 512, "wall": 1800},
        "needs": ["busybox/configure", "musl/export"],
        "op": "run",
        "script": "make CC=musl-gcc",
    },
}
MANIFEST = [
    {"mode": 420, "path": f"usr/lib/python3/dist-packages/m{n}.py", "sha256": f"{n:064x}", "size": n, "type": "file"}
    for n in range(80_000)
]

Run = Callable[[], object]


def best(runs: dict[str, Run], *, number: int, rounds: int) -> dict[str, float]:
    """The least time of one call of each, in nanoseconds."""
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            times[name] = min(times[name], timeit.timeit(run, number=number) / number * 1e9)
    return times


def plainly(run: Run) -> Run:
    """The same, as it goes where there is no orjson."""

    def without_orjson() -> object:
        kept = vars(codec)["orjson"]
        vars(codec)["orjson"] = None
        try:
            return run()
        finally:
            vars(codec)["orjson"] = kept

    return without_orjson


def contestants(value: Any, *, framed: bool) -> tuple[dict[str, Run], dict[str, Run]]:
    """Who writes and who reads this value."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    text = data.decode()
    ours_out: Run = (lambda: MicroJSON.encode(value)) if framed else (lambda: canonical(value))
    ours_in: Run = (lambda: MicroJSON.decode(data)) if framed else (lambda: parse_canonical(data))
    writing: dict[str, Run] = {
        "orjson": lambda: orjson.dumps(value, option=orjson.OPT_SORT_KEYS),
        "microjson": ours_out,
        "microjson plain": plainly(ours_out),
        "json": lambda: json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(),
        "rfc8785": lambda: rfc8785.dumps(value),
    }
    reading: dict[str, Run] = {
        "orjson": lambda: orjson.loads(data),
        "microjson": ours_in,
        "microjson plain": plainly(ours_in),
        "json": lambda: json.loads(text),
    }
    try:
        msgspec: Any = importlib.import_module("msgspec")
    except ImportError:
        pass
    else:
        encoder, decoder = msgspec.json.Encoder(order="sorted"), msgspec.json.Decoder()
        writing["msgspec"] = lambda: encoder.encode(value)
        reading["msgspec"] = lambda: decoder.decode(data)
    for name, run in writing.items():
        if run() != data:
            raise SystemExit(f"{name} writes other bytes: the comparison would be void")
    return writing, reading


def main() -> None:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help=f"write bench/results/{RESULTS.name}")
    arguments = parser.parse_args()
    cases = {
        "event": (EVENT, True, 200, 300),
        "payload": (PAYLOAD, True, 200, 300),
        "manifest": (MANIFEST, False, 1, 3),
    }
    results: dict[str, Any] = {}
    for case, (value, framed, number, rounds) in cases.items():
        size = len(canonical(value))
        for act, runs in zip(("encode", "decode"), contestants(value, framed=framed), strict=True):
            times = best(runs, number=number, rounds=rounds)
            print(f"\n{act} {case}, {size} bytes")
            for name, nanoseconds in times.items():
                print(f"  {name:16} {nanoseconds:14,.0f} ns   x {nanoseconds / times['orjson']:.2f}")
            results[f"{act} {case}"] = {
                "bytes": size,
                "ns": {name: round(value) for name, value in times.items()},
                "ratio_to_orjson": {name: round(value / times["orjson"], 2) for name, value in times.items()},
            }
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        about = {"python": platform.python_version(), "orjson": version("orjson"), "machine": platform.machine()}
        RESULTS.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")
        print(f"\nwritten: {RESULTS}")


if __name__ == "__main__":
    main()
