"""The checks before a build: what each says of machines that tests make up, and a sample of the real faults."""

from __future__ import annotations

import errno
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anvil.errors import AnvilError, CellUnavailable, DatabaseRefused, DiskFull, EnvironmentLack, NetworkLack
from anvil.mainframe import doctor_disk, doctor_limits, doctor_machine, preflight
from anvil.mainframe.doctor_machine import Doubt
from anvil.mainframe.settings import Settings
from tests.campaigns import environment
from tests.campaigns.environment_faults import FAULTS, Fault

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(check: Callable[[], object]) -> AnvilError:
    """The error of a check, which has a cause and a mend."""
    with pytest.raises(AnvilError) as caught:
        check()
    assert caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 3
    return caught.value


def system(release: str, machine: str = "x86_64") -> os.uname_result:
    return os.uname_result(("Linux", "here", release, "#1", machine))


def test_kernels() -> None:
    assert doctor_machine.kernel(system("6.1.0-13-amd64")) == "Linux 6.1.0-13-amd64, x86_64"
    assert isinstance(doctor_machine.kernel(system("5.4.0")), Doubt)
    assert "too old" in refused(lambda: doctor_machine.kernel(system("4.19.0"))).message
    assert "aarch64" in refused(lambda: doctor_machine.kernel(system("6.1.0", "aarch64"))).message


def test_a_proc_that_is_not_whole(tmp_path: Path) -> None:
    assert doctor_machine.proc()
    assert "mount -t proc" in refused(lambda: doctor_machine.proc(tmp_path)).hint


def test_devices_that_are_none(tmp_path: Path) -> None:
    assert "null" in refused(lambda: doctor_machine.devices(tmp_path)).message
    (tmp_path / "null").touch()
    assert "is not a device" in refused(lambda: doctor_machine.devices(tmp_path)).message


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_names_that_are_not_utf_8(encoding: str) -> None:
    assert encoding in refused(lambda: doctor_machine.names(encoding)).message
    assert doctor_machine.names("UTF8")


def test_clocks(tmp_path: Path) -> None:
    day = 86_400.0
    pinned = time.mktime(time.strptime("2026-01-10 12:00", "%Y-%m-%d %H:%M"))
    assert isinstance(doctor_machine.clock("2026-01-10", tmp_path / "none", pinned), str)
    assert "behind" in refused(lambda: doctor_machine.clock("2026-01-10", tmp_path, pinned - 3 * day)).message
    assert "ahead" in refused(lambda: doctor_machine.clock("2026-01-10", tmp_path, pinned + 9000 * day)).message
    os.utime(tmp_path, (pinned + 5 * day,) * 2)
    assert isinstance(doctor_machine.clock("2026-01-10", tmp_path, pinned), Doubt)


def proc_of(folder: Path, meminfo: str, mountinfo: str = "", cgroup: str = "") -> Path:
    """A /proc of one's own."""
    (folder / "self").mkdir()
    (folder / "meminfo").write_text(meminfo)
    (folder / "self" / "mountinfo").write_text(mountinfo)
    (folder / "self" / "cgroup").write_text(cgroup)
    return folder


def kib(total: int, available: int, swap: int = 0) -> str:
    return f"MemTotal: {total} kB\nMemAvailable: {available} kB\nSwapFree: {swap} kB\n"


@pytest.mark.parametrize(
    ("meminfo", "said"),
    [(kib(900_000, 800_000), "this machine has"), (kib(8_000_000, 100_000, 100_000), "of memory are free")],
)
def test_too_little_memory(tmp_path: Path, meminfo: str, said: str) -> None:
    proc = proc_of(tmp_path, meminfo)
    assert said in refused(lambda: doctor_limits.memory(proc)).message


def test_memory_that_is_little_or_enough(tmp_path: Path) -> None:
    proc = proc_of(tmp_path, kib(2_000_000, 1_500_000))
    assert isinstance(doctor_limits.memory(proc), Doubt)
    (proc / "meminfo").write_text(kib(8_000_000, 100_000, 900_000))  # swap counts
    assert isinstance(doctor_limits.memory(proc), str)


@pytest.mark.parametrize(
    ("line", "group", "file"),
    [
        ("cgroup2 none rw", "0::/a/b", "memory.max"),
        ("cgroup none rw,memory", "7:memory:/a/b", "memory.limit_in_bytes"),
    ],
)
def test_a_control_group_above_counts_too(tmp_path: Path, line: str, group: str, file: str) -> None:
    top = tmp_path / "group"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / file).write_text("max\n")
    (top / "a" / file).write_text("500000000\n")
    (tmp_path / "proc").mkdir()
    proc = proc_of(
        tmp_path / "proc", kib(8_000_000, 7_000_000), f"30 20 0:1 / {top} rw - {line}\n", f"{group}\n1:name=x:/\n"
    )
    error = refused(lambda: doctor_limits.memory(proc))
    assert "500 MB" in error.message
    assert error.where == str(top / "a" / file)
    (top / "a" / file).write_text("9223372036854771712\n")  # what version 1 says where there is no limit
    assert isinstance(doctor_limits.memory(proc), str)


@pytest.mark.parametrize("hard", [resource.RLIM_INFINITY, 70])
def test_a_limit_that_the_user_may_raise_or_may_not(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    real = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (64, hard) if which == resource.RLIMIT_NOFILE else real(which)
    )
    hint = refused(doctor_limits.limits).hint
    assert ("prlimit" in hint) == (hard == 70)
    assert ("ulimit -S -n 4096" in hint) == (hard != 70)


def disk_that(monkeypatch: pytest.MonkeyPatch, **facts: int) -> None:
    """Let every file system have these numbers."""
    real = os.statvfs

    class Facts:
        def __init__(self, path: Any) -> None:
            self._real = real(path)

        def __getattr__(self, name: str) -> int:
            return int(facts.get(name, getattr(self._real, name)))

    monkeypatch.setattr(os, "statvfs", Facts)


def test_space_and_inodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk_that(monkeypatch, f_bavail=1, f_frsize=4096)
    assert isinstance(refused(lambda: doctor_disk.space(tmp_path)), DiskFull)
    disk_that(monkeypatch, f_bavail=1000_000_000, f_frsize=4096, f_files=10_000, f_favail=10)
    assert "inodes" in refused(lambda: doctor_disk.space(tmp_path)).message
    disk_that(monkeypatch, f_bavail=1000_000_000, f_frsize=4096, f_files=10_000, f_favail=9000)
    assert isinstance(doctor_disk.space(tmp_path), Doubt)
    disk_that(monkeypatch, f_bavail=1000_000, f_frsize=4096, f_files=0, f_favail=0)  # btrfs has no such number
    assert isinstance(doctor_disk.space(tmp_path), Doubt)
    disk_that(monkeypatch, f_bavail=1000_000_000, f_frsize=4096, f_files=0, f_favail=0)
    assert isinstance(doctor_disk.space(tmp_path), str)


def test_a_file_system_that_cannot_do_what_it_must(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    assert "links, locks, modes" in doctor_disk.file_system(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fails)
        assert "no hard links" in refused(lambda: doctor_disk.file_system(tmp_path)).message
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", lambda _fd, _mode: None)
        assert "modes" in refused(lambda: doctor_disk.file_system(tmp_path)).message
    with monkeypatch.context() as patch:
        real = Path.exists
        patch.setattr(Path, "exists", lambda path: real(path.with_name("Name")) if path.name == "nAME" else real(path))
        assert "case" in refused(lambda: doctor_disk.file_system(tmp_path)).message
    assert list(tmp_path.iterdir()) == []


def test_where_artifacts_go(tmp_path: Path) -> None:
    assert doctor_disk.output(tmp_path / "not" / "yet") == str(tmp_path / "not" / "yet")
    (tmp_path / "file").touch()
    assert "--output" in refused(lambda: doctor_disk.output(tmp_path / "file" / "below")).hint


def settings(folder: Path) -> Settings:
    return Settings(home=folder, output=folder / "out")


def test_an_error_is_explained_by_what_a_check_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forge() -> None:
        with preflight.explained(settings(tmp_path)):
            raise PermissionError(errno.EMFILE, "Too many open files")

    with pytest.raises(PermissionError):
        forge()
    monkeypatch.setattr(doctor_limits, "LEAST_MEMORY", 10**18)
    with pytest.raises(EnvironmentLack, match="of memory; a build takes") as caught:
        forge()
    assert "Too many open files" in caught.value.detail


def test_what_the_network_lacks_is_not_explained_by_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_limits, "LEAST_MEMORY", 10**18)
    with pytest.raises(NetworkLack), preflight.explained(settings(tmp_path)):
        raise NetworkLack("no mirror answers")


def test_all_lacks_are_told_the_first_as_the_error_it_was() -> None:
    def lack(error: AnvilError) -> Callable[[], str]:
        def check() -> str:
            raise error

        return check

    found = [
        preflight.look("a", lambda: "well"),
        preflight.look("b", lack(CellUnavailable("no cell", hint="mend it"))),
        preflight.look("c", lack(DatabaseRefused("too old", hint="make setup"))),
    ]
    assert [each.state for each in found] == ["ok", "lack", "lack"]
    with pytest.raises(CellUnavailable) as caught:
        preflight.raise_lacks(found)
    assert caught.value.detail == "also: too old; make setup"


# ---- the real faults; all of them: make campaign-environment

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and control groups are made by root")


def test_the_list_of_faults_is_long_and_the_seeds_choice_fixed() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 30
    assert environment.chosen(environment.SEED) == environment.chosen(environment.SEED)
    assert len(environment.chosen(environment.SEED)) == 20


def test_the_judge_of_the_campaign_sees_what_is_missing() -> None:
    fault = next(each for each in FAULTS if each.name == "open-files")
    good = "anvil: this shell allows 100 open files; a build takes 256\n  next:  ulimit -S -n 4096\n"

    def judged(out: str, errors: str, code: int = 3) -> str:
        return environment.complaint(fault, environment.read(code, out, errors, 0.0))

    assert judged("", good) == ""
    assert "cards ran first" in judged("[  0/3] run   hello/build\n", good)
    assert judged("[  0/3] run   sources/zlib\n", good) == ""
    assert "exit code" in judged("", good, 1)
    assert "cause" in judged("", good.replace("open files", "things"))
    assert "mend" in judged("", good.replace("ulimit -S -n 4096", "think"))
    assert "traceback" in judged("", "Traceback (most recent call last)\n" + good)


SAMPLE = ("seccomp", "bwrap-too-old", "open-files", "home-noexec", "output-full", "mirror-refuses", "clock-at-zero")


@pytest.mark.cell
@as_root
@pytest.mark.parametrize("fault", [each for each in FAULTS if each.name in SAMPLE], ids=lambda fault: fault.name)
def test_a_real_fault_is_told_before_any_build(fault: Fault) -> None:
    assert environment.complaint(fault, environment.make(fault)) == ""


@pytest.mark.cell
@as_root
def test_without_a_fault_it_builds_and_without_the_checks_a_fault_is_met_late() -> None:
    assert environment.without_a_fault() == ""
    fault = next(each for each in FAULTS if each.name == "clock-at-zero")
    assert environment.complaint(fault, environment.make(fault, blind=True))
