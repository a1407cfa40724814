"""``make campaign-power``: 10,000 simulated power cuts under the cortex, and as many under the vault.

See ``power_cortex`` and ``power_vault``; then every call of the cortex to its disk fails in turn (``power_faults``).
The result is kept as bench/results/power.json after every batch; stopped, it goes on where it was (delete the file to
begin anew, or name another seed). The negative controls, with syncs that are forgotten, must lose something. Ends with
1 when anything acknowledged was lost or doubled, or when a control was not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.campaigns import power_cortex, power_faults, power_vault

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path(__file__).parents[2] / "bench" / "results" / "power.json"
CUTS = 10_000
BATCH = 500
CONTROL_CUTS = 500
FAULTY_LIVES = 20
_VAULT_TROUBLES = ("lost", "wrong", "unclean", "refused")


def cortex(done: dict[str, Any], seed: int) -> dict[str, Any]:
    """What is known of the cortex with a batch more."""
    more = power_cortex.run(BATCH, seed, first=done.get("lives", 0))
    kinds = done.get("kinds", {})
    return {
        "cuts": done.get("cuts", 0) + more["cuts"],
        "lives": done.get("lives", 0) + more["lives"],
        "kinds": {name: kinds.get(name, 0) + more["kinds"].get(name, 0) for name in sorted(kinds | more["kinds"])},
        "wrong": done.get("wrong", []) + more["wrong"],
    }


def vault(done: dict[str, Any], seed: int) -> dict[str, Any]:
    """What is known of the vault with a batch more."""
    number = done.get("recordings", 0)
    more = power_vault.run(BATCH, seed * 1_000_000 + number)
    return {
        **{name: done.get(name, 0) + more[name] for name in ("cuts", "acknowledged")},
        "recordings": number + 1,
        "wrong": done.get("wrong", []) + more["troubles"],
    }


def faults(done: dict[str, Any], seed: int) -> dict[str, Any]:
    """What is known of the cortex on failing disks with one life more, in which each call failed in turn."""
    number = done.get("lives", 0)
    more = power_faults.run(f"{seed}.{number}")
    failed = done.get("failed", {})
    return {
        "lives": number + 1,
        "faults": done.get("faults", 0) + more["lives"],
        "failed": {
            name: failed.get(name, 0) + more["failed"].get(name, 0) for name in sorted(failed | more["failed"])
        },
        "wrong": done.get("wrong", []) + more["wrong"],
    }


PARTS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "cortex": cortex,
    "faults": faults,
    "vault": vault,
}


def cortex_control(seed: int, without: str) -> int:
    """How many cuts lost something when this is left out."""
    return len(power_cortex.run(CONTROL_CUTS, seed, without=without)["wrong"])


def vault_control(seed: int, without: str) -> int:
    """How many cuts lost something when the disk forgets these syncs."""
    seen = power_vault.run(CONTROL_CUTS, seed, without=[without])
    return sum(seen.get(name, 0) for name in _VAULT_TROUBLES)


def fault_control(seed: int, without: str) -> int:
    """How often something was lost when this is left out and a sync fails."""
    return sum(len(power_faults.run(f"{seed}.{n}", name="xSync", without=without)["wrong"]) for n in range(3))


CONTROLS: dict[str, dict[str, tuple[Callable[[int, str], int], str]]] = {
    "faults": {"faults, without the mending": (fault_control, "the mending")},
    "cortex": {f"cortex, without {what}": (cortex_control, what) for what in power_cortex.WITHOUT},
    "vault": {f"vault, without {what}": (vault_control, what) for what in ("file", "folder", "syncfs")},
}


def main() -> int:
    """Carry out what is lacking, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all")
    args = parser.parse_args()
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    result: dict[str, Any] = kept if kept.get("seed") == args.seed else {"seed": args.seed, "seconds": {}}
    for name in args.part or PARTS:
        while _count(done := result.get(name, {})) < (FAULTY_LIVES if name == "faults" else args.cuts):
            began = time.monotonic()
            result[name] = PARTS[name](done, args.seed)
            spent = result["seconds"].get(name, 0) + time.monotonic() - began
            result["seconds"][name] = round(spent, 1)
            _save(result)
            print_line(f"{name}: {_count(result[name])} done, {len(result[name]['wrong'])} wrong, {spent:.0f} s")
        found = {label: control(args.seed, what) for label, (control, what) in CONTROLS[name].items()}
        result["controls"] = result.get("controls", {}) | found
        _save(result)
    print_line(json.dumps(result["controls"], indent=2))
    wrong = [text for name in PARTS for text in result.get(name, {}).get("wrong", [])]
    print_line("\n".join(wrong[:20]))
    return 1 if wrong or not all(result["controls"].values()) else 0


def _count(done: dict[str, Any]) -> int:
    return int(done.get("cuts", done.get("lives", 0)))


def print_line(text: str) -> None:
    """Say something at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _save(result: dict[str, Any]) -> None:
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
