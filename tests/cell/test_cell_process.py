"""The one door to processes."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cell import process
from anvil.cell.process import Launch, capture, fork_worker, start
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def _run(script: str, out: int, *, enter: object = None) -> process.Child:
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        launch = Launch(argv=("/bin/sh", "-c", script), env={"A": "b"}, fds=(null, out, out))
        if enter:
            launch = Launch(argv=launch.argv, env=launch.env, fds=launch.fds, enter=enter)  # type: ignore[arg-type]
        return start(launch)
    finally:
        os.close(null)


def test_environment_and_descriptors_are_what_was_given(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        child = _run("env | grep -v PWD; ls /proc/self/fd | wc -l", writer)
        assert child.reap(20)
    finally:
        os.close(leak)
    # 0, 1, 2 and the one with which ls reads the folder
    assert os.read(reader, 1000).decode().split() == ["A=b", "4"]
    assert child.exit_code == 0


def test_without_closing_them_a_descriptor_would_leak(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "closerange", lambda _first, _last: None)
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        child = _run("ls /proc/self/fd | wc -l", pipe[1])
        child.reap()
    finally:
        os.close(leak)
    assert int(os.read(pipe[0], 1000)) > 4


def test_signals_are_as_new(pipe: tuple[int, int]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        _run("grep -E '^Sig(Blk|Ign)' /proc/self/status; ps -o sid= -p $$ 2>/dev/null", pipe[1]).reap()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    said = os.read(pipe[0], 1000).decode().split()
    # Signals 32 and 33 are the C library's own: nobody can set them through it, and some launchers leave them ignored.
    own = (1 << 31) | (1 << 32)
    assert [int(said[1], 16), int(said[3], 16) & ~own] == [0, 0]


def test_what_cannot_be_started_is_said() -> None:
    with pytest.raises(CellUnavailable, match="No such file") as caught:
        start(Launch(argv=("/no/such/program",), env={}, fds=()))
    assert caught.value.where == "/no/such/program"


def test_what_fails_on_the_way_is_said(pipe: tuple[int, int]) -> None:
    def fail() -> None:
        raise PermissionError(1, "Operation not permitted", "unshare")

    with pytest.raises(CellUnavailable, match="unshare"):
        _run("echo never", pipe[1], enter=fail)


def test_killing_and_reaping_twice_is_harmless(pipe: tuple[int, int]) -> None:
    child = _run("sleep 60", pipe[1])
    assert child.exit_code is None
    assert not child.reap(0.01)
    child.kill()
    assert child.reap()
    assert child.reap(0)
    child.kill()
    assert child.exit_code == -9


def test_capture() -> None:
    assert capture(("/bin/sh", "-c", "echo out; echo err >&2; exit 3")) == (3, b"out\nerr\n")
    with pytest.raises(CellUnavailable):
        capture(("/no/such/program",))
    with pytest.raises(CellUnavailable, match="does not end"):
        capture(("/bin/sh", "-c", "exec >&- 2>&-; sleep 60"), timeout=0.2)


@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace without a user namespace needs root")
def test_what_the_first_of_a_namespace_started_dies_with_it() -> None:
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    script = "setsid sleep 61.5 & echo $$; wait"
    child = start(Launch(argv=("/bin/sh", "-c", script), env={}, fds=(null, writer, writer), pids="own"))
    os.close(writer)
    os.close(null)
    with os.fdopen(reader, "rb") as stream:
        assert stream.readline() == b"1\n"
        assert process.children_of(child.pid)
        child.kill()
        child.reap()
        assert stream.read() == b""  # nobody has the other end any more
    # the parent itself still makes ordinary children
    assert os.stat("/proc/self/ns/pid").st_ino == os.stat("/proc/self/ns/pid_for_children").st_ino


def test_a_worker_ends_with_its_code_and_clean_signals() -> None:
    def target() -> int:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert os.getpgid(0) == os.getpid()
        return 5

    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        worker = fork_worker(target)
    finally:
        signal.signal(signal.SIGTERM, old)
    assert worker.reap(20)
    assert worker.exit_code == 5


def test_a_worker_that_raises_ends_with_70(capfd: pytest.CaptureFixture[str]) -> None:
    def target() -> int:
        raise RuntimeError("seen on standard error")

    worker = fork_worker(target)
    worker.reap()
    assert worker.exit_code == 70
    assert "seen on standard error" in capfd.readouterr().err


def test_a_worker_dies_with_its_parent() -> None:
    reader, writer = os.pipe()

    def middle() -> int:
        grandchild = fork_worker(lambda: signal.sigwait({signal.SIGUSR1}))
        os.write(writer, b"%d" % grandchild.pid)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    fork_worker(middle).reap()
    pid = int(os.read(reader, 100))
    os.close(reader)
    os.close(writer)
    deadline = time.monotonic() + 2
    while os.path.exists(f"/proc/{pid}") and _state(pid) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_process_is_known_by_pid_and_start() -> None:
    mine = process.start_time(os.getpid())
    assert process.same_process(os.getpid(), mine)
    assert not process.same_process(os.getpid(), mine + 1)
    assert not process.same_process(2**22 + 1, mine)
