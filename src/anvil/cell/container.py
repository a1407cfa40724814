"""A container for Anvil itself: its daemons and commands inside a base image, with some folders of the host bound in.

It is no fence against a recipe: cells are, and they are made inside of it as they are outside. So it has what making
cells takes: its processes keep the caller's user, network and, as root, privileges. What it fixes is everything else:
programs, libraries and files are the image's, read-only; of the host there is what is named, at the same path.

A container is first a list of operations that can be printed (:func:`plan`); :class:`_Entry` carries them out.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import termios
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anvil.cell import kernel
from anvil.cell.process import Child, Launch, start, user_pids_possible
from anvil.errors import CellUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOSTNAME = "anvil-container"

SCRATCH = ("/tmp", "/run", "/var/tmp")  # noqa: S108 -- the container's own
"""Empty in every container, in memory, and gone with it."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "kvm")
_CGROUPS = Path("/sys/fs/cgroup")
_MADE_HERE = {"/proc", "/dev", "/sys", *SCRATCH}

_MS_RDONLY = 0x1
_MS_REMOUNT = 0x20
_MNT_DETACH = 2
_CLONE_NEWIPC = 0x08000000
_SYS_PIVOT_ROOT = 155
# statvfs(3) flags that a user namespace may not take off a mount, and the same as mount(2) has them
_LOCKED = {os.ST_NOSUID: 0x2, os.ST_NODEV: 0x4, os.ST_NOEXEC: 0x8, os.ST_NOATIME: 0x400, os.ST_RELATIME: 1 << 21}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A file or folder of the host, seen at ``to`` (its own path if that is empty)."""

    source: Path
    to: str = ""
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A container to be made.

    rootfs: the image's tree. command: argv[0] is a path inside. bound: in order; a later one may lie in an earlier
    one. env: the whole environment. folder: an empty folder of the caller's, on which the root is put together (seen
    so by no other process). cwd: where the command starts. fds: descriptor n of the command is fds[n].
    terminal: fds[0] is a terminal that becomes its controlling one.
    """

    rootfs: Path
    command: Sequence[str]
    bound: Sequence[Bound]
    env: Mapping[str, str]
    folder: Path
    cwd: str = "/"
    fds: Sequence[int] = (0, 1, 2)
    terminal: bool = False


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step. act: what is done at ``to``, a path inside; source: a path of the host, or a link's target."""

    act: Literal["folder", "file", "link", "read-only", "read-write", "tmpfs", "proc"]
    to: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.act} {self.to}" + (f" <- {self.source}" if self.source else "")


def plan(spec: ContainerSpec) -> tuple[Operation, ...]:
    """The operations that make the container's root, in order. Raises UsageError for what cannot be bound."""
    wanted = [(str(_absolute(bound.to or str(bound.source))), bound) for bound in spec.bound]
    for to, bound in wanted:
        if to in {"/", *_MADE_HERE} or any(to.startswith(f"{made}/") for made in ("/proc", "/dev", "/sys")):
            raise UsageError(f"{to} is the container's own and cannot be bound", hint="name a folder below it")
        if not bound.source.exists():
            raise UsageError(f"{bound.source} is not there")
    points = {to for to, _ in wanted} | _MADE_HERE | {f"/dev/{name}" for name in _DEVICES} | {str(_CGROUPS)}
    steps = list(_lay(spec.rootfs, "/", points))
    steps += [Operation(act="tmpfs", to=path) for path in SCRATCH]
    steps += [Operation(act="proc", to="/proc"), *_devices()]
    if _CGROUPS.is_dir():
        steps += [*_way("/", str(_CGROUPS)), Operation(act="read-write", to=str(_CGROUPS), source=str(_CGROUPS))]
    for to, bound in wanted:
        steps += _way("/", str(Path(to).parent))
        steps.append(Operation(act="folder" if bound.source.is_dir() else "file", to=to))
        act: Literal["read-write", "read-only"] = "read-write" if bound.writable else "read-only"
        steps.append(Operation(act=act, to=to, source=str(bound.source)))
    return tuple(steps)


def open_container(spec: ContainerSpec) -> Child:
    """Start the command in the container as its first process; signals to it are the caller's business.

    Everything in it ends with it, and it ends with the caller. Raises CellUnavailable when it cannot be made.
    """
    if not user_pids_possible():
        raise CellUnavailable("this user may make no namespaces, and a container is made of them", hint="anvil doctor")
    steps = plan(spec)
    return start(
        Launch(
            argv=list(spec.command),
            env=spec.env,
            fds=spec.fds,
            enter=_Entry(spec=spec, steps=steps),
            pids="own" if os.geteuid() == 0 else "user",
        )
    )


def _absolute(path: str) -> Path:
    found = Path(os.path.normpath(path))
    if not found.is_absolute():
        raise UsageError(f"{path} is not an absolute path")
    return found


def _lay(rootfs: Path, inside: str, points: set[str]) -> Iterator[Operation]:
    """Bind the image's tree, but make the folders anew in which something else will be put."""
    for entry in sorted(os.scandir(f"{rootfs}{inside}"), key=lambda each: each.name):
        to = os.path.join(inside, entry.name)
        if to in points:
            if entry.is_dir() and not entry.is_symlink():
                yield Operation(act="folder", to=to)
        elif entry.is_symlink():
            yield Operation(act="link", to=to, source=os.readlink(entry.path))
        elif entry.is_dir():
            yield Operation(act="folder", to=to)
            if any(point.startswith(f"{to}/") for point in points):
                yield from _lay(rootfs, to, points)
            else:
                yield Operation(act="read-only", to=to, source=entry.path)
        else:
            yield Operation(act="file", to=to)
            yield Operation(act="read-only", to=to, source=entry.path)


def _way(top: str, to: str) -> Iterator[Operation]:
    """The folders on the way to a path."""
    for part in [*reversed(Path(to).parents), Path(to)][1:]:
        if str(part) != top:
            yield Operation(act="folder", to=str(part))


def _devices() -> Iterator[Operation]:
    yield Operation(act="tmpfs", to="/dev")
    for name in _DEVICES:
        path = f"/dev/{name}"
        if os.path.exists(path) and not os.path.islink(path):
            yield Operation(act="folder" if os.path.isdir(path) else "file", to=path)
            yield Operation(act="read-write", to=path, source=path)
    yield Operation(act="folder", to="/dev/shm")  # noqa: S108 -- the container's own
    yield Operation(act="link", to="/dev/fd", source="/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        yield Operation(act="link", to=f"/dev/{name}", source=f"/proc/self/fd/{number}")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What the first process does before it becomes the command: build the root on a tmpfs, and go there."""

    spec: ContainerSpec
    steps: tuple[Operation, ...]
    libc: ctypes.PyDLL = field(default_factory=lambda: ctypes.PyDLL(None, use_errno=True))

    def __call__(self) -> None:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | _CLONE_NEWIPC)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        top = str(self.spec.folder)
        # the sources are opened first: the root may come to lie over them
        sources = {step.source: os.open(step.source, os.O_PATH | os.O_CLOEXEC) for step in self.steps if _binds(step)}
        kernel.mount("tmpfs", top, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        os.umask(0o022)
        for step in self.steps:
            self._carry_out(step, f"{top}{step.to}", sources.get(step.source, -1))
        for fd in sources.values():
            os.close(fd)
        os.chdir(top)
        self._check(self.libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT), b".", b"."), "pivot_root")
        self._check(self.libc.umount2(b".", _MNT_DETACH), "umount2")
        os.chdir("/")
        _read_only("/")
        with contextlib.suppress(OSError):
            self._check(self.libc.sethostname(HOSTNAME.encode(), len(HOSTNAME)), "sethostname")
        os.chdir(self.spec.cwd)
        if self.spec.terminal:
            fcntl.ioctl(self.spec.fds[0], termios.TIOCSCTTY, 0)

    def _carry_out(self, step: Operation, at: str, source: int) -> None:
        if step.act == "folder":
            with contextlib.suppress(FileExistsError):
                os.mkdir(at)
        elif step.act == "file":
            os.close(os.open(at, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o644))
        elif step.act == "link":
            os.symlink(step.source, at)
        elif step.act == "tmpfs":
            kernel.mount("tmpfs", at, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
        elif step.act == "proc":
            self._proc(at)
        else:
            kernel.mount(f"/proc/self/fd/{source}", at, flags=kernel.MS_BIND | kernel.MS_REC)
            if step.act == "read-only":
                _read_only(at)

    def _proc(self, at: str) -> None:
        """A /proc of this process namespace; where the kernel refuses one, as it is (the caller has made it ours)."""
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        try:
            kernel.mount("proc", at, "proc", flags)
        except PermissionError:
            kernel.mount("/proc", at, flags=kernel.MS_BIND | kernel.MS_REC)

    def _check(self, result: int, what: str) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)


def _binds(step: Operation) -> bool:
    return step.act in {"read-only", "read-write"}


def _read_only(at: str) -> None:
    """Make a mount read-only; what it may not do already stays so."""
    found = os.statvfs(at).f_flag
    kept = sum(flag for told, flag in _LOCKED.items() if found & told)
    kernel.mount("none", at, flags=kernel.MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)
