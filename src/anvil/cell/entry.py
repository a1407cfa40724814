"""What a cell's first process does to itself before it becomes bubblewrap.

As root it goes into a private mount namespace, binds the paths that the cell needs below one folder (a home may be
unreachable for the uid it takes), and becomes an unprivileged uid *before* bubblewrap makes the user namespace: no id
inside is then the host's root. Nothing is ever mounted in the host's namespace.
"""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.cell import kernel
from anvil.cell.process import start_time
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.cell.limits import Fence
    from anvil.cell.spec import Limits

_STAGES = ("/mnt", "/media", "/srv", "/opt", "/home")
_OPEN_FILES = 8192


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The steps of a first process, run in the child by calling it.

    uid: what root becomes; None for an ordinary user. paths: the host paths that bubblewrap will be given.
    """

    fence: Fence
    limits: Limits
    uid: int | None
    paths: tuple[Path, ...]

    def __call__(self) -> None:
        self.fence.join()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")  # when memory ends, a cell goes before the engine
        if self.uid is not None:
            _stage(self.paths)
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        self._limit()
        kernel.no_new_privileges()
        os.umask(0o022)
        os.chdir("/")

    def _limit(self) -> None:
        output = self.limits.output_bytes
        _set(resource.RLIMIT_CORE, 1)  # 1 and not 0: 0 still runs a core_pattern program of the host's
        _set(resource.RLIMIT_FSIZE, output)
        _set(resource.RLIMIT_NOFILE, _OPEN_FILES, soft=1024)
        _set(resource.RLIMIT_MEMLOCK, 8 << 20)
        _set(resource.RLIMIT_STACK, resource.RLIM_INFINITY, soft=8 << 20)
        _set(resource.RLIMIT_CPU, int(self.limits.cpu_seconds) + 1)
        if self.fence.kind == "watchdog":
            _set(resource.RLIMIT_NPROC, self.limits.processes)
            _set(resource.RLIMIT_DATA, self.limits.memory_bytes)


def _set(which: int, hard: int, *, soft: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    _, old = resource.getrlimit(which)
    if old != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > old):
        hard = old
    soft = hard if soft is None or (hard != resource.RLIM_INFINITY and soft > hard) else soft
    resource.setrlimit(which, (soft, hard))


def stage() -> str:
    """The folder below which a root's cell finds its paths: any that exists will do, it is covered privately."""
    for path in _STAGES:
        if os.path.isdir(path) and not os.path.islink(path):
            return path
    raise CellUnavailable(f"none of {', '.join(_STAGES)} is a folder", hint="mkdir /mnt")


def staged(paths: tuple[Path, ...], path: Path) -> str:
    """Where ``path``, or what is below one of ``paths``, is seen after an Entry with these paths."""
    for index, top in enumerate(paths):
        if path == top or top in path.parents:
            return os.path.normpath(f"{stage()}/{index}/{path.relative_to(top)}")
    return str(path)


def _stage(paths: tuple[Path, ...]) -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    opened = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths]  # before the stage covers any of them
    kernel.mount("anvil", stage(), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=64k,mode=0755")
    for index, fd in enumerate(opened):
        target = f"{stage()}/{index}"
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
        kernel.mount(f"/proc/self/fd/{fd}", target, flags=kernel.MS_BIND)
        os.close(fd)


def title() -> str:
    """argv[0] of a cell's first process: it names its maker, so that an orphan can be told (see run.sweep)."""
    pid = os.getpid()
    return f"anvil-cell/{pid}-{start_time(pid)}"
