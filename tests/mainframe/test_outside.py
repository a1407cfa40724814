"""No recipe's code, no compiler and no QEMU runs outside a cell: seen by tracing every process of a forge."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.mainframe import process_trace
from tests.mainframe.test_forge import HELLO

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

SEEN = """\
100 execve("/usr/bin/python3", ["python3"], 0x7ffc) = 0
100 clone(child_stack=NULL, flags=SIGCHLD) = 101
101 execve("/usr/bin/bwrap", ["bwrap", "--unshare-all"], 0x7ffc) = 0
101 clone(child_stack=NULL, flags=CLONE_NEWPID|SIGCHLD) = 102
102 clone(child_stack=NULL, flags=SIGCHLD) = 3 /* 103 in strace's PID NS */
103 execve("/bin/bash", ["bash"], 0x7ffc) = 0
"""


def test_the_reader_tells_inside_from_outside() -> None:
    found = process_trace.read(SEEN.splitlines())
    assert found.inside == {"/bin/bash"}
    assert found.outside == {"/usr/bin/python3", "bwrap"}
    assert found.cells == 1


def test_the_reader_sees_a_compiler_outside() -> None:
    found = process_trace.read([*SEEN.splitlines(), '100 execve("/usr/bin/gcc", ["gcc"], 0x7ffc) = 0'])
    assert "/usr/bin/gcc" in found.outside


def test_a_number_that_comes_again_is_another_process() -> None:
    again = [
        "103 +++ exited with 0 +++",
        "100 clone(flags=SIGCHLD) = 103",
        '103 execve("/usr/bin/gcc", ["gcc"], 0x1) = 0',
    ]
    assert "/usr/bin/gcc" in process_trace.read([*SEEN.splitlines(), *again]).outside
    early = [again[0], again[2].replace("gcc", "ld"), "101 clone(flags=SIGCHLD) = 103"]
    assert "/usr/bin/ld" in process_trace.read([*SEEN.splitlines(), *early]).inside


@pytest.mark.cell
def test_a_forge_runs_nothing_of_a_recipe_outside_a_cell(project: Project, tmp_path: Path) -> None:
    assert shutil.which("strace"), "this test needs strace: sudo apt-get install strace"
    project.recipe("hello", HELLO)
    trace = tmp_path / "trace"
    command = project.command("forge", "hello", "--project", str(project.folder))
    environment = {**os.environ, "ANVIL_HOME": str(project.home)}
    done = subprocess.run(
        [*process_trace.STRACE, "-o", str(trace), *command], cwd=project.folder, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = process_trace.read(trace.read_text(encoding="utf-8", errors="replace").splitlines())
    assert found.cells >= 4  # evaluation, source, build, check
    assert any(path.endswith("/cc1") for path in found.inside)
    assert any("python3" in path for path in found.inside)  # the recipe itself
    allowed = {os.path.realpath(sys.executable), sys.executable, "bwrap"}
    outside = {os.path.realpath(path) if path.startswith("/") else path for path in found.outside}
    assert outside <= {os.path.realpath(path) if path.startswith("/") else path for path in allowed}
