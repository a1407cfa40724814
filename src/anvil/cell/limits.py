"""What holds a cell to its limits: a cgroup where there is one, else limits of the kernel per process and a watchdog.

Three grounds, best first; :func:`survey` says which one this process stands on:

- "cgroup2": a writable, delegated subtree of the unified hierarchy with the memory and pids controllers.
- "cgroup1": writable memory and pids hierarchies (root). cpuacct is used if it is there.
- "watchdog": none of them. RLIMIT_NPROC in the cell's own user namespace bounds the processes exactly; memory is
  sampled from /proc (so a cell may overshoot between two samples) and bounded per process by RLIMIT_DATA.

A *fence* is what is set up for one cell. Names of cgroups carry their maker's pid and start time, so that
:func:`sweep` can tell those whose maker is dead.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.cell.fence import Fence, Usage
from anvil.cell.process import same_process, start_time
from anvil.cell.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anvil.cell.spec import Limits, Reason

_PREFIX = "anvil-cell-"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where fences can be put up. kind: as above. parents: controller -> the folder in which groups are made."""

    kind: str
    parents: Mapping[str, str] = field(default_factory=dict)


def build(ground: Ground, limits: Limits, *, niceness: int = 0) -> Fence:
    """Put up a fence for one cell; with a niceness (0 to 19) the whole of it gets that much less of the processors."""
    if ground.kind == "watchdog":
        return Watchdog(limits)
    return Group(ground, limits, niceness)


@functools.cache
def survey() -> Ground:
    """The ground this process stands on; found once."""
    with contextlib.suppress(OSError):
        mounts, groups = _hierarchies()
        for found in (_unified(mounts, groups), _legacy(mounts, groups)):
            if found and _works(found):
                return found
    return Ground(kind="watchdog")


def _hierarchies() -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """({controller: (mount point, its root)}, {controller: own group}); "" is the unified hierarchy."""
    mounts: dict[str, tuple[str, str]] = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            root, point = left.split()[3:5]
            kind, _, options = right.split(" ", 2)
            if kind == "cgroup2":
                mounts[""] = (point, root)
            elif kind == "cgroup":
                for name in options.strip().split(","):
                    mounts.setdefault(name, (point, root))
    groups: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            groups |= dict.fromkeys(names.split(","), path)
    return mounts, groups


def _folder(mounts: Mapping[str, tuple[str, str]], groups: Mapping[str, str], name: str) -> str | None:
    if name not in mounts or name not in groups:
        return None
    point, root = mounts[name]
    return os.path.normpath(os.path.join(point, os.path.relpath(groups[name], root)))


def _unified(mounts: Mapping[str, tuple[str, str]], groups: Mapping[str, str]) -> Ground | None:
    """A parent of our own group that hands memory and pids to its children and that we may write."""
    here = _folder(mounts, groups, "")
    if here is None:
        return None
    top = mounts[""][0]
    while here.startswith(top):
        with contextlib.suppress(OSError), open(f"{here}/cgroup.subtree_control", encoding="ascii") as file:
            handed = set(file.read().split())
            if {"memory", "pids"} <= handed and os.access(f"{here}/cgroup.procs", os.W_OK):
                return Ground(kind="cgroup2", parents={"": here})
        here = os.path.dirname(here)
    return None


def _legacy(mounts: Mapping[str, tuple[str, str]], groups: Mapping[str, str]) -> Ground | None:
    folders = {name: _folder(mounts, groups, name) for name in ("memory", "pids", "cpuacct", "cpu")}
    parents = {name: path for name, path in folders.items() if path and os.access(path, os.W_OK)}
    return Ground(kind="cgroup1", parents=parents) if {"memory", "pids"} <= set(parents) else None


def _works(ground: Ground) -> bool:
    """Make a group and remove it: being writable is not enough (quotas, read-only mounts)."""
    try:
        for parent in ground.parents.values():
            trial = os.path.join(parent, _name())
            os.mkdir(trial)
            os.rmdir(trial)
    except OSError:
        return False
    return True


def _name() -> str:
    pid = os.getpid()
    return f"{_prefix()}{pid}-{start_time(pid)}-{secrets.token_hex(4)}"


@functools.cache
def _prefix() -> str:
    """Names of groups begin with their maker's namespaces of processes and of time.

    In another one of the first a pid means nothing; in one of the second it is told otherwise when a process began.
    """
    spaces = [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("pid", "time") if _has_namespace(kind)]
    return f"{_PREFIX}{'.'.join(map(str, spaces))}-"


def _has_namespace(kind: str) -> bool:
    return os.path.exists(f"/proc/self/ns/{kind}")  # kernels before 5.6 have none of time


class Group:
    """A fence made of one cgroup in each hierarchy that is used.

    Niceness alone would do nothing: each cell is a session of its own, and Linux deals processors out to sessions
    before it looks at their processes (autogroups, sched(7)). In a cpu group a cell is dealt with as one.
    """

    def __init__(self, ground: Ground, limits: Limits, niceness: int = 0) -> None:
        self.kind = ground.kind
        self.usage = Usage()
        self._limits = limits
        name = _name()
        self._folders = {
            key: os.path.join(parent, name) for key, parent in ground.parents.items() if niceness or key != "cpu"
        }
        for path in self._paths():  # one hierarchy may have several controllers
            os.mkdir(path)
        if niceness:
            self._hold_back(1.25**-niceness)
        if self.kind == "cgroup2":
            self._write("", "memory.max", limits.memory_bytes)
            self._write("", "pids.max", limits.processes)
            with contextlib.suppress(OSError):
                self._write("", "memory.swap.max", 0)
            self._write("", "memory.oom.group", 1)
        else:
            self._write("memory", "memory.limit_in_bytes", limits.memory_bytes)
            with contextlib.suppress(OSError):  # only where swap is accounted
                self._write("memory", "memory.memsw.limit_in_bytes", limits.memory_bytes)
            self._write("pids", "pids.max", limits.processes)

    def _paths(self) -> list[str]:
        return list(dict.fromkeys(self._folders.values()))

    def _hold_back(self, share: float) -> None:
        """Of the weight that others have, this share; as a step of niceness has four fifths of the one before."""
        with contextlib.suppress(OSError, KeyError):  # no cpu controller here: niceness has to do
            if self.kind == "cgroup2":
                self._write("", "cpu.weight", max(1, round(100 * share)))
            else:
                self._write("cpu", "cpu.shares", max(2, round(1024 * share)))

    def join(self) -> None:
        """See Fence."""
        for path in self._paths():
            # the forked child has one thread: "tasks" moves it without the kernel's lock on all thread groups, whose
            # taking can wait for milliseconds (kernel/cgroup/cgroup.c, cgroup_procs_write_start)
            _put(f"{path}/{'cgroup.procs' if self.kind == 'cgroup2' else 'tasks'}", "0")

    def watch(self, pid: int) -> Reason | None:
        """See Fence."""
        del pid
        self._measure()
        if self._count("memory", "memory.events" if self.kind == "cgroup2" else "memory.oom_control", "oom_kill"):
            return "memory"
        if self._count("pids", "pids.events", "max"):
            return "processes"
        return "cpu" if self.usage.cpu_s > self._limits.cpu_seconds else None

    def _measure(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.kind == "cgroup2":
                self.usage.cpu_s = self._count("", "cpu.stat", "usage_usec") / 1e6
                self.usage.max_rss_bytes = int(_get(f"{self._folders['']}/memory.peak"))
            else:
                peak = _get(f"{self._folders['memory']}/memory.max_usage_in_bytes")
                self.usage.max_rss_bytes = int(peak)
                if folder := self._folders.get("cpuacct"):
                    self.usage.cpu_s = int(_get(f"{folder}/cpuacct.usage")) / 1e9

    def remove(self) -> None:
        """See Fence."""
        for path in self._paths():
            _remove_group(path)

    def _write(self, key: str, file: str, value: int) -> None:
        _put(f"{self._folders[key]}/{file}", str(value))

    def _count(self, key: str, file: str, word: str) -> int:
        folder = self._folders.get("", self._folders.get(key))
        with contextlib.suppress(OSError, ValueError):
            for line in _get(f"{folder}/{file}").splitlines():
                name, _, number = line.partition(" ")
                if name == word:
                    return int(number)
        return 0


def sweep() -> list[str]:
    """Remove the groups of cells whose maker is dead, ending what is left in them; the removed folders.

    Only makers of this process's namespaces are known; groups of others (Anvil in a container) are left alone.
    """
    removed = []
    for parent in survey().parents.values():
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):
                if name.startswith(_prefix()) and not _maker_lives(name):
                    path = os.path.join(parent, name)
                    _end_members(path)
                    if _remove_group(path):
                        removed.append(path)
    return removed


def _maker_lives(name: str) -> bool:
    pid, started, *_ = name.removeprefix(_prefix()).split("-")
    return same_process(int(pid), int(started))


def _end_members(path: str) -> None:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            members = _get(f"{path}/cgroup.procs").split()
            if not members:
                return
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)


def _remove_group(path: str) -> bool:
    for _ in range(20):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:
            time.sleep(0.005)  # the last member is dead but not yet out of it
        else:
            return True
    return False


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _get(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
