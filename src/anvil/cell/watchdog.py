"""The fence without cgroups: processes are sampled through /proc. Weaker: a cell may overshoot between two samples."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.cell.fence import Usage
from anvil.cell.process import below

if TYPE_CHECKING:
    from anvil.cell.spec import Limits, Reason

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def hard_processes(limits: Limits) -> int:
    """RLIMIT_NPROC where the watchdog counts: above the limit, so that one too many is seen and not just refused."""
    return limits.processes + limits.processes // 8 + 16


class Watchdog:
    """A fence without cgroups: samples the cell's processes through /proc."""

    def __init__(self, limits: Limits) -> None:
        self.kind = "watchdog"
        self.usage = Usage()
        self._limits = limits
        self._due = 0.0

    def join(self) -> None:
        """Nothing: the kernel's limits per process are set by the entry."""

    def watch(self, pid: int) -> Reason | None:
        """See Fence."""
        now = time.monotonic()
        if not pid or now < self._due:
            return None
        tree = _tree(pid)
        memory = sum(process.resident for process in tree)
        if memory > self._limits.memory_bytes:
            memory = sum(map(_share, tree))  # pages that processes share were counted for each of them
        self.usage.cpu_s = max(self.usage.cpu_s, sum(process.cpu_s for process in tree))
        self.usage.max_rss_bytes = max(self.usage.max_rss_bytes, memory)
        # the nearer to the limit, the closer together the samples
        self._due = now + (0.02 if memory > self._limits.memory_bytes // 2 else 0.1)
        if memory > self._limits.memory_bytes:
            return "memory"
        count = sum(process.tasks for process in tree)
        if count > self._limits.processes:
            return "processes"
        return "cpu" if self.usage.cpu_s > self._limits.cpu_seconds else None

    def remove(self) -> None:
        """Nothing was put up."""


@dataclass(frozen=True, kw_only=True)
class _Process:
    """A sampled process: resident bytes, CPU seconds with those of its waited-for children, tasks."""

    pid: int
    resident: int
    cpu_s: float
    tasks: int


def _tree(first: int) -> list[_Process]:
    """A process and all below it."""
    found = []
    for pid in below(first):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            cpu_s = sum(map(int, fields[11:15])) / _TICKS
            found.append(_Process(pid=pid, resident=int(fields[21]) * _PAGE, cpu_s=cpu_s, tasks=int(fields[17])))
    return found


def _share(process: _Process) -> int:
    """Its memory, where a page that n processes share counts one nth (the kernel's Pss)."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return process.resident
