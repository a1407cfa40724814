"""What a cell's first process does to itself before it becomes bubblewrap.

As root it goes into a private mount namespace, binds the paths that the cell needs below one folder (a home may be
unreachable for the uid it takes), and becomes an unprivileged uid *before* bubblewrap makes the user namespace: no id
inside is then the host's root. Nothing is ever mounted in the host's namespace.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.cell import kernel
from anvil.cell.process import own_user_namespace, start_time
from anvil.cell.watchdog import hard_processes
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anvil.cell.fence import Fence
    from anvil.cell.spec import Limits

_STAGES = ("/mnt", "/media", "/srv", "/opt", "/home")
_OPEN_FILES = 8192


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Trees to be laid over each other, by their paths as they are seen after the stage was built.

    lower: the topmost first. The overlay covers ``upper`` itself, in the private mount namespace alone.
    """

    lower: tuple[str, ...]
    upper: str
    scratch: str

    def mount(self) -> None:
        """Mount it, in a user namespace and a mount namespace of this process's own.

        bubblewrap could, but not "volatile": without it the kernel writes all of the host's file system out when the
        overlay goes. Descriptors stand for paths: the options may be 4096 bytes, and commas and colons mean something.
        """
        fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (self.upper, self.scratch, *self.lower)]
        upper, scratch, *lower = (f"/proc/self/fd/{fd}" for fd in fds)
        options = f"upperdir={upper},workdir={scratch},lowerdir={':'.join(lower)},userxattr,volatile"
        try:
            kernel.mount("overlay", upper, "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        except OSError as error:
            what = f"overlay of {len(lower)} trees over {self.upper}"
            raise OSError(error.errno, error.strerror, what) from error
        for fd in fds:
            os.close(fd)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The steps of a first process, run in the child by calling it.

    uid: what root becomes, and stage: the paths that it then must still reach; None both for an ordinary user.
    overlay: laid here if bubblewrap is not to do it. apart: whether the process is or will be in a user namespace of
    its own, in which an overlay can be laid and RLIMIT_NPROC counts the cell's processes alone. niceness: added to
    ours.
    """

    fence: Fence
    limits: Limits
    uid: int | None
    stage: Stage | None
    overlay: Overlay | None = None
    apart: bool = True
    niceness: int = 0

    def __call__(self) -> None:
        """Go inside: after this the process is what bubblewrap may be."""
        self.fence.join()
        os.nice(self.niceness)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")  # when memory ends, a cell goes before the engine
        if self.stage is not None:
            self.stage.build(self.uid or 0)
        if self.uid is not None:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
            if self.overlay or self.fence.kind == "watchdog":
                kernel.own_proc_files()
                own_user_namespace(kernel.CLONE_NEWNS)
        if self.overlay is not None:
            self.overlay.mount()
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
        _set(resource.RLIMIT_RTPRIO, 0)  # a desktop may grant these; a cell must not hold up who watches it
        _set(resource.RLIMIT_NICE, 0)
        _set(resource.RLIMIT_STACK, resource.RLIM_INFINITY, soft=8 << 20)
        _set(resource.RLIMIT_CPU, int(self.limits.cpu_seconds) + 1)
        if self.fence.kind == "watchdog":
            if self.apart:
                _set(resource.RLIMIT_NPROC, hard_processes(self.limits))
            _set(resource.RLIMIT_DATA, self.limits.memory_bytes)


def _set(which: int, hard: int, *, soft: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    _, old = resource.getrlimit(which)
    if old != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > old):
        hard = old
    soft = hard if soft is None or (hard != resource.RLIM_INFINITY and soft > hard) else soft
    resource.setrlimit(which, (soft, hard))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Host paths, bound below one folder in a private mount namespace. folder: any that exists will do."""

    folder: str
    paths: tuple[str, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Stage:
        """The stage for some paths, without those that anyone can reach or that are below another one."""
        for folder in _STAGES:
            if os.path.isdir(folder) and not os.path.islink(folder):
                break
        else:
            raise CellUnavailable(f"none of {', '.join(_STAGES)} is a folder", hint="mkdir /mnt")
        needed: list[str] = []
        for path in sorted({os.path.abspath(path) for path in paths}):  # a folder sorts before what is in it
            if not _open_to_all(path) and not any(path.startswith(f"{top}/") for top in needed):
                needed.append(path)
        return cls(folder=folder, paths=tuple(needed))

    def at(self, path: Path) -> str:
        """Where a path is seen on the stage."""
        text = os.path.abspath(path)
        for index, top in enumerate(self.paths):
            if text == top or text.startswith(f"{top}/"):
                return f"{self.folder}/{index}{text[len(top) :]}"
        return text

    def build(self, uid: int) -> None:
        """In the child, as root: leave the host's mount namespace and set up the stage for ``uid``.

        A device that is not everybody's (``/dev/kvm``) gets a node of that uid's, which nobody else can see.
        """
        kernel.own_proc()
        opened = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in self.paths]  # before the stage covers any
        kernel.mount("anvil", self.folder, "tmpfs", kernel.MS_NOSUID, "size=64k,mode=0755")
        for index, fd in enumerate(opened):
            target = f"{self.folder}/{index}"
            facts = os.fstat(fd)
            if stat.S_ISCHR(facts.st_mode):
                os.mknod(target, stat.S_IFCHR | 0o600, facts.st_rdev)
                os.chown(target, uid, uid)
                os.close(fd)
                continue
            if stat.S_ISDIR(facts.st_mode):
                os.mkdir(target, 0o755)
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            kernel.mount(f"/proc/self/fd/{fd}", target, flags=kernel.MS_BIND)
            os.close(fd)


def _open_to_all(path: str) -> bool:
    """Whether any uid can reach a path and the file there: the kernel's /proc, and devices such as /dev/null."""
    if path.startswith("/dev/"):
        return os.path.exists(path) and os.stat(path).st_mode & 0o006 == 0o006
    return path.startswith("/proc/")


@functools.cache
def _started(pid: int) -> int:
    return start_time(pid)


def title() -> str:
    """argv[0] of a cell's first process: it names its maker, so that an orphan can be told (see run.sweep)."""
    pid = os.getpid()
    return f"anvil-cell/{pid}-{_started(pid)}"
