"""The one door by which processes are started in all of Anvil.

:func:`start` makes a child of which three things hold from its first instruction on: it has only the descriptors it
was given, it dies when the thread that started it dies, and with ``own_pids`` it is the first of a process namespace,
so that killing it kills all that it ever started, and waiting for it waits for all of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import select
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn

from anvil.cell import kernel
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


Pids = Literal["shared", "own", "user"]


@dataclass
class Child:
    """A started process. ``status`` is set once it has been waited for."""

    pid: int
    pidfd: int
    status: int | None = None
    rusage_cpu_s: float = 0.0
    rusage_max_rss: int = 0

    def kill(self) -> None:
        """SIGKILL; harmless when it is gone."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self, timeout: float | None = None) -> bool:
        """Wait for its end (None: for ever) and collect it; True when it has ended."""
        if self.status is None:
            if timeout is not None:
                poll = select.poll()
                poll.register(self.pidfd, select.POLLIN)
                if not poll.poll(max(0, timeout) * 1000):
                    return False
            _, self.status, usage = os.wait4(self.pid, 0)
            self.rusage_cpu_s = usage.ru_utime + usage.ru_stime
            self.rusage_max_rss = usage.ru_maxrss * 1024
            os.close(self.pidfd)
        return True

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal, None while it runs."""
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What :func:`start` is to start.

    argv: argv[0] is the program's path. title: what stands for it in a list of processes. env: its whole environment.
    fds: descriptor n of the child is fds[n]; it has no others. enter: called in the child before it becomes the
    program, with the parent's descriptors still open. pids: "shared", or "own" for a process namespace of which the
    child is the first (needs root), or "user" for the same by way of a user namespace, in which ids keep their
    numbers, and with a mount namespace as well.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    fds: Sequence[int]
    enter: Callable[[], None] = field(default=lambda: None)
    pids: Pids = "shared"
    title: str = ""


def start(launch: Launch) -> Child:
    """Start a process.

    Raises CellUnavailable when it could not become the program; the message names the step that failed.
    """
    report, answer = os.pipe()  # close-on-exec both: end of file on ``report`` says that exec worked
    pid = 0
    with os.fdopen(report, "rb") as stream:
        try:
            pid = _fork(launch, report, answer)
            os.close(answer)
            answer = -1
            said = stream.read()
            if launch.pids == "user":
                os.waitpid(pid, 0)
                sibling, _, said = said.rpartition(b"\n")
                pid = int(sibling or 0)
            if not said:
                return Child(pid=pid, pidfd=os.pidfd_open(pid))
        except OSError as error:
            raise CellUnavailable(
                f"no process could be started: {error.strerror}", hint="end other processes, or run: anvil doctor"
            ) from error
        except BaseException:  # an interrupt: nothing may be left behind
            _abandon(pid)
            raise
        finally:
            if answer >= 0:
                os.close(answer)
    _abandon(pid)
    raise CellUnavailable(
        f"a process could not be started: {said.decode(errors='replace')}",
        where=launch.argv[0],
        hint="run: anvil doctor",
    )


def _abandon(pid: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _fork(launch: Launch, report: int, answer: int) -> int:
    """Fork the child that becomes the program; as root its process namespace is made here, by its parent."""
    sys.stdout.flush()
    sys.stderr.flush()
    if launch.pids != "own":
        return os.fork() or _become(launch, report, answer)
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            return os.fork() or _become(launch, report, answer)
        finally:
            kernel.setns(ours, kernel.CLONE_NEWPID)
    finally:
        os.close(ours)


def _become(launch: Launch, report: int, answer: int) -> NoReturn:
    """In the child: become the program, or say why not and end."""
    try:
        os.close(report)  # our own copy of the reading end would hide that the parent is gone (_refuse_if_orphan)
        _clean_signals()
        os.setsid()
        if launch.pids == "user":
            own_user_namespace(kernel.CLONE_NEWPID)
            if sibling := kernel.fork_sibling():
                os.write(answer, b"%d\n" % sibling)
                os._exit(0)
            with contextlib.suppress(OSError):  # refused where parts of /proc are hidden; then the host's must do
                kernel.own_proc()
        launch.enter()
        kernel.die_with_parent(signal.SIGKILL)  # after every change of uid, which would clear it
        _refuse_if_orphan(answer)
        answer = _arrange(launch.fds, answer)
        program, *words = launch.argv
        os.execve(program, [launch.title or program, *words], dict(launch.env))  # noqa: S606 -- no shell is the point
    except BaseException as error:  # noqa: BLE001 -- a forked child must not unwind into its parent's frames
        with contextlib.suppress(BaseException):
            os.write(answer, (str(error) or repr(error)).replace("\n", " ").encode()[:4000])
    finally:
        os._exit(127)


def _clean_signals() -> None:
    """No ignored signal and an empty mask: both are inherited through exec, handlers are not."""
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _default_handlers() -> None:
    for number in range(1, signal.NSIG):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


@functools.cache
def user_pids_possible() -> bool:
    """Whether this user's Python may make itself a process namespace. AppArmor may forbid it."""
    if os.geteuid() == 0:
        return True

    def attempt() -> int:
        own_user_namespace(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
        return 0

    child = fork_worker(attempt, quiet=True)
    child.reap()
    return child.exit_code == 0


def own_user_namespace(more: int = 0) -> None:
    """Go into a user namespace in which ids keep their numbers, and into new ones of the kinds ``more``."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | more)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _refuse_if_orphan(answer: int) -> None:
    """The parent may have died before die_with_parent was set: then nobody reads ``answer`` any more."""
    poll = select.poll()
    poll.register(answer, 0)
    if poll.poll(0):
        os._exit(127)


def _arrange(fds: Sequence[int], answer: int) -> int:
    """Make descriptor n a copy of fds[n], n = len(fds) the close-on-exec answer, and close all others."""
    first_free = len(fds) + 1
    parked = [fcntl.fcntl(fd, fcntl.F_DUPFD, max(first_free, 64)) for fd in (*fds, answer)]
    for number, fd in enumerate(parked):
        os.dup2(fd, number, inheritable=number < len(fds))
    os.closerange(first_free, 1 << 20)
    return len(fds)


def capture(argv: Sequence[str], *, cap: int = 1 << 20, timeout: float = 10.0) -> tuple[int, bytes]:
    """Run a trusted program of the host, for instance ``bwrap --version``: (exit code, output and errors).

    Raises CellUnavailable when it cannot be started or takes longer than ``timeout`` seconds.
    """
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    reader, writer = os.pipe()
    try:
        child = start(Launch(argv=argv, env={"LC_ALL": "C"}, fds=(null, writer, writer)))
    except CellUnavailable:
        os.close(reader)
        raise
    finally:
        os.close(null)
        os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        said = b""
        while len(said) < cap and poll.poll(timeout * 1000):
            if not (block := os.read(stream.fileno(), 65536)):
                break
            said += block
    if not child.reap(timeout):
        child.kill()
        child.reap()
        raise CellUnavailable(f"{argv[0]} does not end", hint="run: anvil doctor")
    return child.exit_code or 0, said


def fork_worker(target: Callable[[], int], *, quiet: bool = False) -> Child:
    """Fork a process of Anvil's own that runs ``target`` and ends with the code it returns.

    It starts with default signal handlers, an empty mask and a process group of its own, and gets SIGKILL when its
    parent dies. An exception ends it with code 70; its traceback is printed unless ``quiet``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return Child(pid=pid, pidfd=os.pidfd_open(pid))
    code = 70
    try:
        _clean_signals()
        _default_handlers()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.setpgid(0, 0)
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() == parent:
            code = target()
    except BaseException:  # noqa: BLE001 -- a forked child must not unwind into its parent's frames
        if not quiet:
            sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def same_process(pid: int, started: int) -> bool:
    """Whether process ``pid`` runs and is the one that started at ``started`` (see :func:`start_time`)."""
    try:
        return start_time(pid) == started
    except OSError:
        return False


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names the process for this boot."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def below(first: int) -> list[int]:
    """A process and all that descend from it and run."""
    found = [first]
    for pid in found:
        found += children_of(pid)
    return found


def children_of(pid: int) -> list[int]:
    """The processes that ``pid``'s threads started and that run; empty when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    return found
