"""``make campaign-fault``: every writing call of a forge fails in turn, by a fault of the disk and by a full one.

For each n the nth call of a forge in an empty home fails: with EIO, with ENOSPC, and with ENOSPC from then on; the
home's and the artifacts' calls count, in all of Anvil's processes. The forge must end well, or with exit code 3, the
cause and the mend; the next one must end well with the same artifacts, run nothing again that was punched, and leave
a whole ledger, a whole vault and no temporary file. Then the same with little memory. Ends with 1 when anything else
was seen. Stopped, it goes on where it was; the result is kept as bench/results/fault.json.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.errors import EnvironmentLack
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import StepResult
from tests.campaigns import fault_lab
from tests.campaigns.fault_lab import Case, Fault, Lab
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.mainframe.graph import Node
    from anvil.model.card import Card

RESULT = Path(__file__).parents[2] / "bench" / "results" / "fault.json"
MODES = {
    "EIO": Fault(error=errno.EIO),
    "ENOSPC from then on": Fault(error=errno.ENOSPC, sticky=True),
    "ENOSPC": Fault(error=errno.ENOSPC),
}
MEMORY = [step << 19 for step in range(1, 65)]
"""Half a MiB to 32 MiB more than the process has when it begins."""
_BEYOND = 20
"""So many faults in a row that came to nothing, since the forge had ended before: this mode is done.

Two are enough where many calls are left out in between.
"""


def faults(mode: str) -> Iterator[Fault]:
    """Every fault of a mode, in order, without an end where there is none."""
    if mode == "memory":
        yield from (Fault(memory=memory) for memory in MEMORY)
        return
    given, at = MODES[mode], 1
    while True:
        yield Fault(at=at, error=given.error, sticky=given.sticky)
        at += 1


def carry_out(lab: Lab, mode: str, book: Path, *, every: int, first: int, until_problem: bool = False) -> None:
    """Go through a mode; each case is a line of the book, and what the book has is not done again.

    until_problem: one case with a problem is enough.
    """
    known = [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []
    done = {(case["fault"]["at"], case["fault"]["memory"]) for case in known}
    beyond, most_beyond = 0, max(2, _BEYOND // every)
    with book.open("a", encoding="utf-8") as out:
        for number, fault in enumerate(faults(mode)):
            if beyond >= most_beyond:
                return
            if (number - first) % every or (fault.at, fault.memory) in done:
                continue
            case = lab.case(fault)
            if fault.at and not case.failed:
                beyond += 1
                continue
            beyond = 0
            out.write(json.dumps(asdict(case)) + "\n")
            out.flush()
            if case.problems:
                _say(f"  {mode} {fault.at or fault.memory} {case.what}: {case.problems[0][:400]}")
                if until_problem:
                    return


_careful = Processor._process


def _careless(self: Processor, card: Card, node: Node) -> bool:
    """Keep nothing as a card's result when the machine failed: what the campaign must see."""
    try:
        return _careful(self, card, node)
    except (EnvironmentLack, OSError):
        begun = self._db.card(card.deck, card.id)
        if begun is None or not begun.key:
            raise
        self._stamp(card, StepResult(), key=begun.key, kept=False)
        return True


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def summary(book: Path) -> dict[str, Any]:
    """What a mode's book says."""
    cases = [Case(**{**json.loads(line), "fault": Fault(**json.loads(line)["fault"])}) for line in book.open()]
    calls = Counter(case.what.split(" ")[0] for case in cases if case.what)
    return {
        "cases": len(cases),
        "last": max((case.fault.at for case in cases), default=0),
        "exit_codes": dict(Counter(str(case.code) for case in cases)),
        "calls": dict(calls.most_common()),
        "problems": [
            [case.fault.at or case.fault.memory, case.what, *case.problems] for case in cases if case.problems
        ],
    }


def main() -> int:
    """Carry the campaign out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "anvil-campaign-fault")
    parser.add_argument("--mode", action="append", choices=[*MODES, "memory"], help="default: all")
    parser.add_argument("--every", type=int, default=1, help="every so manyth call only")
    parser.add_argument("--first", type=int, default=0, help="beginning with this one, counted from 0")
    parser.add_argument(
        "--machines", action="store_true", help="a deck that boots machines too; two seconds more each"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--control", action="store_true", help="workers take a fault for a success: must end with 1")
    args = parser.parse_args()
    if not fault_lab.compiler():
        _say("no C compiler on this machine (cc): the shim cannot be made, nothing was tried")
        return 3
    args.folder.mkdir(parents=True, exist_ok=True)
    fault_lab.under_shim(args.folder, [*sys.orig_argv[1:]])
    if args.control:
        Processor._process = _careless  # type: ignore[method-assign]
    began = time.monotonic()
    lab = Lab(args.folder, user_home() / "images", machines=args.machines)
    result: dict[str, Any] = {"every": args.every, "machines": args.machines}
    for mode in args.mode or [*MODES, "memory"]:
        book = args.folder / f"{mode.replace(' ', '-')}.jsonl"
        carry_out(lab, mode, book, every=args.every, first=args.first, until_problem=args.control)
        result[mode] = summary(book)
        _say(f"{mode}: {result[mode]['cases']} cases, {len(result[mode]['problems'])} with problems")
    result["seconds"] = round(time.monotonic() - began)
    args.result.parent.mkdir(parents=True, exist_ok=True)
    args.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if any(result[mode]["problems"] for mode in result if isinstance(result[mode], dict)) else 0


if __name__ == "__main__":
    sys.exit(main())
