"""The machine and the versions that a result was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

PACKAGES = ("orjson", "apsw", "ninja", "doit", "BuildStream", "huey", "litequeue", "msgspec", "rfc8785")
PROGRAMS = ("bwrap", "make", "git")


def describe() -> dict[str, Any]:
    """What this machine is, now: a result says nothing without it."""
    return {
        "cpu": _first(r"model name\s*: (.+)", "/proc/cpuinfo") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(_first(r"MemTotal:\s+(\d+)", "/proc/meminfo") or 0) // 1000,
        "kernel": platform.release(),
        "system": _first(r'PRETTY_NAME="(.+)"', "/etc/os-release"),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "programs": {name: _said(name, "--version") for name in PROGRAMS},
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
        "commit": _said("git", "rev-parse", "HEAD"),
        "changed": bool(_said("git", "status", "--porcelain", "--untracked-files=no", "--", "src", "bench")),
        "load": load(),
        "date": datetime.now(tz=UTC).isoformat(timespec="seconds"),
    }


def load() -> list[float]:
    """How many processes wanted to run, on average over 1, 5 and 15 minutes. Above the cores, distrust the times."""
    return [round(value, 2) for value in os.getloadavg()]


def _first(pattern: str, file: str) -> str:
    found = re.search(pattern, Path(file).read_text(encoding="utf-8"))
    return found[1].strip() if found else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _said(*argv: str) -> str:
    """The first line of what a program says; "" where there is none."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(argv, cwd=here, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip()
