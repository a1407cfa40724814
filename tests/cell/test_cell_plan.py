"""From a specification to operations to arguments: pinned, so that a change of the cell is a readable diff."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anvil.cell import bwrap, entry, run
from anvil.cell.bwrap import Host, arguments, plan, sources, split
from anvil.cell.spec import Bind, CellSpec, WorkTree
from anvil.errors import RecipeError

HOST = Host(proc=frozenset({"keys", "fs"}), jobs=3)

SPEC = CellSpec(
    rootfs=Path("/home/images/x/rootfs"),
    command=("/bin/bash", "-c", "make --args 7"),
    work=WorkTree(
        lower=(Path("/home/trees/top"), Path("/home/trees/bottom")),
        upper=Path("/home/cells/1/upper"),
        scratch=Path("/home/cells/1/scratch"),
    ),
    out=Path("/home/cells/1/out"),
    inputs=(Bind(name="patch", source=Path("/home/blobs/ab")), Bind(name="lib", source=Path("/home/trees/lib"))),
    env={"SOURCE_DATE_EPOCH": "1700000000"},
    jobserver=Path("/home/workers/jobs-1"),
)

OPERATIONS = """\
isolate
read-only / <- /home/images/x/rootfs
proc /proc
read-only /proc/sys <- /proc/sys
read-only /proc/keys <- /dev/null
read-only /proc/fs <- /home/images/x/rootfs/proc
tmpfs /proc/1 4096 0555
freeze /proc/1
dev /dev
tmpfs /dev/shm 2147483648 1777
freeze /dev
tmpfs /tmp 2147483648 1777
folder /tmp/home
tmpfs /run 16777216 0755
read-only /run/anvil/jobserver <- /home/workers/jobs-1
tmpfs /in 1048576 0755
read-only /in/patch <- /home/blobs/ab
read-only /in/lib <- /home/trees/lib
freeze /in
overlay /work [/home/cells/1/upper] [/home/cells/1/scratch] [/home/trees/bottom] [/home/trees/top]
read-write /out <- /home/cells/1/out
env HOME /tmp/home
env JOBS 3
env LC_ALL C.UTF-8
env LOGNAME anvil
env MAKEFLAGS '--jobserver-auth=fifo:/run/anvil/jobserver -j'
env PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
env SHELL /bin/bash
env SOURCE_DATE_EPOCH 1700000000
env TERM dumb
env TZ UTC
env USER anvil
enter /work
filter 4
run /bin/bash -c 'make --args 7'"""

ARGUMENTS = """\
--unshare-user --unshare-pid --unshare-ipc --unshare-net --unshare-uts --unshare-cgroup --disable-userns
--uid 1000 --gid 1000 --hostname anvil --cap-drop ALL --new-session --die-with-parent --clearenv --json-status-fd 3
--ro-bind /home/images/x/rootfs /
--proc /proc --ro-bind /proc/sys /proc/sys --ro-bind /dev/null /proc/keys
--ro-bind /home/images/x/rootfs/proc /proc/fs
--size 4096 --perms 0555 --tmpfs /proc/1 --remount-ro /proc/1
--dev /dev --size 2147483648 --perms 1777 --tmpfs /dev/shm --remount-ro /dev
--size 2147483648 --perms 1777 --tmpfs /tmp --dir /tmp/home
--size 16777216 --perms 0755 --tmpfs /run --ro-bind /home/workers/jobs-1 /run/anvil/jobserver
--size 1048576 --perms 0755 --tmpfs /in --ro-bind /home/blobs/ab /in/patch --ro-bind /home/trees/lib /in/lib
--remount-ro /in
--overlay-src /home/trees/bottom --overlay-src /home/trees/top
--overlay /home/cells/1/upper /home/cells/1/scratch /work
--bind /home/cells/1/out /out"""


def test_the_operations_are_these() -> None:
    assert "\n".join(map(str, plan(SPEC, HOST))) == OPERATIONS


def test_the_arguments_are_these() -> None:
    words = arguments(plan(SPEC, HOST))
    cut = words.index("--setenv")
    assert words[:cut] == ARGUMENTS.split()
    assert words[-6:] == ["--seccomp", "4", "--", "/bin/bash", "-c", "make --args 7"]


def test_the_command_stays_and_the_paths_go_by_descriptor() -> None:
    hidden, shown = split(arguments(plan(SPEC, HOST)))
    assert shown == ["--", "/bin/bash", "-c", "make --args 7"]
    assert hidden.endswith(b"--seccomp\x004\x00")
    assert hidden.count(b"\0") == len(arguments(plan(SPEC, HOST))) - 4


def test_an_overlay_that_was_laid_before_is_bound() -> None:
    laid = arguments(plan(SPEC, HOST), laid=True)
    whole = arguments(plan(SPEC, HOST))
    at = whole.index("--overlay-src")
    assert laid == [*whole[:at], "--bind", "/home/cells/1/upper", "/work", *whole[at + 8 :]]


def test_a_command_may_be_the_first_process() -> None:
    first = plan(replace(SPEC, first=True), HOST)
    assert str(first[0]) == "isolate first"
    assert arguments(first)[:21] == [*arguments(plan(SPEC, HOST))[:20], "--as-pid-1"]


def test_a_work_tree_without_layers_is_bound() -> None:
    spec = CellSpec(
        rootfs=Path("/r"),
        command=("x",),
        work=WorkTree(lower=(), upper=Path("/u"), scratch=Path("/s")),
    )
    lines = [str(op) for op in plan(spec, HOST)]
    assert "read-write /work <- /u" in lines
    assert "enter /work" in lines
    assert not any("/s" in line.split() for line in lines)


def test_an_image_being_made_is_written() -> None:
    lines = [str(op) for op in plan(CellSpec(rootfs=Path("/r"), command=("x",), writable=True), HOST)]
    assert "read-write / <- /r" in lines
    assert "enter /" in lines


def test_kvm_is_bound_only_when_asked() -> None:
    spec = CellSpec(rootfs=Path("/r"), command=("x",), kvm=True)
    assert "--dev-bind /dev/kvm /dev/kvm --remount-ro /dev" in " ".join(arguments(plan(spec, HOST)))
    assert "/dev/kvm" not in OPERATIONS


def test_the_sources_are_all_host_paths() -> None:
    paths = sources(plan(SPEC, HOST))
    assert len(set(paths)) == len(paths)
    assert {Path("/home/blobs/ab"), Path("/home/trees/top"), Path("/home/cells/1/out")} <= set(paths)


def test_it_can_be_printed_before_it_is_entered() -> None:
    text = run.describe(SPEC)
    assert "uid" in text.splitlines()[0]
    assert "overlay /work" in text


def test_a_stage_needs_only_the_topmost_paths() -> None:
    paths = [*sources(plan(SPEC, HOST)), Path("/home/cells/1"), Path("/home/cells/1/../2/x")]
    stage = entry.Stage.of(paths)
    assert Path("/home/cells/1/out").as_posix() not in stage.paths
    assert not any(path.startswith(("/proc", "/dev")) for path in stage.paths)
    assert stage.at(Path("/home/cells/1/out")) == f"{stage.folder}/{stage.paths.index('/home/cells/1')}/out"
    assert stage.at(Path("/home/cells/2/x")).startswith(stage.folder)
    assert stage.at(Path("/home/cells/12")) == "/home/cells/12"
    assert stage.at(Path("/dev/null")) == "/dev/null"


def test_every_act_has_arguments() -> None:
    acts = {op.act for op in plan(SPEC, HOST)} | {"device"}
    assert acts == set(bwrap._ARGUMENTS)


def test_an_operation_without_its_source_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs a source"):
        arguments((bwrap.Operation(act="read-only", to="/"),))


@pytest.mark.parametrize("name", ["", ".", "..", "../work", "a/b", ".hidden", "a\0b", "a\n", "-" * 201, "ü"])
def test_an_input_has_a_plain_name(name: str) -> None:
    with pytest.raises(RecipeError, match="input"):
        plan(replace(SPEC, inputs=(Bind(name=name, source=Path("/x")),)), HOST)


@pytest.mark.parametrize(("name", "value"), [("A", "x\0--bind\0/\0/h"), ("A=B", ""), ("", ""), ("A\0", ""), ("1", "")])
def test_an_environment_cannot_smuggle_arguments(name: str, value: str) -> None:
    with pytest.raises(RecipeError, match="environment"):
        plan(replace(SPEC, env={name: value}), HOST)


@pytest.mark.parametrize("command", [(), ("a", "b\0c"), ("x" * 131072,), ("ü" * 65536,), ("\ud800",)])
def test_a_command_the_kernel_would_not_take_is_the_recipes_fault(command: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError):
        plan(replace(SPEC, command=command), HOST)
    plan(replace(SPEC, command=("x" * 131071,)), HOST)


def test_no_path_can_smuggle_arguments() -> None:
    with pytest.raises(RecipeError, match="NUL"):
        split(arguments(plan(replace(SPEC, out=Path("/x\0--bind")), HOST)))


def test_a_command_that_looks_like_options_stays_a_command() -> None:
    _, shown = split(arguments(plan(replace(SPEC, command=("--bind", "/", "/")), HOST)))
    assert shown == ["--", "--bind", "/", "/"]
