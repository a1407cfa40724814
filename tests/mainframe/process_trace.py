"""Reading what strace saw of a forge: which programs ran inside a cell, and which outside of any."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# --seccomp-bpf: a process is only stopped at what is asked for, which makes a compilation traceable in good time.
STRACE = (
    *("strace", "-f", "-q", "-s", "256", "--seccomp-bpf", "--pidns-translation", "-e", "signal=none"),
    *("-e", "trace=execve,execveat,clone,clone3,fork,vfork"),
)

_LINE = re.compile(r"^(?P<pid>\d+)(?: in [^ ]+)?(?: /\*.*?\*/)? +(?P<rest>.*)$")
_CHILD = re.compile(r"\b(?:clone3?|v?fork)\b.*= (?P<pid>\d+)(?: /\* (?P<outer>\d+) in strace's PID NS \*/)?$")
_EXEC = re.compile(r'execve\("(?P<path>[^"]*)", (?P<argv>\[.*?\]|0x[0-9a-f]+)')


@dataclass(kw_only=True)
class Trace:
    """Programs that were started, by where. cells: how many sandboxes were made."""

    inside: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    cells: int = 0


def read(lines: Iterable[str]) -> Trace:
    """A cell is what bubblewrap's children are; bubblewrap itself, however it was loaded, is outside.

    Lines are taken in their order, since process numbers come again; what a child does before its parent's clone has
    returned waits for that.
    """
    found = Trace()
    inside: dict[int, bool] = {}
    walls: set[int] = set()  # processes that have become bubblewrap
    early: dict[int, list[tuple[str, str]]] = {}
    gone_early: set[int] = set()

    def started(pid: int, path: str, argv: str) -> None:
        if path.endswith("/bwrap") or ("ld-linux" in path and "/bwrap" in argv):
            walls.add(pid)
            found.cells += not inside[pid]
        (found.inside if inside[pid] else found.outside).add("bwrap" if pid in walls else path)

    for line in lines:
        match = _LINE.match(line.rstrip())
        if match is None:
            continue
        pid, rest = int(match["pid"]), match["rest"]
        if not inside and not early:
            inside[pid] = False  # the first process is the forge itself
        if child := _CHILD.search(rest):
            number = int(child["outer"] or child["pid"])
            inside[number] = inside.get(pid, False) or pid in walls
            for path, argv in early.pop(number, []):
                started(number, path, argv)
            if number in gone_early:
                gone_early.discard(number)
                inside.pop(number, None)
                walls.discard(number)
        elif (call := _EXEC.search(rest)) and "= -1" not in rest:
            if pid in inside:
                started(pid, call["path"], call["argv"])
            else:
                early.setdefault(pid, []).append((call["path"], call["argv"]))
        elif rest.startswith("+++"):
            if pid not in inside:
                gone_early.add(pid)
            inside.pop(pid, None)
            walls.discard(pid)
    for calls in early.values():
        found.outside |= {path for path, _ in calls}  # of unknown parents: not shown to be inside
    return found
