"""Checks of what this process may use: memory, processes, open files, the size of a file. See preflight."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack
from anvil.mainframe.doctor_machine import Doubt

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED_MEMORY = 3_000_000_000
"""Bytes that the kernel's build takes with two jobs, with room to spare."""

LEAST_MEMORY = 1_000_000_000
"""Below this a virtual machine of 512 MiB under emulation, or one large compilation, has no room beside Anvil."""

LEAST_AVAILABLE = 256 * 1024 * 1024
LEAST_TASKS = 64
"""A forge has five workers and a parent, each cell a few processes more, and a make as many as it has jobs."""

LEAST_FILES = 256
LEAST_FILE_BYTES = 1_000_000_000
"""The root's image has 500 MB, and nothing that is made is larger; with room to spare."""

LEAST_CPU_SECONDS = 7200
"""A kernel takes a quarter of an hour on each of two cores."""

_ULIMITS = (
    (resource.RLIMIT_NOFILE, "n", "nofile", LEAST_FILES, "4096", "open files"),
    (resource.RLIMIT_FSIZE, "f", "fsize", LEAST_FILE_BYTES, "unlimited", "bytes in a file"),
    (resource.RLIMIT_AS, "v", "as", NEEDED_MEMORY, "unlimited", "bytes of address space"),
    (resource.RLIMIT_DATA, "d", "data", LEAST_MEMORY, "unlimited", "bytes of data"),
    (resource.RLIMIT_CPU, "t", "cpu", LEAST_CPU_SECONDS, "unlimited", "seconds of processor time"),
)
_FEW_TASKS = 4096


def memory(proc: Path = Path("/proc")) -> str | Doubt:
    """What memory there is, also by the control group. Raises EnvironmentLack when it is too little for any build."""
    found = dict(re.findall(r"^(\w+): +(\d+) kB$", (proc / "meminfo").read_text(encoding="ascii"), re.MULTILINE))
    total, free, swap = (int(found.get(name, 0)) * 1024 for name in ("MemTotal", "MemAvailable", "SwapFree"))
    for limit, _, file in group_limits("memory", ("memory.max", "memory.limit_in_bytes"), proc):
        if limit < LEAST_MEMORY:
            raise EnvironmentLack(
                f"a control group holds this to {_mb(limit)} of memory; a build takes at least {_mb(LEAST_MEMORY)}",
                where=str(file),
                hint=f"raise it: echo {NEEDED_MEMORY} | sudo tee {file}; or start the container with --memory 4g",
            )
        total = min(total, limit)
    if total < LEAST_MEMORY:
        raise EnvironmentLack(
            f"this machine has {_mb(total)} of memory; a build takes at least {_mb(LEAST_MEMORY)}",
            hint="use a machine with more memory",
        )
    if free + swap < LEAST_AVAILABLE:
        raise EnvironmentLack(
            f"only {_mb(free + swap)} of memory are free, of {_mb(total)}",
            hint="end other programs, or add swap (mkswap, swapon)",
        )
    if total < NEEDED_MEMORY:
        return Doubt(
            message=f"{_mb(total)} of memory; the kernel's build takes up to {_mb(NEEDED_MEMORY)}",
            hint="forge with --jobs 1, or add swap",
        )
    return f"{_mb(total)}, {_mb(free)} of it free; {len(os.sched_getaffinity(0))} cores"


def limits() -> str:
    """The process's own limits. Raises EnvironmentLack for the first that no build fits in."""
    for number, letter, name, least, enough, what in _ULIMITS:
        soft, hard = resource.getrlimit(number)
        if soft == resource.RLIM_INFINITY or soft >= least:
            continue
        hint = f"ulimit -S -{letter} {enough}"
        if hard != resource.RLIM_INFINITY and (enough == "unlimited" or hard < int(enough)):
            hint = f"as root: prlimit --pid $$ --{name}={enough}:{enough}; for good: /etc/security/limits.conf"
        raise EnvironmentLack(f"this shell allows {soft} {what}; a build takes {least}", hint=hint)
    return f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open files; no limit is too low"


def processes(proc: Path = Path("/proc")) -> str:
    """How many more processes may be started. Raises EnvironmentLack when there is no room for a forge."""
    for limit, now, file in group_limits("pids", ("pids.max",), proc):
        if limit - now < LEAST_TASKS:
            raise EnvironmentLack(
                f"a control group allows {limit} processes and {now} run; a build takes {LEAST_TASKS} more",
                where=str(file),
                hint=f"raise it: echo max | sudo tee {file}; or start the container with --pids-limit -1",
            )
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() == 0 or soft == resource.RLIM_INFINITY or soft > _FEW_TASKS:
        return "there is room for a build's"
    now = _tasks(proc)
    if soft - now < LEAST_TASKS:
        raise EnvironmentLack(
            f"this user may have {soft} processes and has {now}; a build takes {LEAST_TASKS} more",
            hint=f"ulimit -S -u {_FEW_TASKS}; or as root: prlimit --pid $$ --nproc={_FEW_TASKS}:{_FEW_TASKS}",
        )
    return f"{now} of {soft}"


def _tasks(proc: Path) -> int:
    """How many threads this user has, as RLIMIT_NPROC counts them (setrlimit(2))."""
    count = 0
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                if folder.stat().st_uid == os.getuid():
                    count += len(os.listdir(folder / "task"))
            except OSError:
                continue
    return count


def group_limits(controller: str, files: tuple[str, ...], proc: Path) -> Iterator[tuple[int, int, Path]]:
    """Every limit of a controller on this process's way up: (limit, now used or 0, file); "max" is none.

    Both hierarchies are looked at (cgroups(7)): version 1 by the controller's name, version 2 as "".
    """
    try:
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        groups = (proc / "self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in mounts:
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.partition(" ")
        of_v1 = kind == "cgroup" and controller in options.split(" ")[-1].split(",")
        if not of_v1 and kind != "cgroup2":
            continue
        for entry in groups:
            _, names, path = entry.split(":", 2)
            if names == "" if kind == "cgroup2" else controller in names.split(","):
                yield from _upward(Path(point), os.path.relpath(path, root), files)


def _upward(point: Path, path: str, files: tuple[str, ...]) -> Iterator[tuple[int, int, Path]]:
    here = Path(os.path.normpath(point / path))
    while here.is_relative_to(point):
        for name in files:
            if (limit := _number(here / name)) is not None:
                yield limit, _number(here / "pids.current") or 0, here / name
        if here == point:
            return
        here = here.parent


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _mb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count // 1_000_000} MB"
