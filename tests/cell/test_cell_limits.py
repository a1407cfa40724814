"""Fences: which ground is found, what is written where, and what is swept. The real ones are in test_cell_ending."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cell import entry, limits, output, watchdog
from anvil.cell.limits import Ground
from anvil.cell.process import start_time
from anvil.cell.spec import CellSpec, Limits, MiB

if TYPE_CHECKING:
    from anvil.cell.fence import Fence

LIMITS = Limits(memory_bytes=100 * MiB, processes=77, cpu_seconds=5)


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """A folder that looks like a delegated subtree of the unified hierarchy, we being in a/b."""
    for name, handed in (("", "cpu memory pids"), ("a", "memory pids"), ("a/b", "")):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(handed)
        (folder / "cgroup.procs").write_text("")
    return tmp_path


def test_the_nearest_folder_that_hands_out_both_controllers_is_used(unified: Path) -> None:
    ground = limits._unified({"": (str(unified), "/")}, {"": "/a/b"})
    assert ground == Ground(kind="cgroup2", parents={"": str(unified / "a")})


def test_nothing_is_found_where_no_folder_hands_out_both(unified: Path) -> None:
    for name in ("", "a"):
        (unified / name / "cgroup.subtree_control").write_text("memory")
    assert limits._unified({"": (str(unified), "/")}, {"": "/a/b"}) is None
    assert limits._unified({}, {"": "/a/b"}) is None


def test_a_container_that_sees_part_of_the_hierarchy(unified: Path) -> None:
    ground = limits._unified({"": (str(unified), "/docker/1")}, {"": "/docker/1/a/b"})
    assert ground == Ground(kind="cgroup2", parents={"": str(unified / "a")})


def test_the_old_hierarchies_need_memory_and_pids(tmp_path: Path) -> None:
    mounts, groups = {}, {}
    for name in ("memory", "pids", "cpuacct"):
        (tmp_path / name / "me").mkdir(parents=True)
        mounts[name], groups[name] = (str(tmp_path / name), "/"), "/me"
    ground = limits._legacy(mounts, groups)
    assert ground is not None
    assert set(ground.parents) == {"memory", "pids", "cpuacct"}
    del mounts["pids"]
    assert limits._legacy(mounts, groups) is None


def test_a_group_of_the_unified_hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_put", lambda path, text: Path(path).write_text(text))
    fence = limits.build(Ground(kind="cgroup2", parents={"": str(tmp_path)}), LIMITS)
    (folder,) = tmp_path.iterdir()
    assert (folder / "memory.max").read_text() == str(100 * MiB)
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "pids.max").read_text() == "77"
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.peak").write_text("4096\n")
    assert fence.watch(0) is None
    assert (fence.usage.cpu_s, fence.usage.max_rss_bytes) == (2.5, 4096)
    (folder / "cpu.stat").write_text("usage_usec 5500000\n")
    assert fence.watch(0) == "cpu"
    (folder / "pids.events").write_text("max 3\n")
    assert fence.watch(0) == "processes"
    (folder / "memory.events").write_text("low 0\noom_kill 1\n")
    assert fence.watch(0) == "memory"


def test_this_machine_has_a_ground_and_it_is_said() -> None:
    ground = limits.survey()
    assert ground.kind in {"cgroup2", "cgroup1", "watchdog"}
    assert bool(ground.parents) == (ground.kind != "watchdog")


@pytest.mark.skipif(limits.survey().kind == "watchdog", reason="no cgroups here")
def test_sweeping_ends_what_dead_makers_left_and_nothing_else() -> None:
    parent = limits.survey().parents.get("memory") or limits.survey().parents[""]
    mine = os.path.join(parent, limits._name())
    dead = os.path.join(parent, f"{limits._prefix()}{os.getpid()}-1-dead")  # another process once had this pid
    for path in (mine, dead):
        os.mkdir(path)
    with subprocess.Popen(["sleep", "60"]) as orphan:
        with open(f"{dead}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(orphan.pid))
        limits.sweep()  # or that of another Anvil on this machine, at the same moment
        assert orphan.wait(5) == -9
    assert os.path.isdir(mine)
    assert not os.path.exists(dead)
    os.rmdir(mine)


SWEEP = """
import os, sys
from anvil.cell import limits
if sys.argv[1]:
    vars(limits)["_prefix"] = lambda: sys.argv[1]
limits.sweep()
"""


@pytest.mark.skipif(limits.survey().kind == "watchdog", reason="no cgroups here")
@pytest.mark.skipif(os.geteuid() != 0, reason="another time needs root")
@pytest.mark.parametrize("told_by_time", [True, False])
def test_another_anvil_in_another_time_does_not_take_the_living_for_dead(*, told_by_time: bool) -> None:
    """In a time namespace /proc tells other starts of processes; without the namespace's name every maker is dead."""
    parent = limits.survey().parents.get("memory") or limits.survey().parents[""]
    mine = os.path.join(parent, f"anvil-cell-test{os.getpid()}-{os.getpid()}-{start_time(os.getpid())}-x")
    prefix = f"anvil-cell-test{os.getpid()}-"
    if told_by_time:
        mine, prefix = os.path.join(parent, limits._name()), ""
    os.mkdir(mine)
    try:
        other = ["unshare", "--time", "--boottime", "-3600", "--fork", sys.executable, "-c", SWEEP, prefix]
        subprocess.run(other, check=True, timeout=60)
        assert os.path.isdir(mine) == told_by_time
    finally:
        if os.path.isdir(mine):
            os.rmdir(mine)


def test_a_nice_cell_is_held_back_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for cgroups of both kinds; where one hierarchy has two controllers, there is one folder for both."""
    monkeypatch.setattr(limits, "_put", lambda path, text: Path(path).write_text(text))
    for name in ("memory", "pids", "both", "unified"):
        (tmp_path / name).mkdir()
    places = {"memory": "memory", "pids": "pids", "cpuacct": "both", "cpu": "both"}
    ground = Ground(kind="cgroup1", parents={key: str(tmp_path / name) for key, name in places.items()})
    limits.build(ground, LIMITS, niceness=10).join()
    [folder] = (tmp_path / "both").iterdir()
    assert (folder / "cpu.shares").read_text() == "110"
    assert (folder / "tasks").read_text() == "0"
    limits.build(ground, LIMITS)
    assert len(list((tmp_path / "both").iterdir())) == 2
    assert len(list((tmp_path / "both").glob("*/cpu.shares"))) == 1
    limits.build(Ground(kind="cgroup2", parents={"": str(tmp_path / "unified")}), LIMITS, niceness=10)
    [folder] = (tmp_path / "unified").iterdir()
    assert (folder / "cpu.weight").read_text() == "11"


def _burn(fence: Fence | None, niceness: int) -> int:
    """A process in a session of its own that uses up the first processor; its pid."""
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        os.nice(niceness)
        if fence is not None:
            fence.join()
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        while True:
            pass
    finally:
        os._exit(1)


@pytest.mark.skipif(
    limits.survey().kind != "cgroup1" or "cpu" not in limits.survey().parents, reason="no cpu hierarchy here"
)
def test_beside_a_nice_cell_another_gets_most_of_the_processor() -> None:
    fence = limits.build(limits.survey(), Limits(), niceness=10)
    pids = [_burn(None, 0), _burn(fence, 10)]
    try:
        time.sleep(2)
        used = []
        for pid in pids:
            with open(f"/proc/{pid}/stat", "rb") as file:
                used.append(int(file.read().rpartition(b")")[2].split()[11]))
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        fence.remove()
    assert used[1] < used[0] / 3, used


def test_the_watchdog_counts_shared_pages_once() -> None:
    process = watchdog._tree(os.getpid())[0]
    assert 0 < watchdog._share(process) < process.resident


def test_the_watchdog_counts_files_in_memory_that_nobody_has_mapped() -> None:
    mine = watchdog._tree(os.getpid())
    before = watchdog._in_memory(mine)
    fd = os.memfd_create("test")
    os.write(fd, b"x" * MiB)
    shared = mmap.mmap(-1, 2 * MiB)
    shared.write(b"x" * 2 * MiB)
    shared.madvise(mmap.MADV_DONTNEED)
    assert watchdog._in_memory(mine) - before >= 3 * MiB
    os.close(fd)
    shared.close()
    assert watchdog._in_memory(mine) - before < MiB


def test_what_a_host_grants_its_users_does_not_reach_their_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered: dict[int, int] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (50, 50))  # a desktop's audio group, for instance
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: lowered.update({which: pair[1]}))
    entry.Entry(fence=watchdog.Watchdog(LIMITS), limits=LIMITS, uid=None, stage=None)._limit()
    assert lowered[resource.RLIMIT_RTPRIO] == lowered[resource.RLIMIT_NICE] == 0


def test_a_machine_without_memory_is_not_the_cards_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watchdog.Watchdog(Limits()).watch(os.getpid()) is None
    monkeypatch.setattr(watchdog, "FLOOR", 1 << 62)
    assert watchdog.Watchdog(Limits()).watch(os.getpid()) == "scarce"


def test_usage_counts_blocks_names_and_holes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "full").write_bytes(b"x" * MiB)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    for number in range(100):
        (tmp_path / f"empty{number}").touch()
    (tmp_path / "link").symlink_to("/usr")
    used = output.usage([tmp_path])
    assert MiB + 100 * output.PER_NAME < used < MiB + 100 * output.PER_NAME + 64 * 1024


def test_nameless_files_are_found_through_their_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.write(b"x" * MiB)
        file.flush()
        assert output.unlinked([os.getpid()]) < MiB
        (tmp_path / "f").unlink()
        assert output.unlinked([os.getpid(), os.getpid(), 1 << 22]) >= MiB
        assert output.usage([tmp_path]) == 0


def test_a_disk_that_runs_full_is_not_the_cards_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "EVERY", 0.0)
    meter = output.Meter(CellSpec(rootfs=tmp_path, command=("x",), out=tmp_path))
    assert meter.look() is None
    monkeypatch.setattr(output, "FLOOR", 1 << 62)
    assert meter.look() == "disk"


def test_a_walk_is_made_only_when_the_disk_has_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[list[Path]] = []
    monkeypatch.setattr(output, "EVERY", 0.0)

    def usage(folders: list[Path]) -> int:
        walks.append(folders)
        return 5000

    monkeypatch.setattr(output, "usage", usage)
    meter = output.Meter(CellSpec(rootfs=tmp_path, command=("x",), out=tmp_path, limits=Limits(output_bytes=4000)))
    room = meter._room()
    monkeypatch.setattr(meter, "_room", lambda: room)
    assert meter.look() is None
    assert walks == []
    monkeypatch.setattr(meter, "_room", lambda: (room[0] - 4001, room[1]))
    assert meter.look() == "output"
    assert len(walks) == 1
