"""The standing wires: what no attack may ever leave or change, looked at after each of them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from anvil.cell import limits
from anvil.cell.process import children_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.ground import Ground

_SETTINGS = ("kernel/core_pattern", "kernel/hostname", "kernel/randomize_va_space", "vm/overcommit_memory")


class Standing:
    """Looks at the machine and at a ground's home."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._before = self._machine()
        self._ours: set[int] = set()

    def begin(self) -> None:
        """What runs now is a wire's own."""
        self._ours = set(children_of(os.getpid()))

    def harm(self) -> str:
        """What is there that should not be; "" when all is well."""
        found = [self._processes(), self._mounts(), self._staging(), self._groups(), self._home()]
        if (now := self._machine()) != self._before:
            found.append(f"the machine changed: {now}, before {self._before}")
        return "; ".join(part for part in found if part)

    def forget(self) -> None:
        """A control may have changed what is looked at (it should not have): begin anew, and end what it left."""
        for pid in children_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _machine(self) -> tuple[str, ...]:
        facts = [socket.gethostname()]
        for name in _SETTINGS:
            with open(f"/proc/sys/{name}", encoding="utf-8") as file:
                facts.append(file.read().strip())
        facts.append(str(os.stat("/etc/passwd").st_mtime_ns))
        return tuple(facts)

    def _processes(self) -> str:
        """Orphans come to this process (it is their reaper): nothing may live on, not even for a moment."""
        for _ in range(20):
            for pid in self._others():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if not (left := self._others()):
                return ""
            time.sleep(0.05)
        return f"processes live on: {left}"

    def _others(self) -> list[int]:
        return [pid for pid in children_of(os.getpid()) if pid not in self._ours]

    def _mounts(self) -> str:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            place = str(self._ground.home)
            return next((f"a mount is left: {line.strip()}" for line in file if place in line), "")

    def _staging(self) -> str:
        left = os.listdir(self._ground.home / "cells") if (self._ground.home / "cells").is_dir() else []
        return f"staging is left: {left}" if left else ""

    def _groups(self) -> str:
        """cgroups that this process's children made (they are named after it); their makers are dead."""
        for parent in limits.survey().parents.values():
            for name in os.listdir(parent):
                if name.startswith(limits._prefix()) and not limits._maker_lives(name):
                    return f"a cgroup is left: {name}"
        return ""

    def _home(self) -> str:
        """No set-id bits, devices, sockets or FIFOs anywhere in the home (but for the images, which are not its)."""
        for folder in ("vault", "logs", "language"):
            if found := _strange(self._ground.home / folder):
                return found
        return ""


def _strange(top: Path) -> str:
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                mode = os.lstat(path).st_mode
                if mode & (stat.S_ISUID | stat.S_ISGID) or not (
                    stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
                ):
                    return f"{path} has mode {mode:o}"
    return ""
