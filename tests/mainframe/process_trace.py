"""Reading what strace saw of a forge: which programs ran inside a cell, and which outside of any."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# --seccomp-bpf: a process is only stopped at what is asked for, which makes a compilation traceable in good time.
STRACE = (
    *("strace", "-f", "-qq", "-s", "256", "--seccomp-bpf", "--pidns-translation", "-e", "signal=none"),
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
    """A cell is what bubblewrap's children are; bubblewrap itself, however it was loaded, is outside."""
    found = Trace()
    parents: dict[int, int] = {}
    walls: set[int] = set()  # processes that have become bubblewrap

    def is_inside(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid in walls:
                return True
        return False

    started: list[tuple[int, str, str]] = []
    for line in lines:
        match = _LINE.match(line.rstrip())
        if match is None:
            continue
        pid, rest = int(match["pid"]), match["rest"]
        if child := _CHILD.search(rest):
            parents[int(child["outer"] or child["pid"])] = pid
        if started_now := _EXEC.search(rest):
            if rest.endswith(")") and "= -1" in rest:
                continue
            path, argv = started_now["path"], started_now["argv"]
            started.append((pid, path, argv))
            if path.endswith("/bwrap") or ("ld-linux" in path and "/bwrap" in argv):
                walls.add(pid)
                found.cells += 1
    # Only now are all parents known: a child can be seen before its parent's clone has returned.
    for pid, path, argv in started:
        if is_inside(pid):
            found.inside.add(path)
        elif pid in walls and "/bwrap" in path + argv:
            found.outside.add("bwrap")
        else:
            found.outside.add(path)
    return found
