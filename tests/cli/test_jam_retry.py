"""What is told of a jam, and going on from it."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.cell

RECIPE = '''"""A deck that jams until its source is mended."""
from anvil.recipe import Recipe, elf_static

hello = Recipe("hello", licence="MIT")
source = hello.write("source", None, "hello.c", "int main(void) { return missing; }")
build = hello.run(
    "build",
    source,
    """
    seq 1 5000
    printf '\\\\033]0;owned\\\\007\\\\n'
    musl-gcc -static -O2 -o hello hello.c || true
    seq 1 100
    cd nowhere
    """,
    memory=2 << 30,
    wall=77,
)
hello.artifact("bin/hello", build / "hello", kind=elf_static)
'''

MENDED = RECIPE.replace("missing", "0").replace("cd nowhere", "true")


@pytest.fixture
def jammed(project: Project) -> Project:
    """A project whose deck has jammed at hello/build."""
    project.recipe("hello", RECIPE)
    assert project.forge("hello").returncode == 1
    return project


def told(project: Project, *words: str) -> dict[str, Any]:
    jams = json.loads(project.anvil("jam", *words, "--json").stdout)["jams"]
    assert len(jams) == 1
    jam: dict[str, Any] = jams[0]
    return jam


def test_a_jam_is_told_with_what_where_why_and_what_next(jammed: Project) -> None:
    done = jammed.anvil("jam")
    assert done.returncode == 1
    said = done.stdout
    recipe = jammed.folder / "recipes" / "hello.py"
    assert "JAM  hello/build: the command ended with exit code 1" in said
    assert f"recipe: {recipe}, line 7" in said
    assert "script: line 5: cd nowhere" in said
    assert "5003 | hello.c:1:25: error: 'missing' undeclared" in said.replace("\u2018", "'").replace("\u2019", "'")
    assert "> /bin/bash: line 5: cd: nowhere: No such file or directory" in said
    assert "it may use 2.1 GB of memory and 1:17" in said
    assert "of memory free now" in said
    for command in ("anvil jam hello/build --log", "anvil shell hello/build", "anvil why hello/build", "anvil retry"):
        assert command in said
    assert f"anvil forge hello --project {jammed.folder}" in said


def test_a_program_is_told_the_same(jammed: Project) -> None:
    jam = told(jammed, "hello/build")
    assert jam["card"] == "hello/build"
    assert (jam["line"], jam["script_line"]) == (7, {"line": 5, "text": "cd nowhere"})
    assert [symptom["line"] for symptom in jam["symptoms"]] == [5003, 5107]
    assert jam["state_kept"] is True
    assert jam["limits"] == {"memory": 2 << 30, "wall": 77}
    assert jam["forge"] == {"recipe": "hello", "profile": "debian", "project": str(jammed.folder)}


def test_the_whole_log_is_shown_without_control_characters(jammed: Project) -> None:
    done = jammed.anvil("jam", "--log")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == ["1", "2"]
    assert r"\x1b]0;owned\x07" in lines
    assert "\x1b" not in done.stdout
    assert len(lines) > 5100


def test_without_a_jam(project: Project) -> None:
    assert project.anvil("jam").stdout == "  no card is jammed\n"
    assert project.anvil("jam", "--json").stdout.split() == ["{", '"jams":', "[]", "}"]
    assert project.anvil("jam", "--log").returncode == 2
    done = project.anvil("retry")
    assert done.returncode == 2
    assert "there is nothing to retry" in done.stderr


@pytest.mark.parametrize("command", ["jam", "retry"])
def test_a_card_that_is_not_jammed(jammed: Project, command: str) -> None:
    unknown = jammed.anvil(command, "hello/biuld")
    assert unknown.returncode == 2
    assert "there is: hello/build" in unknown.stderr
    done = jammed.anvil(command, "hello/source")
    assert "hello/source is not jammed: it is done" in done.stderr
    waiting = jammed.anvil(command, "hello/artifact:bin/hello")
    assert "it is waiting to run" in waiting.stderr


def test_retry_forges_on_with_what_was_asked(jammed: Project) -> None:
    again = jammed.anvil("retry", "hello/build", "--jobs", "1")
    assert again.returncode == 1
    assert f"anvil forge hello --project {jammed.folder} --jobs 1" in again.stdout
    assert "run   hello/source" not in again.stdout  # what was punched is kept
    jammed.recipe("hello", MENDED)
    output = jammed.folder / "there"
    done = jammed.anvil("retry", "--all", "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (output / "bin" / "hello").is_file()
    assert jammed.anvil("jam").returncode == 0
    assert jammed.anvil("retry").returncode == 2


def test_a_card_that_runs_is_not_retried(project: Project) -> None:
    project.recipe("hello", RECIPE.replace("cd nowhere", "echo waits; sleep 600"))
    forge = project.start("hello")
    try:
        deadline = time.monotonic() + 120
        while "it is running in process" not in (said := project.anvil("retry", "hello/build").stderr):
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
    finally:
        os.kill(forge.pid, signal.SIGINT)
        forge.communicate(timeout=60)
