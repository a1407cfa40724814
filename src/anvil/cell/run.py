"""Run a command in a cell, and say how it ended.

A cell is watched by :meth:`Cell.tick`, which its owner must call until it says how the cell ended; :func:`run` and
:func:`exchange` do so themselves. Whatever happens to the owner, the cell's processes end with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import select
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from anvil.cell import bwrap, entry, limits, program, seccomp
from anvil.cell.output import Meter
from anvil.cell.process import Child, Launch, children_of
from anvil.cell.process import start as start_process
from anvil.cell.spec import HOST_UID, MOUNT_POINTS, Outcome
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from anvil.cell.spec import CellSpec, Reason

TICK = 0.1
"""Seconds between two looks at a cell's limits and at the wish to cancel."""

_BLOCK = 1 << 16


def describe(spec: CellSpec) -> str:
    """The operations that make the cell, one a line, and what holds it to its limits."""
    uid = f"uid {spec.host_uid or HOST_UID} on the host" if os.geteuid() == 0 else "this user's uid on the host"
    lines = [f"{uid}; limits by {limits.survey().kind}", *map(str, bwrap.plan(spec, _host()))]
    return "\n".join(lines)


def run(spec: CellSpec, log: Path, *, cancel: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a cell to its end, its standard output and error going to the file ``log`` as they are.

    ``cancel`` is asked every TICK seconds; the cell is ended when it says yes. Raises CellUnavailable when the cell
    could not be made. When an exception (an interrupt, for instance) leaves this function, the cell is gone.
    """
    with _started(spec, log=log, streams=False) as cell:
        while (outcome := cell.tick(TICK)) is None:
            if cancel():
                cell.end("cancelled")
        return outcome


def start(spec: CellSpec, log: Path) -> Cell:
    """Start a cell whose standard input and output are the owner's (``cell.stdin``, ``cell.stdout``).

    Errors go to ``log``. Use it as a context manager: on leaving, the cell is gone. The owner calls ``tick`` or
    ``wait`` at least every second or so, else nobody sees to the limits.
    """
    return _started(spec, log=log, streams=True)


def exchange(
    spec: CellSpec, log: Path, *, cap: int, cancel: Callable[[], bool] = lambda: False
) -> tuple[Outcome, bytes]:
    """Run a cell that turns ``spec.stdin`` into at most ``cap`` bytes of standard output; errors go to ``log``.

    More than ``cap`` bytes end the cell with reason "output".
    """
    said = bytearray()
    with _started(spec, log=log, streams=True) as cell:
        os.close(cell.take_stdin())
        outcome = None
        while outcome is None:
            outcome = cell.tick(TICK, also=cell.stdout)
            while len(said) <= cap and (block := cell.read(_BLOCK)):
                said += block
            if len(said) > cap and outcome is None:
                cell.end("output")
            if cancel():
                cell.end("cancelled")
    return outcome, bytes(said[:cap])


@dataclass
class _Pipe:
    """Both ends of a pipe; the far end is closed once the child has it."""

    near: int
    far: int

    def close_far(self) -> None:
        os.close(self.far)


class Cell:
    """A running cell.

    stdin, stdout: descriptors (non-blocking) when it was started with :func:`start`, else -1.
    """

    def __init__(self, spec: CellSpec, child: Child, fence: limits.Fence, opened: _Opened) -> None:
        self.stdin = opened.stdin
        self.stdout = opened.stdout
        self._spec = spec
        self._child = child
        self._fence = fence
        self._status = opened.status
        self._output = opened.output
        self._log = opened.log
        self._logged = 0
        self._said = b""
        self._tail = b""
        self._reason: Reason | None = None
        self._began = time.monotonic()
        self._outcome: Outcome | None = None
        self._first = 0
        self._due = self._began + TICK / 2
        self._meter = Meter(spec)
        self._poll = select.poll()
        for fd in (child.pidfd, self._output):
            self._poll.register(fd, select.POLLIN)

    @property
    def pid(self) -> int:
        """The pid of bubblewrap on the host."""
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, timeout: float) -> Outcome | None:
        """Tick for up to ``timeout`` seconds; the outcome, or None when it still runs."""
        deadline = time.monotonic() + timeout
        while (outcome := self.tick(min(TICK, max(0.0, deadline - time.monotonic())))) is None:
            if time.monotonic() >= deadline:
                return None
        return outcome

    def complaint(self) -> str:
        """The last line that went to the log."""
        lines = self._tail.decode("utf-8", "backslashreplace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def take_stdin(self) -> int:
        """The descriptor of standard input, which is now the caller's to close."""
        fd, self.stdin = self.stdin, -1
        return fd

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes of standard output; empty when there are none now."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.stdout, size)
        return b""

    def end(self, reason: Reason) -> None:
        """End the cell now, giving ``reason``; the first reason given stays."""
        if self._outcome is None and self._reason is None:
            self._reason = reason
            self._child.kill()

    def tick(self, timeout: float = 0.0, *, also: int = -1) -> Outcome | None:
        """Wait up to ``timeout`` seconds for something to happen (or ``also`` to be readable); see to log and limits.

        Gives the outcome once the last process is gone. Raises CellUnavailable when the cell could not be made.
        """
        if self._outcome:
            return self._outcome
        if also >= 0:
            self._poll.register(also, select.POLLIN)
        ready = {fd for fd, _ in self._poll.poll(timeout * 1000)}
        if also >= 0:
            self._poll.unregister(also)
        if self._output in ready:
            self._copy_log()
        if self._child.pidfd in ready:
            self._finish()
        elif (now := time.monotonic()) >= self._due:
            self._due = now + TICK / 2
            self._look_at_limits(now)
        return self._outcome

    def close(self) -> None:
        """End the cell if it runs, wait until its last process is gone, and give everything back."""
        self.end("cancelled")
        self._child.reap()
        self._fence.remove()
        for name in ("stdin", "stdout", "_status", "_output", "_log"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def _look_at_limits(self, now: float) -> None:
        if now - self._began > self._spec.limits.wall_seconds:
            self.end("wall")
        if not self._first:
            self._first = next(iter(children_of(self._child.pid)), 0)
        if reason := self._fence.watch(self._first):
            self.end(reason)
        if reason := self._meter.look():
            self.end(reason)

    def _read_status(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._status, 4096):
                self._said += block

    def _copy_log(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._output, _BLOCK):
                room = self._spec.limits.log_bytes - self._logged
                os.write(self._log, block[:room])
                self._logged += min(len(block), room)
                self._tail = (self._tail + block)[-2000:]
                if len(block) > room:
                    self.end("log")
                    return
            self._forget(self._output)

    def _forget(self, fd: int) -> None:
        """Stop waiting for a pipe that has ended."""
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)

    def _finish(self) -> None:
        self._child.reap()  # bubblewrap is the first of a process namespace: when it is reaped, all are gone
        wall = time.monotonic() - self._began
        self._read_status()
        self._copy_log()
        code = _exit_code(self._said)
        if code is None and self._reason is None:
            raise CellUnavailable(
                "the cell could not be made", detail=self._tail.decode(errors="replace"), hint="run: anvil doctor"
            )
        reason = self._reason or self._fence.watch(0) or self._meter.final() or _by_itself(code)
        usage = self._fence.usage
        self._outcome = Outcome(
            exit_code=None if self._reason else code,
            signal=code - 128 if code is not None and not self._reason and 128 < code < 193 else None,
            reason=reason,
            wall_s=wall,
            cpu_s=max(usage.cpu_s, self._child.rusage_cpu_s),
            max_rss_bytes=max(usage.max_rss_bytes, self._child.rusage_max_rss),
            log_bytes=self._logged,
            fence=self._fence.kind,
        )


def _by_itself(code: int | None) -> Reason:
    if code == 128 + 25:  # SIGXFSZ: one file grew over the limit
        return "output"
    if code == 128 + 24:  # SIGXCPU
        return "cpu"
    return "signal" if code is not None and 128 < code < 193 else "exit"


def _exit_code(said: bytes) -> int | None:
    """The command's exit code as bubblewrap reports it: only when the cell was made and the command started."""
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            if "exit-code" in (facts := json.loads(line)):
                return int(facts["exit-code"])
    return None


@dataclass
class _Opened:
    """The owner's descriptors of a cell (-1: none), and those that the child is to get."""

    status: int = -1
    output: int = -1
    log: int = -1
    stdin: int = -1
    stdout: int = -1
    child: list[int] = field(default_factory=list)

    def close_child(self) -> None:
        for fd in set(self.child):
            os.close(fd)
        self.child = []

    def close(self) -> None:
        self.close_child()
        for fd in (self.status, self.output, self.log, self.stdin, self.stdout):
            if fd >= 0:
                os.close(fd)


def _open(spec: CellSpec, log: Path, arguments: bytes, *, streams: bool) -> _Opened:
    opened = _Opened()
    try:
        opened.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        opened.output, error = _reader()
        opened.child = [-1, error, error]
        if streams:
            opened.stdout, opened.child[1] = _reader()
        opened.child[0], opened.stdin = _stdin(spec, streams=streams)
        opened.status, status = _reader()
        opened.child += [status, _sealed(seccomp.program()), _sealed(arguments)]
    except BaseException:
        opened.child = [fd for fd in opened.child if fd >= 0]
        opened.close()
        raise
    return opened


def _reader() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    return reader, writer


def _stdin(spec: CellSpec, *, streams: bool) -> tuple[int, int]:
    if spec.stdin is not None:
        return _sealed(spec.stdin), (os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC) if streams else -1)
    if not streams:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    return reader, writer


def _sealed(data: bytes) -> int:
    """A descriptor from which ``data`` can be read, and that cannot be written or opened again for writing."""
    fd = os.memfd_create("anvil", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(
        fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    return fd


@functools.cache
def _host() -> bwrap.Host:
    names = (*bwrap.HIDDEN_PROC, *bwrap.HIDDEN_PROC_FOLDERS)
    proc = frozenset(name for name in names if os.path.lexists(f"/proc/{name}"))
    return bwrap.Host(proc=proc, jobs=len(os.sched_getaffinity(0)))


def _started(spec: CellSpec, *, log: Path, streams: bool) -> Cell:
    uid = (HOST_UID if spec.host_uid is None else spec.host_uid) if os.geteuid() == 0 else None
    _prepare(spec, uid)
    found = program.find(spec.rootfs, spec.bwrap)
    plan = bwrap.plan(spec, _host())
    stage = entry.Stage.of(_to_stage(plan, found)) if uid is not None else None
    at = stage.at if stage else str
    words = [word if isinstance(word, str) else at(word) for word in found.words]
    arguments, command = bwrap.split(bwrap.arguments(plan, at))
    fence = limits.build(limits.survey(), spec.limits)
    try:
        opened = _open(spec, log, arguments, streams=streams)
    except BaseException:
        fence.remove()
        raise
    try:
        child = start_process(
            Launch(
                argv=[*words, "--args", str(bwrap.ARGS_FD), *command],
                title=entry.title(),
                env={},
                fds=opened.child,
                enter=entry.Entry(fence=fence, limits=spec.limits, uid=uid, stage=stage),
                pids="user" if uid is None else "own",
            )
        )
    except BaseException:
        opened.close()
        fence.remove()
        raise
    opened.close_child()
    return Cell(spec, child, fence, opened)


def _to_stage(plan: tuple[bwrap.Operation, ...], found: program.Bubblewrap) -> tuple[Path, ...]:
    """The host paths that must be reachable.

    overlayfs wants upper and scratch on one mount, so the folder that holds both is staged.
    """
    holders = [op.paths[0].parent for op in plan if op.act == "overlay"]
    return (*holders, *bwrap.sources(plan), *(word for word in found.words if isinstance(word, Path)))


def _prepare(spec: CellSpec, uid: int | None) -> None:
    """Make what the cell writes into, and check the image."""
    for name in () if spec.writable else MOUNT_POINTS:
        if not os.path.isdir(spec.rootfs / name):
            raise CellUnavailable(
                f"the base image has no folder /{name}", where=str(spec.rootfs), hint="make the base image again"
            )
    folders = [spec.out] if spec.out else []
    if spec.work:
        folders += [spec.work.upper, *([spec.work.scratch] if spec.work.lower else [])]
    for folder in folders:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o755)
            if uid is not None:
                os.chown(folder, uid, uid)
    if uid is not None and spec.work and spec.work.lower:
        holder = spec.work.upper.parent  # the cell's uid must reach upper through it; 0700 folders above protect it
        mode = stat.S_IMODE(os.stat(holder).st_mode)
        if not mode & stat.S_IXOTH:
            os.chmod(holder, mode | stat.S_IXOTH)
