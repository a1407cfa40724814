"""A cell that runs: its log, its limits, its end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import time
from typing import TYPE_CHECKING, Self

from anvil.cell.output import Meter
from anvil.cell.process import Child, children_of
from anvil.cell.spec import Outcome
from anvil.errors import CellUnavailable, DiskFull

if TYPE_CHECKING:
    from types import TracebackType

    from anvil.cell.fence import Fence
    from anvil.cell.spec import CellSpec, Reason
    from anvil.cell.streams import Opened

TICK = 0.1
"""Seconds between two looks at a cell's limits and at the wish to cancel."""

_BLOCK = 1 << 16
_STATUS_BYTES = 1 << 16  # bubblewrap says some hundred


class Cell:
    """A running cell.

    stdin, stdout: descriptors (non-blocking) when it was started with :func:`anvil.cell.run.start`, else -1.
    shared: bubblewrap is not the first of a process namespace of its own.
    """

    def __init__(self, spec: CellSpec, child: Child, fence: Fence, opened: Opened, *, shared: bool = False) -> None:
        self.stdin = opened.stdin
        self.stdout = opened.stdout
        self._spec = spec
        self._child = child
        self._fence = fence
        self._shared = shared
        self._status = opened.status
        self._output = opened.output
        self._log = opened.log
        self._logged = 0
        self._said = b""
        self._tail = b""
        self._reason: Reason | None = None
        self._began = time.monotonic()
        self._outcome: Outcome | None = None
        self._stdout_ended = False
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
            data = os.read(self.stdout, size)
            self._stdout_ended = not data
            return data
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
        if also == self.stdout and self._stdout_ended:
            also = -1  # a pipe that has ended is always ready
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
        if self._shared and self._outcome is None:
            self._read_status()
            _outlast(self._said)
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
        if reason := self._meter.look(self._first):
            self.end(reason)

    def _read_status(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._said) < _STATUS_BYTES and (block := os.read(self._status, 4096)):
                self._said += block

    def _copy_log(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._output, _BLOCK):
                room = self._spec.limits.log_bytes - self._logged
                self._keep(block[:room])
                self._logged += min(len(block), room)
                self._tail = (self._tail + block)[-2000:]
                if len(block) > room:
                    self.end("log")
                    return
            self._forget(self._output)

    def _keep(self, data: bytes) -> None:
        """Write to the log. Raises DiskFull."""
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFull("no space is left for a cell's log", hint="free some space") from error

    def _forget(self, fd: int) -> None:
        """Stop waiting for a pipe that has ended."""
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)

    def _finish(self) -> None:
        self._child.reap()  # bubblewrap is the first of a process namespace: when it is reaped, all are gone
        wall = time.monotonic() - self._began
        self._read_status()
        if self._shared:
            _outlast(self._said)
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


def _outlast(said: bytes) -> None:
    """Wait for the cell's own first process, for where bubblewrap could not be the first of a namespace itself.

    It dies with bubblewrap, and with it all the others, but a moment later.
    """
    match = re.search(rb'"child-pid": (\d+)', said)
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(int(match[1]) if match else 0)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(5000)
        finally:
            os.close(fd)


def _exit_code(said: bytes) -> int | None:
    """The command's exit code as bubblewrap reports it: only when the cell was made and the command started."""
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            facts = json.loads(line)
            if isinstance(facts, dict) and isinstance(code := facts.get("exit-code"), int):
                return code
    return None
