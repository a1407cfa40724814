"""Checks of the machine: kernel, /proc, devices, Python, SQLite, encoding, clocks. See preflight for what a check is.

Each takes the places it looks at, so that tests can show it others.
"""

from __future__ import annotations

import calendar
import os
import platform
import re
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from anvil.cortex.features import sqlite_in_use
from anvil.errors import EnvironmentLack

_OLDEST_KERNEL = (5, 3)
"""pidfd_open(2), by which children are waited for."""

_OVERLAY_KERNEL = (5, 11)
"""Overlay mounts in a user namespace."""

_OLDEST_PYTHON = (3, 11)

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""What bubblewrap's --dev takes from the host (its setup of SETUP_MOUNT_DEV)."""

_DAY = 86_400.0
_FAR = 20 * 365 * _DAY
"""A clock that is so far ahead of the lock is not believed: locks are made anew long before."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Something with which a build may go wrong or be slow; hint: what mends it."""

    message: str
    hint: str
    where: str = ""


def kernel(system: os.uname_result | None = None) -> str | Doubt:
    """The architecture and the version. Raises EnvironmentLack for one that cells cannot be made on."""
    system = system or os.uname()
    if system.machine != "x86_64":
        raise EnvironmentLack(
            f"this machine says that it is {system.machine}; base images are for x86_64",
            hint="use an x86_64 Linux; inside linux32 or setarch: leave it (exit)",
        )
    numbers = re.match(r"(\d+)\.(\d+)", system.release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if version < _OLDEST_KERNEL:
        raise EnvironmentLack(
            f"Linux {system.release} is too old: {_dotted(_OLDEST_KERNEL)} is needed",
            hint="start a newer kernel; inside setarch --uname-2.6: leave it (exit)",
        )
    if version < _OVERLAY_KERNEL:
        return Doubt(
            message=f"Linux {system.release} lays no trees over each other for ordinary users: they are copied",
            hint=f"start Linux {_dotted(_OVERLAY_KERNEL)} or later",
        )
    return f"Linux {system.release}, {system.machine}"


def proc(folder: Path = Path("/proc")) -> str:
    """Whether /proc is there and shows this process. Raises EnvironmentLack."""
    for name in ("self/mountinfo", "self/fd", "sys/kernel/random/boot_id", "meminfo"):
        if not os.path.exists(folder / name):
            raise EnvironmentLack(
                f"{folder} is not mounted, or not whole: it has no {name}",
                where=str(folder),
                hint="sudo mount -t proc proc /proc; or start the container with a /proc of its own",
            )
    return f"{folder} is there"


def devices(folder: Path = Path("/dev")) -> str:
    """The devices that every cell gets. Raises EnvironmentLack when one is missing or cannot be used."""
    for name in _DEVICES:
        path = folder / name
        hint = "sudo mount -t devtmpfs devtmpfs /dev; or start the container with a /dev of its own"
        try:
            if not stat.S_ISCHR(path.stat().st_mode):
                raise EnvironmentLack(f"{path} is not a device", where=str(path), hint=hint)
            if name == "null":
                os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as problem:
            raise EnvironmentLack(
                f"{path}, which every cell gets, cannot be used: {problem.strerror}", where=str(path), hint=hint
            ) from problem
    return ", ".join(_DEVICES)


def python() -> str:
    """The version of this Python. Raises EnvironmentLack for one that is too old."""
    if sys.version_info[:2] < _OLDEST_PYTHON:
        raise EnvironmentLack(
            f"Python {platform.python_version()} is too old: {_dotted(_OLDEST_PYTHON)} is needed",
            where=sys.executable,
            hint="sudo apt-get install python3, then: make PYTHON=/path/to/python3 setup",
        )
    return f"{platform.python_version()}, {sys.executable}"


def sqlite() -> str:
    """The SQLite in use: its version and what the cortex asks of it. Raises DatabaseRefused."""
    return sqlite_in_use()


def names(encoding: str = "") -> str:
    """How file names are read. Raises EnvironmentLack when not as UTF-8, as all records have them."""
    encoding = (encoding or sys.getfilesystemencoding()).lower()
    if encoding.replace("-", "") != "utf8":
        raise EnvironmentLack(
            f"file names are read as {encoding} here, and Anvil's records are UTF-8",
            hint="export LC_ALL=C.UTF-8 (and unset PYTHONUTF8)",
        )
    return "file names are UTF-8"


def clock(pinned: str, home: Path, now: float | None = None) -> str | Doubt:
    """The clocks. pinned: the day (YYYY-MM-DD) of the lock in use; home: a folder that was used before, perhaps.

    Raises EnvironmentLack for a clock that cannot be right: certificates would not be valid, what is new would look
    old, and leases, which are counted since the start of the machine, would end at once or never.
    """
    now = time.time() if now is None else now
    set_it = "set the clock: sudo timedatectl set-ntp true; or sudo date -s 'YYYY-MM-DD HH:MM'"
    said = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
    lock = calendar.timegm(time.strptime(pinned, "%Y-%m-%d"))
    if now < lock - _DAY:
        raise EnvironmentLack(f"the clock says {said}, but the lock was made on {pinned}: it is behind", hint=set_it)
    if now > lock + _FAR:
        raise EnvironmentLack(f"the clock says {said}, but the lock was made on {pinned}: it is ahead", hint=set_it)
    if _start_is_shifted():
        raise EnvironmentLack(
            "a time namespace shifts the time since the machine's start (CLOCK_BOOTTIME), on which leases are counted",
            hint="run Anvil outside of that time namespace (see /proc/self/timens_offsets)",
        )
    newest = max((_written(path) for path in (home / "cortex.db", home)), default=0.0)
    if newest > now + _DAY:
        day = time.strftime("%Y-%m-%d", time.gmtime(newest))
        return Doubt(
            message=f"the clock says {said}, and the home was written on {day}: it was ahead then, or is behind now",
            where=str(home),
            hint=set_it,
        )
    return f"{said} UTC"


def _start_is_shifted() -> bool:
    """Whether CLOCK_BOOTTIME is another one here than on the machine (time_namespaces(7)); no other clock matters."""
    try:
        with open("/proc/self/timens_offsets", encoding="ascii") as file:
            offsets = dict(line.split(maxsplit=1) for line in file)
    except (OSError, ValueError):  # a kernel before 5.6 has no such namespaces
        return False
    return any(int(number) for number in offsets.get("boottime", "0 0").split())


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
