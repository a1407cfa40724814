"""How cells end: by themselves, at a limit, when asked, and with their parent. Nothing is ever left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anvil.cell import limits, run
from anvil.cell.process import fork_worker
from anvil.cell.spec import Limits, MiB
from anvil.errors import CellUnavailable
from tests.cell.cell_lab import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.spec import CellSpec
    from tests.cell.cell_lab import Lab, Without

pytestmark = pytest.mark.cell

STUBBORN = "trap '' TERM INT HUP QUIT; echo up; while :; do :; done & while :; do :; done"


def _pids_with(marker: str) -> list[int]:
    """The processes whose command line has ``marker`` in it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if marker.encode() in file.read():
                    found.append(int(name))
    return found


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 7", 7), ("false", 1), ("no-such-command", 127)])
def test_exit_codes(lab: Lab, command: str, code: int) -> None:
    outcome = lab.cell(command).outcome
    assert (outcome.reason, outcome.exit_code, outcome.signal) == ("exit", code, None)
    assert outcome.ok == (code == 0)


def test_a_signal(lab: Lab) -> None:
    outcome = lab.cell("kill -SEGV $$").outcome
    assert (outcome.reason, outcome.exit_code, outcome.signal) == ("signal", 139, 11)


def test_what_was_used_is_told(lab: Lab) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    outcome = lab.cell(f"python3 -c $'{busy}'; head -c 40M /dev/zero | tail -c 1 >/dev/null").outcome
    assert 0.3 < outcome.cpu_s < 3
    assert outcome.wall_s > 0.3
    assert outcome.max_rss_bytes > 20 * MiB
    assert outcome.fence == ("watchdog" if not lab.root else limits.survey().kind)


def test_a_command_that_is_not_there_is_not_a_result(lab: Lab) -> None:
    with pytest.raises(CellUnavailable) as caught:
        lab.cell("", command=("/bin/no-such-program",))
    assert "no-such-program" in caught.value.detail


def test_an_image_without_mount_points_is_refused(root_lab: Lab) -> None:
    with pytest.raises(CellUnavailable, match="no folder /in"):
        root_lab.cell("true", rootfs=root_lab.folder())


def _limit(lab: Lab, script: str, **changes: object) -> tuple[str, float]:
    outcome = lab.cell(script, limits=replace(SMALL, **changes)).outcome  # type: ignore[arg-type]
    return outcome.reason, outcome.wall_s


def test_wall_time(lab: Lab) -> None:
    reason, wall = _limit(lab, STUBBORN, wall_seconds=0.5)
    assert reason == "wall"
    assert wall < 1.5
    assert _limit(lab, "sleep 0.1", wall_seconds=20)[0] == "exit"


def test_cpu_time(lab: Lab) -> None:
    spin = "for i in 1 2; do timeout 8 bash -c 'while :; do :; done' & done; wait"
    assert _limit(lab, spin, cpu_seconds=1)[0] == "cpu"


def test_log_flood(lab: Lab) -> None:
    result = lab.cell("yes", limits=replace(SMALL, log_bytes=MiB))
    assert result.outcome.reason == "log"
    assert len(result.log) == MiB == result.outcome.log_bytes
    assert lab.cell("head -c 1000000 /dev/zero", limits=replace(SMALL, log_bytes=MiB)).outcome.ok


HOG = "python3 -c 'x = bytearray(400 << 20); x[::4096] = b\"1\" * len(x[::4096]); import time; time.sleep(1)'"


def test_memory_bomb(lab: Lab, without: type[Without]) -> None:
    outcome = lab.cell(HOG).outcome
    # without a cgroup one process is refused the memory before the watchdog sees it
    assert outcome.reason == "memory" or (not lab.root and outcome.exit_code == 1)
    assert lab.cell(HOG, limits=replace(SMALL, memory_bytes=1024 * MiB)).outcome.ok
    assert lab.cell(HOG, weaken=without.fence).outcome.ok


def test_memory_bomb_of_many_processes(lab: Lab) -> None:
    one = "python3 -c 'x = bytearray(100 << 20); x[::4096] = b\"1\" * len(x[::4096]); import time; time.sleep(3)' & "
    assert lab.cell(one * 5 + "wait").outcome.reason == "memory"


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_tmpfs_bomb(lab: Lab, folder: str) -> None:
    result = lab.cell(f"for i in 1 2 3 4 5 6 7 8; do head -c 50M /dev/zero >{folder}/$i; done")
    assert not result.outcome.ok
    assert result.outcome.reason == "memory" or "No space left" in result.text, result.text


def test_fork_bomb(lab: Lab) -> None:
    bomb = "b() { b | b & b; }; b"
    reason, wall = _limit(lab, bomb, processes=128, wall_seconds=20)
    assert reason == "processes"
    assert wall < 15


def test_processes_within_the_limit(lab: Lab, without: type[Without]) -> None:
    many = "for i in {1..150}; do sleep 1 & done; wait; echo all"
    assert lab.cell(many).text == "all\n"
    assert lab.cell(many, limits=replace(SMALL, processes=64)).outcome.reason == "processes"
    assert lab.cell(many, limits=replace(SMALL, processes=64), weaken=without.fence).text == "all\n"


def test_output_too_large(lab: Lab) -> None:
    assert lab.cell("for i in 1 2 3; do head -c 30M /dev/zero >/out/$i; done").outcome.reason == "output"
    assert lab.cell("for i in 1 2 3; do head -c 30M /dev/zero >/work/$i; done").outcome.reason == "output"
    assert lab.cell("head -c 60M /dev/zero >/out/1").outcome.ok


def test_one_file_too_large_or_sparse(lab: Lab, without: type[Without]) -> None:
    assert lab.cell("head -c 100M /dev/zero >/out/1").outcome.reason == "output"
    assert lab.cell("/in/probe sparse /out/s || true").text == "sparse: EFBIG\n"
    assert lab.cell("/in/probe sparse /out/s", weaken=without.fence).text == "sparse: ok\n"


def test_a_disk_being_filled_is_stopped_while_it_runs(lab: Lab) -> None:
    script = "for i in {1..400}; do head -c 8M /dev/zero >/out/$i; done"
    result = lab.cell(script)
    assert result.outcome.reason == "output"
    assert len(os.listdir(result.out)) < 400


def test_nameless_files_are_counted_too(lab: Lab) -> None:
    script = """python3 -c '
import os, time
held = []
for i in range(20):
    held.append(open("/out/x", "wb")); held[-1].write(bytes(8 << 20)); held[-1].flush(); os.unlink("/out/x")
time.sleep(20)
'"""
    outcome = lab.cell(script).outcome
    assert (outcome.reason, outcome.exit_code) == ("output", None)
    assert outcome.wall_s < 15


def test_inodes_are_counted(lab: Lab) -> None:
    script = 'python3 -c \'\nfor i in range(2500): open(f"/out/{i}", "w")\''
    assert lab.cell(script, limits=replace(SMALL, output_bytes=2 * MiB)).outcome.reason == "output"
    assert lab.cell(script, limits=replace(SMALL, output_bytes=4 * MiB)).outcome.ok


def test_cancel(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, STUBBORN)
    began = time.monotonic()

    def task() -> tuple[object, float]:
        asked = time.monotonic() + 0.5
        outcome = run.run(spec, folder / "log", cancel=lambda: time.monotonic() > asked)
        return outcome, time.monotonic() - asked

    outcome, took = lab.apart(task, specs=(spec,))
    assert outcome.reason == "cancelled"
    assert outcome.exit_code is None
    assert took < 1
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_takes_the_cell_with_it(lab: Lab, number: signal.Signals) -> None:
    folder = lab.folder()
    marker = f"marker-{os.getpid()}-{lab.uid}-{number}"
    spec = lab.spec(folder, f": {marker}; {STUBBORN}")

    def work() -> int:
        lab._become((spec,))
        run.run(spec, folder / "log")
        return 0

    worker = fork_worker(work)
    log = folder / "log"
    assert _wait_for(lambda: log.exists() and log.read_bytes() == b"up\n", 20)
    assert len(_pids_with(marker)) >= 3
    os.kill(worker.pid, number)
    worker.reap()
    assert _wait_for(lambda: not _pids_with(marker), 1), _pids_with(marker)
    limits.sweep()
    left = [name for parent in limits.survey().parents.values() for name in os.listdir(parent)]
    assert not any(name.startswith(f"{limits._prefix()}{worker.pid}-") for name in left)


def test_a_parent_killed_at_any_moment(lab: Lab) -> None:
    """kill -9 between fork and exec, while bubblewrap builds, and after: nothing may stay."""
    folder = lab.folder()
    marker = f"moment-{os.getpid()}-{lab.uid}"
    for step in range(30):
        spec = lab.spec(lab.folder(), f": {marker}; sleep 60")

        def work(spec: CellSpec = spec) -> int:
            lab._become((spec,))
            return int(run.run(spec, folder / "log").ok)

        worker = fork_worker(work)
        time.sleep(step * 0.002)
        os.kill(worker.pid, signal.SIGKILL)
        worker.reap()
    assert _wait_for(lambda: not _pids_with(marker), 1), _pids_with(marker)
    limits.sweep()


def test_an_interrupt_in_the_parent_leaves_nothing(lab: Lab) -> None:
    folder = lab.folder()
    marker = f"interrupt-{os.getpid()}-{lab.uid}"
    spec = lab.spec(folder, f": {marker}; {STUBBORN}")

    def task() -> str:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.6)
        try:
            run.run(spec, folder / "log")
        except KeyboardInterrupt:
            return f"interrupted {len(_pids_with(marker))}"
        return "not interrupted"

    assert lab.apart(task, specs=(spec,)) == "interrupted 0"


def test_no_group_no_descriptor_no_mount_is_left(root_lab: Lab) -> None:
    def task() -> tuple[list[str], list[str], list[str], int]:
        folder = root_lab.folder()
        spec = root_lab.spec(folder, "exit 3")
        run.run(spec, folder / "log")  # what is opened once and for all is open now
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(3):
            run.run(spec, folder / "log")
        mounts = [line for line in _read("/proc/self/mountinfo").splitlines() if str(root_lab.home) in line]
        groups = sum(
            name.startswith(f"{limits._prefix()}{os.getpid()}-")
            for parent in limits.survey().parents.values()
            for name in os.listdir(parent)
        )
        return before, sorted(os.listdir("/proc/self/fd")), mounts, groups

    before, after, mounts, groups = root_lab.apart(task)
    assert before == after
    assert mounts == []
    assert groups == 0


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _watchdog_only() -> None:
    vars(limits)["survey"] = lambda: limits.Ground(kind="watchdog")


def test_root_without_cgroups(root_lab: Lab) -> None:
    """The weaker ground, seen from root: processes are counted per cell, memory is watched."""
    many = "for i in {1..150}; do sleep 1 & done; wait; echo all"
    assert root_lab.cell("id -u; cat /proc/self/uid_map", weaken=_watchdog_only).text.split()[:2] == ["1000", "1000"]
    assert root_lab.cell(many, weaken=_watchdog_only).text == "all\n"
    few = replace(SMALL, processes=64)
    assert root_lab.cell(many, weaken=_watchdog_only, limits=few).outcome.reason == "processes"
    outcome = root_lab.cell(HOG, weaken=_watchdog_only).outcome
    assert outcome.fence == "watchdog"
    assert not outcome.ok


def test_where_python_may_make_no_process_namespace(lab: Lab) -> None:
    """As under AppArmor's restriction: bubblewrap alone makes them, and its first process is waited for."""

    def weaken() -> None:
        vars(run)["user_pids_possible"] = lambda: False

    script = "(setsid -f bash -c 'while :; do echo x >>/out/late; sleep 0.02; done'); sleep 0.2"
    result = lab.cell(script, weaken=weaken)
    assert result.outcome.ok, result.text
    size = (result.out / "late").stat().st_size
    time.sleep(0.2)
    assert (result.out / "late").stat().st_size == size > 0


def test_limits_have_defaults_that_fit_a_kernel_build() -> None:
    default = Limits()
    assert default.memory_bytes >= 2048 * MiB
    assert default.processes >= 512
