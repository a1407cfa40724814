"""Forging small recipes through the command line, as a person does it: what is made, kept, told and refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cell.process import children_of
from anvil.mainframe.services import LOCKS
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.cell

HELLO = '''"""A program."""
from anvil.recipe import Recipe, elf_static

hello = Recipe("hello", licence="MIT")
source = hello.write("source", None, "hello.c", """
#include <stdio.h>
int main(void) { puts("hello"); return 0; }
""")
build = hello.run("build", source, "musl-gcc -static -O2 -o hello hello.c")
build.check("speaks", "./hello | grep -qx hello")
hello.artifact("bin/hello", build / "hello", kind=elf_static)
'''


def test_a_recipe_becomes_a_program_with_its_account(project: Project) -> None:
    project.recipe("hello", HELLO)
    done = project.forge("hello")
    assert done.returncode == 0, done.stdout + done.stderr
    program = project.output / "bin" / "hello"
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"hello\n"
    sidecar = json.loads((project.output / "bin" / "hello.json").read_text())
    assert sidecar["kind"] == "elf-static"
    assert sidecar["licence"] == "MIT"
    assert [card["card"] for card in sidecar["cards"]] == ["hello/source", "hello/build", "hello/artifact:bin/hello"]
    assert "gcc-14" in sidecar["images"]["build"]["tools"]


def test_the_recipe_of_the_readme_works(project: Project) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    project.recipe("hello", readme.split("```python\n")[1].split("```")[0])
    done = project.forge("hello")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.output / "bin" / "hello").is_file()


def test_nothing_runs_twice_and_a_comment_changes_nothing(project: Project) -> None:
    recipe = project.recipe("hello", HELLO)
    assert project.forge("hello").returncode == 0
    again = project.forge("hello")
    assert "0 cards run" in again.stdout
    recipe.write_text(HELLO.replace("hello = Recipe", "# a remark\nhello = Recipe"), encoding="utf-8")
    assert "0 cards run" in project.forge("hello").stdout


def test_only_what_depends_on_a_change_runs(project: Project) -> None:
    recipe = project.recipe("hello", HELLO)
    project.forge("hello")
    recipe.write_text(HELLO.replace("-O2", "-O1"), encoding="utf-8")
    plan = project.anvil("plan", "hello", "--project", str(project.folder), "--json")
    fates = {card["card"]: card["fate"] for card in json.loads(plan.stdout)["cards"]}
    assert fates["hello/source"] == "kept"
    assert fates["hello/build"] == "run"
    assert fates["hello/artifact:bin/hello"] == "may run"
    done = project.forge("hello")
    assert "hello/build" in done.stdout
    assert "run   hello/source" not in done.stdout


def test_an_equal_output_cuts_the_rebuild_short(project: Project) -> None:
    recipe = project.recipe("hello", HELLO)
    project.forge("hello")
    recipe.write_text(HELLO.replace("-o hello hello.c", "-o hello hello.c  # the same bytes"), encoding="utf-8")
    done = project.forge("hello")
    assert "run   hello/build" in done.stdout
    assert "kept  hello/artifact:bin/hello" in done.stdout


def test_a_lost_artifact_is_put_back_without_running(project: Project) -> None:
    project.recipe("hello", HELLO)
    project.forge("hello")
    (project.output / "bin" / "hello").unlink()
    again = project.forge("hello")
    assert "0 cards run" in again.stdout
    assert (project.output / "bin" / "hello").stat().st_mode & 0o111


def test_a_source_that_is_gone_is_fetched_again(project: Project, tmp_path: Path) -> None:
    project.recipe(
        "hello",
        'from anvil.recipe import Recipe\nr = Recipe("hello", licence="MIT")\n'
        'r.export("x", r.run("x", None, "cp /in/zlib /out/", inputs={"zlib": r.source("zlib")}).out)\n',
    )
    assert project.forge("hello").returncode == 0
    lock = json.loads((LOCKS / "debian.json").read_text(encoding="utf-8"))
    digest = lock["sources"]["zlib"]["files"][0]["sha256"]
    blob = project.home / "vault" / "blobs" / digest[:2] / digest[2:]
    (tmp_path / lock["sources"]["zlib"]["files"][0]["name"]).write_bytes(blob.read_bytes())
    blob.unlink()
    again = project.forge("hello", "--offline", "--from", str(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "run   sources/zlib" in again.stdout
    assert "run   hello/x" not in again.stdout


def test_a_failing_command_jams_with_its_log_and_the_next_command(project: Project) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "for i in $(seq 40); do echo line $i; done; false; musl-gcc"))
    done = project.forge("hello")
    assert done.returncode == 1
    assert "JAM  hello/build" in done.stdout
    assert "| line 40" in done.stdout
    assert "| line 20\n" not in done.stdout
    assert "anvil forge hello" in done.stdout
    assert not project.output.exists()
    jam = project.anvil("jam")
    assert jam.returncode == 1
    assert "hello/build" in jam.stdout
    project.recipe("hello", HELLO)
    assert project.forge("hello").returncode == 0
    assert project.anvil("jam").returncode == 0


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("cp hello.c hello", "neither a binary"),
        ("gcc -o hello hello.c", "dynamically linked"),
        ("gcc -c -o hello hello.c", "object file"),
        ("echo '[1,2,3]' > hello", "one line"),
        ("musl-gcc -static -o x hello.c && sed -i s/puts/putz/ hello.c && tar -cf hello x hello.c", "hello.c"),
    ],
)  # fmt: skip
def test_a_forbidden_output_jams(project: Project, output: str, reason: str, machine_image: object) -> None:
    assert machine_image
    kind = "archive" if "tar" in output else "elf_static"
    text = HELLO.replace("elf_static", kind).replace("musl-gcc -static -O2 -o hello hello.c", output)
    project.recipe("hello", "\n".join(line for line in text.splitlines() if ".check(" not in line))
    done = project.forge("hello")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "JAM  hello/artifact:bin/hello" in done.stdout
    assert reason in done.stdout
    assert not (project.output / "bin" / "hello").exists()


def test_what_a_card_printed_is_kept_byte_for_byte_and_shown_without_control_codes(project: Project) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", r"printf '\\033]0;owned\\007\\377\\n'; false; musl-gcc"))
    done = project.forge("hello")
    assert done.returncode == 1
    assert "\033" not in done.stdout
    assert "\\x1b]0;owned" in done.stdout
    logs = [path for path in (project.home / "logs").rglob("*.log") if b"owned" in path.read_bytes()]
    assert logs[0].read_bytes() == b"\033]0;owned\007\377\n"


WRONG = 'from anvil.recipe import Recipe\nr = Recipe("wrong", licence="MIT")\n'


@pytest.mark.parametrize(
    ("text", "said", "place"),
    [
        ("from anvil.recipe import Recipe\nx = Recipe(\n", "syntax error", "wrong.py:2"),
        ("import os\n", "cannot import 'os'", "wrong.py"),
        (WRONG + 'r.source("nothing")\n', "no source", "wrong.py:3"),
        ('from anvil.recipe import Recipe\nr = Recipe("other", licence="MIT")\n', "its recipe is 'other'", "wrong.py"),
        (WRONG + '1/0\n', "ZeroDivisionError", "wrong.py:3"),
        (WRONG + 'r.export("x", r.use("none", "y"))\n', "no recipe is called 'none'", "wrong.py"),
        (WRONG + 'r.run("x", None, "true", inputs={"f": r.file("../x")})\n', "plain relative path", "wrong.py:3"),
        (WRONG + 'r.run("x", None, "true", inputs={"f": r.file("missing")})\n', "cannot be read: missing", "wrong.py"),
        (WRONG + 'r.run("x", None, "true", image="none")\n', "no base image is called 'none'", "wrong/x"),
        (WRONG + 'open("/etc/passwd")\n', "NameError", "wrong.py:3"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_told_with_its_place(project: Project, text: str, said: str, place: str) -> None:
    project.recipe("wrong", text)
    done = project.forge("wrong")
    assert done.returncode == 1
    assert said in done.stderr
    assert place in done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_that_use_each_other_in_a_ring_are_told_with_the_ring(project: Project) -> None:
    for name, other in (("one", "two"), ("two", "one")):
        project.recipe(name, WRONG.replace("wrong", name) + f'r.export("x", r.use("{other}", "x"))\n')
    done = project.forge("one")
    assert done.returncode == 1
    assert "two:x -> one:x -> two:x" in done.stderr


def test_a_link_beside_a_recipe_that_leads_away_is_not_followed(project: Project) -> None:
    (project.folder / "recipes" / "link").symlink_to("/etc/shadow")
    project.recipe(
        "wrong",
        WRONG + 'r.run("x", None, "true", inputs={"f": r.file("link")})\n',
    )
    done = project.forge("wrong")
    assert done.returncode == 1
    assert "cannot be read: link" in done.stderr


def test_an_endless_recipe_is_ended(project: Project) -> None:
    project.recipe("wrong", "while True: pass\n")
    done = project.forge("wrong")
    assert done.returncode == 1
    assert "ended" in done.stderr
    assert "wrong.py" in done.stderr


def wait_for_build(forge: subprocess.Popen[str]) -> None:
    """Read a forge's lines until the build runs, and let it get going."""
    assert forge.stdout is not None
    for line in forge.stdout:
        if "run   hello/build" in line:
            break
    time.sleep(0.5)


def test_interrupting_stops_everything_and_the_next_run_goes_on(project: Project) -> None:
    slow = HELLO.replace("musl-gcc", "touch begun; sleep 7260; musl-gcc", 1)
    project.recipe("hello", slow)
    forge = project.start("hello")
    wait_for_build(forge)
    forge.send_signal(signal.SIGINT)
    _, errors = forge.communicate(timeout=10)
    assert forge.returncode == 130
    assert "stopped" in errors
    assert list((project.home / "cells").iterdir()) == []
    assert not _processes_with("sleep 7260")
    assert str(project.home) not in _mounts()
    project.recipe("hello", HELLO)
    done = project.forge("hello")
    assert done.returncode == 0
    assert "run   hello/source" not in done.stdout


@pytest.mark.parametrize("what", ["parent", "group"])
def test_a_killed_forge_leaves_nothing_and_loses_nothing(project: Project, what: str) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 7261; musl-gcc", 1))
    forge = project.start("hello", stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_build(forge)
    if what == "parent":
        forge.kill()
    else:
        os.killpg(forge.pid, signal.SIGKILL)
    forge.communicate()
    end = time.monotonic() + 3
    while _processes_with("sleep 7261") and time.monotonic() < end:
        time.sleep(0.05)
    assert not _processes_with("sleep 7261")
    project.recipe("hello", HELLO)
    done = project.forge("hello")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run   hello/source" not in done.stdout
    assert list((project.home / "cells").iterdir()) == []
    assert "the chain is whole" in project.anvil("audit").stdout


def test_a_worker_that_is_killed_ends_the_forge_and_loses_nothing(project: Project) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 7262; musl-gcc", 1))
    forge = project.start("hello", "--jobs", "1")
    wait_for_build(forge)
    (worker,) = [pid for pid in children_of(forge.pid) if children_of(pid)]
    os.kill(worker, signal.SIGKILL)
    _, errors = forge.communicate(timeout=20)
    assert forge.returncode == 1
    assert "a worker was killed by signal 9" in errors
    project.recipe("hello", HELLO)
    assert project.forge("hello").returncode == 0


def test_json_is_nothing_but_messages_also_for_a_jam(project: Project) -> None:
    project.recipe("hello", HELLO)
    good = project.forge("hello", "--json")
    messages = [MicroJSON.decode(line) for line in good.stdout.splitlines()]
    released = [message["data"] for message in messages if message["@ID"] == MessageID.ARTIFACT_RELEASED]
    assert [artifact["path"] for artifact in released] == [str(project.output / "bin" / "hello")]
    assert messages[-1]["data"]["verdict"] == "done"
    project.recipe("hello", HELLO.replace("musl-gcc", "false; musl-gcc"))
    bad = project.forge("hello", "--json")
    assert bad.returncode == 1
    messages = [MicroJSON.decode(line) for line in bad.stdout.splitlines()]
    assert messages[-1]["data"]["verdict"] == "jammed"
    assert any(message["@ID"] == MessageID.CARD_JAM and "tail" in message["data"] for message in messages)


def test_forcing_a_card_runs_it_and_one_that_is_not_there_is_told(project: Project) -> None:
    project.recipe("hello", HELLO)
    project.forge("hello")
    assert "run   hello/build" in project.forge("hello", "--force", "hello/build").stdout
    wrong = project.forge("hello", "--force", "hello/buidl")
    assert wrong.returncode == 2
    assert "hello/build" in wrong.stderr


def test_the_next_command_of_a_jam_is_whole(project: Project) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "false; musl-gcc"))
    command = f"anvil forge hello --project {project.folder}"
    assert command in project.forge("hello").stdout
    assert command in project.anvil("jam").stdout


def test_a_released_artifact_is_in_the_ledger(project: Project) -> None:
    project.recipe("hello", HELLO)
    project.forge("hello")
    assert "artifact_released" in project.anvil("audit", "--last", "20").stdout


def _processes_with(words: str) -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    line = file.read().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line.startswith(words):
                found.append(line)
    return found


def _mounts() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()


def test_two_forges_of_one_recipe_run_each_card_once(project: Project) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 2; musl-gcc", 1))
    forges = [
        project.start("hello", "--output", str(project.folder / name), stderr=subprocess.STDOUT) for name in ("a", "b")
    ]
    said = [forge.communicate(timeout=120)[0] for forge in forges]
    assert [forge.returncode for forge in forges] == [0, 0], said
    assert sum("run   hello/build" in text for text in said) == 1
    assert (project.folder / "a/bin/hello").read_bytes() == (project.folder / "b/bin/hello").read_bytes()


def test_a_home_that_is_a_file_and_one_of_another_user_are_refused(project: Project, tmp_path: Path) -> None:
    project.recipe("hello", HELLO)
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    done = project.forge("hello", "--home", str(file))
    assert done.returncode == 3
    assert "next:" in done.stderr
    if os.geteuid() == 0:
        other = tmp_path / "other"
        other.mkdir()
        os.chown(other, 4711, 4711)
        done = project.forge("hello", "--home", str(other))
        assert done.returncode == 3
        assert "4711" in done.stderr
