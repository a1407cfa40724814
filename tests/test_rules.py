"""The repository's own rules, checked: doors, printing, hosts, the commands that are named, the glossary."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cli.main import command_names

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "anvil"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if SOURCE / "recipes" not in path.parents)

STARTING = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "fork_exec"} | {
    f"{verb}{kind}" for verb in ("exec", "spawn") for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
}
OUTSIDE = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "sys.argv"}
# Run by themselves in a cell, as programs.
READERS = ("fat", "iso", "newc", "squash", "streams", "ustar")
PROGRAMS = ("recipe/evaluate.py", "sources/listing.py", *(f"release/{name}.py" for name in READERS))
# The evaluator forks a child per recipe, but only inside the evaluation cell.
MAY_START = {"cell", "recipe/evaluate.py"}


def tracked() -> list[Path]:
    """Every file that git knows and that is text."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    return [ROOT / name.decode() for name in names if name and (ROOT / name.decode()).is_file()]


def starters(tree: ast.AST) -> Iterator[str]:
    """What in a module could start a process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            for module in modules:
                if module.split(".")[0] in {"subprocess", "multiprocessing", "pty", "posix", "_posixsubprocess"}:
                    yield module
            if modules == ["os"] and isinstance(node, ast.ImportFrom):
                yield from (f"os.{name}" for name in names if name in STARTING | {"*"})
        if isinstance(node, ast.Attribute) and node.attr in STARTING and ast.unparse(node.value) == "os":
            yield f"os.{node.attr}"


def outside(tree: ast.AST) -> Iterator[str]:
    """Where a module prints, or reads arguments or the environment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if re.fullmatch(r"print|sys\.(stdout|stderr)\.(buffer\.)?write(lines)?", called):
                yield called
        if isinstance(node, ast.Attribute) and ast.unparse(node) in OUTSIDE:
            yield ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module in {"os", "sys"}:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & (OUTSIDE | {"sys.stdout", "sys.stderr"})


def place(path: Path) -> str:
    """The module's path below the package."""
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_processes_are_started_only_in_the_cell(path: Path) -> None:
    found = list(starters(ast.parse(path.read_text(encoding="utf-8"))))
    if not any(place(path).startswith(allowed) for allowed in MAY_START):
        assert not found


def test_the_door_rule_sees_a_process_being_started() -> None:
    for text in (
        "import subprocess",
        "from subprocess import run",
        "import os\nos.fork()",
        "import os\nos.execv(1, 2)",
        "from os import fork",
        "from os import path, execv as run",
        "from os import *",
        "from posix import fork",
    ):
        assert list(starters(ast.parse(text))), text
    assert not list(starters(ast.parse("import os\nfrom os import path\nos.stat(path.sep)")))


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_sql_runs_only_in_the_cortex(path: Path) -> None:
    if not place(path).startswith("cortex/"):
        assert not re.search(r"^\s*(import|from) (apsw|sqlite3)\b", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_only_the_command_line_prints_and_reads_the_environment(path: Path) -> None:
    if place(path).startswith("cli/") or place(path) in PROGRAMS:
        return
    assert not list(outside(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_printing_rule_sees_printing_and_the_environment() -> None:
    for text in (
        "print(1)",
        "import sys\nsys.stdout.write('a')",
        "import sys\nsys.stderr.writelines(['a'])",
        "import os\nos.environ['A']",
        "from os import environ",
        "from os import getenv as get",
        "from sys import argv",
        "from sys import stdout",
    ):
        assert list(outside(ast.parse(text))), text
    assert not list(outside(ast.parse("import sys\nfrom os import path\nsys.stdout.flush()")))


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    # put together here so that this file does not name them either
    work = "/" + "work" + "/"
    machine = re.compile(rf"{work}(main|shared|\.library)\b|/" + r"tmp/(home\d|bash_jobs)")
    hosts = "|".join(["deb" + "ian", "py" + "pi", "python" + "hosted", "npm" + "js", "cra" + "tes", "go" + "lang"])
    pattern = re.compile(rf"(https?|git|ftp)://[a-z0-9.-]*({hosts})\.[a-z]+", re.IGNORECASE)
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert not pattern.search(text), path
        assert not machine.search(text), path


@cache
def actions(command: str) -> frozenset[str]:
    """The words that must follow a command; none if anything, or nothing, may."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"anvil.cli.commands.{command}").add_arguments(parser)
    return frozenset(word for each in parser._actions if not each.option_strings for word in each.choices or ())


def unknown(text: str) -> Iterator[str]:
    """What a text calls a command of Anvil's, and is none."""
    for match in re.finditer(r"(?:^|[\s(`\"'/=])anvil +(-*[a-z][\w-]*)(?: +([a-z][\w-]*))?", text):
        word, action = match[1], match[2] or ""
        if word in {"--help", "--version"}:
            continue
        if word not in command_names():
            yield f"anvil {word}"
        elif action and actions(word) and action not in actions(word):
            yield f"anvil {word} {action}"


def hints(tree: ast.AST) -> Iterator[str]:
    """The texts of a module that tell a next step: what is given to, or kept under, such a name."""
    told = re.compile(r"_?(hint|mend|next|example|restore)", re.IGNORECASE)
    for node in ast.walk(tree):
        value: ast.AST | None = None
        if isinstance(node, ast.keyword) and node.arg and told.fullmatch(node.arg):
            value = node.value
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and told.fullmatch(t.id) for t in node.targets
        ):
            value = node.value
        if value is not None:
            yield from (
                each.value
                for each in ast.walk(value)
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


def code_of(page: str) -> Iterator[str]:
    """The code of a Markdown page: fenced and indented blocks, and spans."""
    fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    yield from fence.findall(page)
    rest = fence.sub("", page)
    yield from re.findall(r"^    .*", rest, re.MULTILINE)
    yield from re.findall(r"`([^`]+)`", rest)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=place)
def test_every_command_that_a_hint_names_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [name for text in hints(tree) for name in unknown(text)]


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix == ".md"], ids=lambda path: path.name)
def test_every_command_that_a_page_names_is_there(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    # the map's lines that are "later" name what is to come
    page = "\n".join(line for line in lines if not line.endswith("| later |"))
    assert not [name for text in code_of(page) for name in unknown(text)]


def test_the_rule_of_commands_sees_one_that_is_not_there() -> None:
    for text in ("anvil gold", "run: anvil vault sweep", "(anvil --home DIR)", "x && .venv/bin/anvil sources bury"):
        assert list(unknown(text)), text
        assert list(unknown("".join(code_of(f"Say `{text}`.")))), text
        assert list(unknown("".join(code_of(f"Say:\n\n    {text}\n")))), text
        assert list(unknown("".join(code_of(f"```sh\n{text}\n```")))), text
        assert list(hints(ast.parse(f"raise Error('a', hint={text!r} if b else f'{{c}}')"))) == [text]
        assert list(hints(ast.parse(f"hint = {text!r}"))) == [text]
    for text in (
        "anvil forge goes on",
        "anvil vault verify --mend, then",
        "anvil --help",
        "src/anvil",
        "no anvil, then",
    ):
        assert not list(unknown(text)), text


def test_every_fable_name_is_in_the_glossary() -> None:
    glossary = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Glossary")[1].split("\n## ")[0]
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    for word in folders - {"cli", "model"}:
        assert f"**{word}**" in glossary, word
