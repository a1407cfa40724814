"""The fence without cgroups: processes are sampled through /proc. Weaker: a cell may overshoot between two samples.

Memory can be held by what no process has mapped: a file in memory, with or without a name, the buffers of sockets.
When the machine's shared memory has grown since the cell began, its own file systems in memory and its processes'
descriptors and mappings are asked as well; and what cannot be seen at all (a descriptor under way in a socket) ends
at FLOOR.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.cell.fence import Usage
from anvil.cell.process import below

if TYPE_CHECKING:
    from anvil.cell.spec import Limits, Reason

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_IN_MEMORY = ("tmp", "dev/shm", "run")

FLOOR = 512 << 20
"""When the machine has less memory left than this (free swap counted in), cells are ended with reason "scarce"."""


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
        self._shared = _machine().shared

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
        machine = _machine()
        if machine.shared - self._shared > self._limits.memory_bytes // 4:
            memory = max(memory, sum(map(_private, tree)) + _in_memory(tree) + _filesystems(pid))
        self.usage.cpu_s = max(self.usage.cpu_s, sum(process.cpu_s for process in tree))
        self.usage.max_rss_bytes = max(self.usage.max_rss_bytes, memory)
        # the nearer to the limit, the closer together the samples
        near = memory > self._limits.memory_bytes // 2 or machine.left < 4 * FLOOR
        self._due = now + (0.02 if near else 0.1)
        if memory > self._limits.memory_bytes:
            return "memory"
        count = sum(process.tasks for process in tree)
        if count > self._limits.processes:
            return "processes"
        if machine.left < FLOOR:
            return "scarce"
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


def _private(process: _Process) -> int:
    """Its memory without what it shares through files in memory."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"RssShmem:"):
                return process.resident - int(line.split()[1]) * 1024
    return process.resident


def _in_memory(tree: list[_Process]) -> int:
    """Bytes of the nameless files in memory that some processes hold: by descriptor exactly, else as far as mapped.

    These are memfd files, shared anonymous mappings and System V segments.
    """
    held: dict[int, int] = {}
    mapped: dict[int, int] = {}
    device = _memory_device()
    mark = f"{os.major(device):02x}:{os.minor(device):02x}".encode()
    for process in tree:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    facts = os.stat(f"/proc/{process.pid}/fd/{name}")
                    if facts.st_dev == device and stat.S_ISREG(facts.st_mode):
                        held[facts.st_ino] = facts.st_blocks * 512
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/maps", "rb") as file:
            for line in file:
                where, _, offset, place, inode = line.split(maxsplit=5)[:5]
                if place == mark:
                    start, end = (int(part, 16) for part in where.split(b"-"))
                    mapped[int(inode)] = max(mapped.get(int(inode), 0), end - start + int(offset, 16))
    return sum((mapped | held).values())


@functools.cache
def _memory_device() -> int:
    """The device number of the kernel's own file system in memory."""
    fd = os.memfd_create("anvil", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Bytes of the whole machine: left (what programs can still have) and shared (files in memory)."""

    left: int
    shared: int


def _machine() -> _Machine:
    facts: dict[bytes, int] = {}
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            facts[name] = int(value.split()[0]) * 1024
    return _Machine(left=facts[b"MemAvailable"] + facts[b"SwapFree"], shared=facts[b"Shmem"])


def _filesystems(first: int) -> int:
    """Bytes used in the cell's own file systems in memory; 0 while it is not yet in its own root."""
    used = 0
    with contextlib.suppress(OSError):
        for name in _IN_MEMORY:
            inside = f"/proc/{first}/root/{name}"
            if os.stat(inside).st_dev != os.stat(f"/{name}").st_dev:
                facts = os.statvfs(inside)
                used += (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    return used
