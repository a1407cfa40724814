"""A person in the cell of a card: what is shown there, that nothing is kept, and how it ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cell.process import below
from anvil.mainframe import cellwork, images, shellcell, shellstate
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.mainframe.shell import find as shell_of
from tests.cli.terminal_lab import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Project

pytestmark = pytest.mark.cell

RECIPE = '''"""A card that jams, those before it, and one that never ran."""
from anvil.recipe import Recipe, human_json

deck = Recipe("deck", licence="MIT")
text = deck.write("text", None, "word", "hello")
first = deck.run("first", text, """
cat word > copy
echo made > /out/made
""")
bad = deck.run("bad", first, """
echo half > half
echo begun > /out/begun
ln -s /etc/hostname link
ln -s /../../../../../../etc away
mkfifo pipe
frobnicate --now
""", inputs={"made": first.out / "made"})
later = deck.run("later", bad, "true")
deck.artifact("word.json", later / "word", kind=human_json)
'''

PROMPT = "/work$ "


@pytest.fixture
def jammed(project: Project) -> Project:
    """A project whose deck has jammed at deck/bad."""
    project.recipe("deck", RECIPE)
    (project.folder / "ROADMAP.md").write_text("")
    done = project.anvil("forge", "deck")
    assert done.returncode == 1, done.stdout + done.stderr
    return project


@pytest.fixture
def shell(jammed: Project) -> Iterator[Terminal]:
    """A shell in the jammed card."""
    with at_a_terminal(jammed, "shell", "deck/bad") as terminal:
        terminal.expect(PROMPT)
        yield terminal


def at_a_terminal(project: Project, *words: str, rows: int = 24, columns: int = 80) -> Terminal:
    environment = {**os.environ, "ANVIL_HOME": str(project.home), "TERM": "xterm-256color"}
    return Terminal(
        project.command(*words), folder=project.folder, environment=environment, rows=rows, columns=columns
    )


def digest(*places: Path) -> str:
    """Of every name, kind and byte below some folders or files; no times, for a look is a use."""
    found = hashlib.sha256()
    for place in places:
        for path in sorted([place, *place.rglob("*")]):
            found.update(f"{path} {path.lstat().st_mode:o} ".encode())
            if path.is_symlink():
                found.update(os.readlink(path).encode())
            elif path.is_file():
                found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def kept(project: Project) -> str:
    """Of all that a home keeps."""
    return digest(
        project.home / "vault" / "blobs", project.home / "vault" / "trees", project.home / "jams",
        project.home / "cortex.db", project.home / "cortex.db-wal",
    )  # fmt: skip


def staging(project: Project) -> list[str]:
    return os.listdir(project.home / "cells")


# ---- what is there


def test_the_failed_state_and_the_command_in_the_history(shell: Terminal) -> None:
    assert "at its failure (the command ended with exit code 127" in shell.said
    shell.type("\x1b[A")  # the arrow
    shell.expect("bash -euo pipefail /tmp/card.sh")
    shell.type("\x15")  # and away with it
    shell.type("ls -m; cat half word copy /out/begun /in/made; readlink link\r")
    for part in ("away, copy, half, link, pipe, word", "half", "hello", "hello", "begun", "made", "/etc/hostname"):
        shell.expect(part)
    shell.expect(PROMPT)
    shell.type("rm link away pipe\r")
    shell.expect(PROMPT)
    shell.type("\x1b[A\x1b[A\x1b[A\r")
    shell.expect("/tmp/card.sh: line 6: frobnicate: command not found")
    shell.expect(PROMPT)
    shell.type("exit 3\r")
    assert shell.wait() == 0


def test_the_environment_is_the_cards(jammed: Project) -> None:
    seen = jammed.anvil("shell", "deck/bad", "--run", "env | sort; id -u; hostname; ls /dev/pts; nproc > /dev/null")
    for line in ("SOURCE_DATE_EPOCH=1767225600", "TZ=UTC", "USER=anvil", "1000", "anvil"):
        assert line in seen.stdout.splitlines()
    assert "MAKEFLAGS=--jobserver-auth=fifo:/run/anvil/jobserver -j" in seen.stdout
    assert "ANVIL_HOME" not in seen.stdout


def test_the_window_its_change_ctrl_c_and_job_control(jammed: Project) -> None:
    with at_a_terminal(jammed, "shell", "deck/bad", rows=33, columns=101) as terminal:
        terminal.expect(PROMPT)
        terminal.type("stty size\r")
        terminal.expect("33 101")
        terminal.expect(PROMPT)
        terminal.type("trap 'echo told' WINCH\r")
        terminal.expect(PROMPT)
        terminal.resize(20, 70)
        terminal.expect("told")
        terminal.type("\rstty size\r")
        terminal.expect("20 70")
        terminal.type("sleep 1000\r")
        terminal.expect("sleep 1000\r\n")
        time.sleep(0.3)  # the child must be in the foreground before the key comes
        terminal.type("\x03")
        terminal.expect("^C")
        terminal.expect(PROMPT)
        terminal.type("sleep 1000\r")
        terminal.expect("sleep 1000\r\n")
        time.sleep(0.3)
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.type("fg\r")
        terminal.expect("sleep 1000\r\n")
        time.sleep(0.3)
        terminal.type("\x03")
        terminal.expect(PROMPT)
        terminal.type("exit\r")
        assert terminal.wait() == 0


def test_a_punched_card_is_shown_before_its_script_or_after(jammed: Project) -> None:
    before = jammed.anvil("shell", "deck/first", "--run", "ls -m /work /out; cat /tmp/card.sh")
    assert before.stdout.startswith("/out:\n\n/work:\nword\n")
    assert "cat word > copy" in before.stdout
    after = jammed.anvil("shell", "deck/first", "--after", "--run", "ls -m; cat /out/made")
    assert after.stdout == "copy, word\nmade\n"
    text = jammed.anvil("shell", "deck/text", "--run", "bash -eu /tmp/card.sh < /tmp/stdin; cat word")
    assert text.stdout == "hello"


def test_a_card_of_a_deck_that_is_done_is_found_too(project: Project) -> None:
    whole = RECIPE.replace("frobnicate --now", "rm pipe link away").replace('"hello"', """'{\\n  "a": 1\\n}\\n'""")
    project.recipe("deck", whole)
    done = project.forge("deck")
    assert done.returncode == 0, done.stdout + done.stderr
    place = ("--project", str(project.folder))
    seen = project.anvil("shell", "deck/bad", *place, "--after", "--run", "ls -m; cat /out/begun")
    assert seen.stdout == "copy, half, word\nbegun\n", seen.stderr


def test_the_exit_code_and_the_bytes_are_passed_on(jammed: Project) -> None:
    environment = {**os.environ, "ANVIL_HOME": str(jammed.home)}
    command = jammed.command("shell", "deck/bad", "--run", r"printf '\033[2J\377'; printf '\033oops' >&2; exit 41")
    done = subprocess.run(command, cwd=jammed.folder, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (41, b"\x1b[2J\xff", b"\x1boops")
    killed = jammed.anvil("shell", "deck/bad", "--run", "kill -KILL $$")
    assert killed.returncode == 128 + signal.SIGKILL


def test_a_terminal_is_shown_no_control_characters_of_a_command(jammed: Project) -> None:
    with at_a_terminal(jammed, "shell", "deck/bad", "--run", r"printf '\033]0;owned\007 end\n'") as terminal:
        assert terminal.wait() == 0
    assert "\x1b" not in terminal.said
    assert r"\x1b]0;owned\x07 end" in terminal.said


def test_the_operations_are_printed_and_nothing_is_entered(jammed: Project) -> None:
    shown = jammed.anvil("shell", "deck/bad", "--print").stdout
    assert "overlay /work" in shown
    assert "read-only /in/made" in shown
    assert "jams/" in shown
    assert "frobnicate" in shown
    assert staging(jammed) == []


# ---- nothing is kept


def test_what_is_done_there_touches_nothing_kept(jammed: Project) -> None:
    before = kept(jammed)
    script = "echo x > word; rm -rf half copy; echo x > new; echo x > /out/begun; chmod 000 link 2>/dev/null; touch a"
    assert jammed.anvil("shell", "deck/bad", "--run", script).returncode == 0
    assert jammed.anvil("shell", "deck/first", "--run", script).returncode == 0
    with at_a_terminal(jammed, "shell", "deck/bad") as terminal:
        terminal.expect(PROMPT)
        terminal.type(f"{script}; cat word; exit\r")
        terminal.wait()
    assert kept(jammed) == before
    assert jammed.anvil("shell", "deck/bad", "--run", "cat half word").stdout == "half\nhello"
    assert staging(jammed) == []


def test_the_control_sees_a_changed_byte(jammed: Project) -> None:
    before = kept(jammed)
    state = next((jammed.home / "jams").rglob("half"))
    state.write_text("other")
    assert kept(jammed) != before


def test_a_forge_takes_the_state_of_an_old_jam_away_but_not_under_a_shell(jammed: Project) -> None:
    old = next((jammed.home / "jams").iterdir())
    with at_a_terminal(jammed, "shell", "deck/bad") as terminal:
        terminal.expect(PROMPT)
        assert jammed.anvil("forge", "deck").returncode == 1  # it jams again: another deck, another state
        assert jammed.anvil("vault", "gc").returncode == 0
        terminal.type("cat half copy; exit\r")
        terminal.expect("half")
        terminal.expect("hello")
        terminal.wait()
    assert old.exists()
    assert jammed.anvil("shell", "deck/bad", "--run", "cat half").stdout == "half\n"
    assert not old.exists()
    jammed.recipe("deck", RECIPE.replace("frobnicate --now", "true").replace("mkfifo pipe", ""))
    jammed.anvil("forge", "deck")
    jammed.anvil("vault", "gc")
    assert [path.name for path in (jammed.home / "jams").rglob("changes") if "bad" in str(path)] == []


# ---- endings


def test_a_killed_shell_leaves_nothing(jammed: Project) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with at_a_terminal(jammed, "shell", "deck/bad") as terminal:
        terminal.expect(PROMPT)
        terminal.type("(trap '' HUP TERM; setsid sleep 4711) & sleep 4711\r")
        time.sleep(0.3)
        family = below(terminal.pid)
        assert len(family) > 3
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < deadline, [pid for pid in family if is_running(pid)]
        time.sleep(0.02)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert jammed.anvil("shell", "deck/bad", "--run", "true").returncode == 0  # the next one sweeps
    assert staging(jammed) == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back_and_leaves_nothing(jammed: Project, number: signal.Signals) -> None:
    with at_a_terminal(jammed, "shell", "deck/bad") as terminal:
        before = terminal.modes()
        terminal.expect(PROMPT)
        assert terminal.modes() != before  # raw
        os.kill(terminal.pid, number)
        assert terminal.wait() == 130
        assert terminal.modes() == before
    assert staging(jammed) == []


def test_the_keyboard_that_goes_away_ends_it(jammed: Project) -> None:
    terminal = at_a_terminal(jammed, "shell", "deck/bad")
    terminal.expect(PROMPT)
    os.close(terminal.fd)
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) != 0
    assert jammed.anvil("shell", "deck/bad", "--run", "true").returncode == 0
    assert staging(jammed) == []


def test_ctrl_right_bracket_three_times_ends_what_hangs(shell: Terminal) -> None:
    shell.type("stty raw; trap '' INT HUP TERM; echo stuck; while :; do sleep 1; done\r")
    shell.expect("stuck\n")
    shell.type("\x03\x1d\x1d\x1d")
    assert shell.wait() == 1
    assert "the cell was ended: as you wished" in shell.said


# ---- refusals


def test_no_terminal(jammed: Project) -> None:
    done = jammed.anvil("shell", "deck/bad")
    assert done.returncode == 2
    assert "anvil shell deck/bad --run 'COMMAND'" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("deck/bed",), "there is: deck/bad"),
        (("nosuch/card",), "no card is called 'nosuch/card'"),
        (("deck/later",), "deck/later needs deck/bad, which has not been made"),
        (("deck/artifact:word.json",), "there is no shell in deck/artifact:word.json"),
        (("images/build",), "base images are made by Anvil itself"),
        (("deck/bad", "--after"), "deck/bad has left nothing that is kept"),
        (("deck/bad", "--recipe", "other"), "no recipe is called 'other'"),
        (("deck/bad", "--menuconfig"), "a shell needs a terminal"),
    ],
)
def test_what_cannot_be_entered_says_why_and_what_else(jammed: Project, words: tuple[str, ...], says: str) -> None:
    run = () if "--menuconfig" in words else ("--run", "true")
    done = jammed.anvil("shell", *words, *run)
    assert done.returncode in {1, 2}, done.stdout
    assert says in done.stderr
    assert "next:" in done.stderr


def test_a_virtual_machine_has_no_shell(project: Project) -> None:
    project.recipe("deck", RECIPE)
    done = project.anvil("shell", "iso/bios-cdrom", "--run", "true")
    assert done.returncode == 2
    assert "it runs a virtual machine" in done.stderr
    assert "anvil boot" in done.stderr


def test_a_base_image_that_is_not_there_is_said(jammed: Project, tmp_path: Path) -> None:
    images = jammed.home / "images"
    target = images.readlink()
    images.unlink()
    images.mkdir()
    for image in target.iterdir():
        if image.is_dir() and not (image / "rootfs" / "usr" / "bin" / "gcc").exists():
            (images / image.name).symlink_to(image)
    done = jammed.anvil("shell", "deck/bad", "--offline", "--run", "true")
    assert done.returncode == 3
    assert "offline" in done.stderr.lower()
    assert "next:" in done.stderr


# ---- where cells have no overlay


def test_where_trees_are_copied_the_state_is_a_copy_too(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same with whole trees: kept at the jam, copied for the shell, and left as they were."""
    real = images.ability

    def without_overlay(services: Services) -> object:
        return replace(real(services), overlay=False)

    monkeypatch.setattr(cellwork, "ability", without_overlay)
    monkeypatch.setattr(shellcell, "ability", without_overlay)
    project.recipe("deck", RECIPE)
    with Services(Settings(home=project.home, output=tmp_path / "out", project=project.folder)) as services:
        architect = Architect(services)
        graph = architect.draw("deck")
        architect.push("one", graph, architect.plan(graph))
        Processor(services, report=lambda _number, _data: None, stopped=lambda: False).run(lambda: True)
        state = digest(project.home / "jams")
        assert next((project.home / "jams").rglob("tree/half")).read_text() == "half\n"
        found = shell_of(services, "deck/bad")
        said: list[bytes] = []
        with shellcell.room(services, found) as room:
            assert "at its failure" in room.state
            outcome = room.run("ls -m; cat half word /out/begun; rm half word", said.append, said.append)
            assert outcome.exit_code == 0
            assert room.run("ls -m", said.append, said.append).exit_code == 0
        assert b"".join(said) == (
            b"away, copy, half, link, pipe, word\nhalf\nhellobegun\naway, copy, link, pipe\n"
        )  # what is done in a room is seen there, and not outside
        assert digest(project.home / "jams") == state
        with shellcell.room(services, shell_of(services, "deck/first"), after=True) as room:
            said.clear()
            room.run("ls -m; cat /out/made", said.append, said.append)
            assert b"".join(said) == b"copy, word\nmade\n"


def test_a_nearly_full_disk_keeps_no_state_and_says_so(jammed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shellstate, "LEAST_FREE", 1 << 60)
    with Services(Settings(home=jammed.home, output=jammed.output, project=jammed.folder)) as services:
        deck = next(state.deck for state in services.db.decks() if state.jammed)
        shutil.rmtree(jammed.home / "jams" / deck)
        staging_folder = jammed.home / "cells" / f"{services.worker.token}-x"
        (staging_folder / "upper").mkdir(parents=True)
        (staging_folder / "out").mkdir()
        shellstate.keep(services, deck, "deck/bad", staging_folder, overlay=True)
        assert list((jammed.home / "jams").iterdir()) == []
        monkeypatch.undo()
        shellstate.keep(services, deck, "deck/bad", staging_folder, overlay=True)  # the control
        assert (jammed.home / "jams" / deck / "deck.bad" / "changes").is_dir()
        shutil.rmtree(jammed.home / "jams" / deck)
        shutil.rmtree(staging_folder, ignore_errors=True)
    with at_a_terminal(jammed, "shell", "deck/bad") as terminal:
        terminal.expect("what it had left when it failed is not kept")
        terminal.expect(PROMPT)
        terminal.type("ls -m; exit\r")
        terminal.expect("copy, word")
        assert terminal.wait() == 0
