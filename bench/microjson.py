"""MicroJSON beside orjson, msgspec, json and rfc8785: messages of the usual sizes, written and read."""

from __future__ import annotations

import importlib
import json
import timeit
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import rfc8785

from anvil.microjson import MessageID, MicroJSON, canonical, codec, parse_canonical, walk
from bench.part import Facts, Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.part import Scale

NAME = "microjson"
WHAT = "encode and checked decode of a message of 220 bytes, one of 2 kB, a big deck and a manifest"

DIGEST = "5c91a06dad5cb73127b0ef4e1befff836f65244278372a94751367dfb0a80af5"
EVENT = {
    "@ID": int(MessageID.CARD_PUNCHED),
    "data": {"attempt": 1, "card": "kernel/build", "deck": DIGEST, "key": DIGEST[::-1], "ms": 812_345, "worker": 2},
}


def payload(number: int, script: str) -> dict[str, Any]:
    """The payload of a card, as the mainframe writes it."""
    return {
        "after": ["images/build"],
        "base": f"busybox/step-{number - 1}",
        "expect": 35,
        "extra": {},
        "id": f"busybox/step-{number}",
        "image": DIGEST,
        "inputs": {
            "headers": {"step": ["kernel/config", "work", "include"]},
            "patch": {"blob": [DIGEST[::-1], "fix.patch", ""]},
        },
        "keep": "all",
        "memory": 4_294_967_296,
        "op": "run",
        "recipe": "busybox",
        "script": script,
        "wall": 1800,
    }


LINE = 'make CC=musl-gcc EXTRA_CFLAGS="-idirafter /in/headers" && cp busybox /out/\n'
CASES: dict[str, tuple[Any, int]] = {
    "220 bytes": (EVENT, 500),
    "2 kB": ({"@ID": int(MessageID.CARD_PAYLOAD), "data": payload(7, LINE * 20)}, 200),
    "a deck of 300 cards": (
        {"@ID": int(MessageID.DECK), "data": [payload(n, LINE * (n % 12 + 1)) for n in range(300)]}, 4
    ),
    "a manifest of 20,000 files": (
        {
            "@ID": int(MessageID.MANIFEST),
            "data": [
                {"mode": 420, "path": f"usr/lib/python3/m{n}.py", "sha256": f"{n:064x}", "size": n, "type": "file"}
                for n in range(20_000)
            ],
        },
        1,
    ),
}  # fmt: skip
_TURNS = 20

LESSER: dict[str, dict[str, object]] = {
    "anvil, walk in Python": {name: getattr(walk, name) for name in ("count_plain", "frame_id", "write_message")},
    "anvil, no orjson": {"orjson": None},
}
"""The codec as it is where the walk in C could not be built, and where there is no orjson."""


def measure(scale: Scale) -> Facts:
    """Microseconds a call: the best of many in each round. Ratios are to orjson's own, with sorted keys."""
    rounds = Rounds(unit="us")
    lacks: dict[str, str] = {}
    if vars(codec)["count_plain"] is walk.count_plain:
        lacks["the walk in C"] = "not built: no C compiler or no Python.h"
    sizes = {}
    for case, (value, number) in CASES.items():
        data = canonical(value)
        sizes[f"bytes of {case}"] = len(data)
        for act, runs in (("encode", _writers(value, data, lacks)), ("decode", _readers(value, data))):
            named = {f"{act} {case}: {name}": run for name, run in runs.items()}
            for _ in range(scale.rounds):
                for name, nanoseconds in _best(named, number).items():
                    rounds.add(name, nanoseconds / 1000)
    return {
        **sizes,
        "figures": rounds.figures(),
        "ratios": {
            f"{name} / orjson": rounds.ratio(name, f"{name.partition(':')[0]}: orjson")
            for name in rounds.taken
            if not name.endswith(": orjson")
        },
        "lacks": lacks,
    }


def _best(runs: dict[str, Callable[[], object]], number: int) -> dict[str, float]:
    """The least time of one call of each, in nanoseconds; they take turns."""
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(_TURNS):
        for name, run in runs.items():
            with _patched(LESSER.get(name.partition(": ")[2], {})):
                times[name] = min(times[name], timeit.timeit(run, number=number) / number * 1e9)
    return times


def _writers(value: Any, data: bytes, lacks: dict[str, str]) -> dict[str, Callable[[], object]]:
    runs: dict[str, Callable[[], object]] = {
        "orjson": lambda: orjson.dumps(value, option=orjson.OPT_SORT_KEYS),
        "anvil": lambda: MicroJSON.encode(value),
        "json": lambda: json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(),
        "rfc8785": lambda: rfc8785.dumps(value),
    }
    try:
        encoder = importlib.import_module("msgspec").json.Encoder(order="sorted")
    except ImportError:
        lacks["msgspec"] = "not installed: make bench installs it"
    else:
        runs["msgspec"] = lambda: encoder.encode(value)
    return _checked({**runs, **dict.fromkeys(LESSER, runs["anvil"])}, data)


def _readers(value: Any, data: bytes) -> dict[str, Callable[[], object]]:
    text = data.decode()
    runs: dict[str, Callable[[], object]] = {
        "orjson": lambda: orjson.loads(data),
        "anvil": lambda: MicroJSON.decode(data),
        "json": lambda: json.loads(text),
    }
    runs |= dict.fromkeys(LESSER, runs["anvil"])
    if parse_canonical(data) != value:
        raise SystemExit("what was read is not what was written")
    return _checked(runs, value)


def _checked(runs: dict[str, Callable[[], object]], wanted: object) -> dict[str, Callable[[], object]]:
    for name, run in runs.items():
        if run() != wanted:
            raise SystemExit(f"{name} gives something else: the comparison would be void")
    return runs


@contextmanager
def _patched(parts: dict[str, object]) -> Iterator[None]:
    kept = {name: vars(codec)[name] for name in parts}
    vars(codec).update(parts)
    try:
        yield
    finally:
        vars(codec).update(kept)
