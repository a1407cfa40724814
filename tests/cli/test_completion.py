"""Completion: what the parsers say may come next, and that bash, zsh and fish put it on the line."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cli import parsing
from anvil.cli.completion import scripts
from anvil.cli.completion.words import offer
from anvil.cli.main import command_names, summary
from anvil.cortex import glance
from anvil.cortex.db_interface import CortexDB

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def words(*line: str) -> list[str]:
    return [word for word, _ in offer(line).words]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose cortex has a deck of two cards and a forge."""
    path = tmp_path / "home"
    with contextlib.closing(CortexDB(path / "cortex.db")) as db:
        db.begin_forge("iso-1", deck="iso-1", recipe="iso")
        db.push_card("kernel/build", "run", "{}", deck="iso-1")
        db.push_card("iso/artifact:bin/x", "release", "{}", deck="iso-1")
    monkeypatch.setenv("ANVIL_HOME", str(path))
    return path


# ---- what may come next


def test_commands_come_first_each_with_what_it_does() -> None:
    assert {*command_names(), "--help", "--version"} == set(words(""))
    assert dict(offer([""]).words)["forge"] == summary("forge")
    assert "forge" in words("fo")
    assert "boot" not in words("fo")


def parsers(parser: argparse.ArgumentParser, said: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    yield said, list(parsing.options_of(parser))
    for name, below in parsing.subcommands(parser).items():
        yield from parsers(below, (*said, name))


@pytest.mark.parametrize("name", command_names())
def test_every_option_and_sub_command_of_every_command_is_offered(name: str) -> None:
    parser = parsing.parser_of(name)
    assert set(parsing.subcommands(parser)) <= set(words(name, "")) | {""}
    for said, options in parsers(parser, (name,)):
        hidden = {"--words"}
        assert set(words(*said, "--")) == {each for each in options if each.startswith("--")} - hidden, said


def test_an_option_is_offered_once_unless_it_may_come_often() -> None:
    assert "--offline" in words("forge", "--")
    assert "--offline" not in words("forge", "--offline", "--")
    assert "--force" in words("forge", "--force", "a/b", "--")


def test_values_of_options_are_offered_in_both_ways_of_writing_them() -> None:
    assert words("boot", "x.iso", "--as", "") == ["cdrom", "disk", "usb"]
    assert words("boot", "x.iso", "--as=d") == ["--as=disk"]
    assert "debian" in words("forge", "--profile", "")
    assert "debian" in words("forge", "--prof", "")  # argparse takes what an option begins with
    assert "--profile=seed" in words("forge", "--profile=s")
    assert offer(["forge", "--output", ""]).paths == "dirs"
    assert offer(["boot", ""]).paths == "files"
    assert words("forge", "--jobs", "") == []


def test_recipes_are_the_project_s_and_the_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "my-os.py").write_text('"""My own: the ISO, changed."""\n')
    (tmp_path / "recipes" / "$(touch x).py").write_text('""""""\n')
    found = dict(offer(["forge", "--project", str(tmp_path), ""]).words)
    assert found["my-os"] == "the ISO, changed"
    assert {"iso", "kernel"} <= set(found)
    assert not [name for name in found if "$" in name]  # what a shell could take otherwise is not offered
    assert "my-os" not in words("forge", "")
    assert "iso" not in words("forge", "iso", "")  # there is one recipe


def test_cards_are_those_of_the_cortex(home: Path) -> None:
    assert words("forge", "--force", "") == ["iso/artifact:bin/x", "kernel/build"]
    assert words("why", "kern") == ["kernel/build"]
    assert words("why", "--home", str(home.parent / "none"), "") == []
    assert "iso-1" in words("diff", "")


def test_looking_changes_nothing_and_waits_for_nobody(home: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in home.iterdir() if not path.name.endswith("-shm")}
    assert glance.names(home / "cortex.db", cards=True)
    with CortexDB(home / "cortex.db") as db, db.batch():
        assert glance.names(home / "cortex.db", cards=True)
    after = {path.name: path.stat().st_mtime_ns for path in home.iterdir() if not path.name.endswith("-shm")}
    assert after == before
    assert glance.names(tmp_path / "none.db", cards=True) == []
    (tmp_path / "junk.db").write_bytes(b"no database" * 100)
    assert glance.names(tmp_path / "junk.db", cards=False) == []
    assert not (tmp_path / "none.db").exists()


def test_words_that_make_no_sense_are_answered_with_nothing() -> None:
    assert words("no-such-command", "") == []
    assert words("forge", "--nonsense", "--of") == ["--offline"]
    assert words("forge", "--nonsense=") == []
    assert words("forge", "iso", "--", "--of") == []
    assert words() == []


# ---- the shells


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "anvil"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m anvil.cli.main "$@"\n')
    program.chmod(0o755)
    return folder


def surroundings(bin_folder: Path, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "HOME": str(bin_folder.parent),
        "ANVIL_HOME": str(home),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, shell: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(shell[0], shell, {**environment})
        self._number = 0

    def run(self, command: str) -> str:
        """Type a command; what the terminal shows until it is over."""
        self._number += 1
        os.write(self._fd, f"{command}; echo; echo over{self._number}''x\n".encode())
        said, end = b"", time.monotonic() + 30
        while f"over{self._number}x".encode() not in said and time.monotonic() < end:
            if select.select([self._fd], [], [], 0.2)[0]:
                said += os.read(self._fd, 65536)
        found, over, _ = said.decode(errors="replace").partition(f"over{self._number}x")
        assert over, found
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x07]", "", found)

    def complete(self, line: str) -> str:
        """Type a line and a tab; what is then there is not run but printed, in angle brackets, word by word."""
        shown = self.run(f"{line}\t\x01printf '<%s>' \x05")  # ^A and ^E: to the beginning, to the end
        return shown.rstrip().rpartition("\n")[2]

    def close(self) -> None:
        """End the shell."""
        os.kill(self._pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self._pid, 0)


CASES = [
    ("anvil forge --offl", "<anvil><forge><--offline>"),
    ("anvil vault ver", "<anvil><vault><verify>"),
    ("anvil boot x --as=us", "<anvil><boot><x><--as=usb>"),
    ("anvil forge --profile se", "<anvil><forge><--profile><seed>"),
    ("anvil forge --force kern", "<anvil><forge><--force><kernel/build>"),
    ("anvil forge --force iso/artifact:b", "<anvil><forge><--force><iso/artifact:bin/x>"),
    ("anvil forge --output fol", "<anvil><forge><--output><folder/>"),
    ("anvil boot fi", "<anvil><boot><file.iso>"),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "folder").mkdir(parents=True)
    (folder / "file.iso").touch()
    return folder


def completes(terminal: Terminal, first: list[str]) -> None:
    with contextlib.closing(terminal):
        for command in first:
            terminal.run(command)
        for line, made in CASES:
            found = terminal.complete(line)
            assert found.replace("/>", ">") == made.replace("/>", ">"), (
                line
            )  # zsh takes a folder's last "/" away again


def test_bash_completes(bin_folder: Path, home: Path, here: Path) -> None:
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], surroundings(bin_folder, home), here)
    completes(terminal, ["bind 'set enable-bracketed-paste off'", 'eval "$(anvil completion bash)"'])


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes(bin_folder: Path, home: Path, here: Path) -> None:
    terminal = Terminal(["zsh", "-f", "-i"], surroundings(bin_folder, home), here)
    completes(terminal, ["bindkey -e; autoload -Uz compinit; compinit -D -u", 'eval "$(anvil completion zsh)"'])


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(bin_folder: Path, home: Path, here: Path) -> None:
    script = 'anvil completion fish | source; for line in $argv; complete -C "$line"; echo --over--; end'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, *(line for line, _ in CASES)], cwd=here, text=True,
        env=surroundings(bin_folder, home), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    answers = done.stdout.split("--over--\n")
    for (line, made), answer in zip(CASES, answers, strict=False):
        last = made.removesuffix(">").rpartition("<")[2]
        assert last in [each.partition("\t")[0] for each in answer.splitlines()], (line, answer)


@pytest.mark.parametrize("shell", sorted(scripts.OF_SHELL))
def test_the_script_is_sound(shell: str, bin_folder: Path, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = [str(bin_folder / "anvil"), "completion", shell]
    script = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    environment = surroundings(bin_folder, home)
    done = subprocess.run([shell, "-n"], input=script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_shell_it_is_asked_which(bin_folder: Path) -> None:
    done = subprocess.run([bin_folder / "anvil", "completion"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bash, zsh or fish" in done.stderr
