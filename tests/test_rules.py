"""The repository's own rules, checked: doors, printing, hosts, the glossary."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "anvil"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if SOURCE / "recipes" not in path.parents)

STARTING = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "fork_exec"} | {
    f"{verb}{kind}" for verb in ("exec", "spawn") for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
}
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
                if module.split(".")[0] in {"subprocess", "multiprocessing", "pty", "_posixsubprocess"}:
                    yield module
        if isinstance(node, ast.Attribute) and node.attr in STARTING and ast.unparse(node.value) == "os":
            yield f"os.{node.attr}"


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
    ):
        assert list(starters(ast.parse(text)))


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_sql_runs_only_in_the_cortex(path: Path) -> None:
    if not place(path).startswith("cortex/"):
        assert not re.search(r"^\s*(import|from) (apsw|sqlite3)\b", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_only_the_command_line_prints_and_reads_the_environment(path: Path) -> None:
    if place(path).startswith(("cli/", "recipe/evaluate.py")):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {"os.environ", "os.getenv", "sys.argv"}


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    # put together here so that this file does not name them either
    hosts = "|".join(["deb" + "ian", "py" + "pi", "python" + "hosted", "npm" + "js", "cra" + "tes", "go" + "lang"])
    pattern = re.compile(rf"(https?|git|ftp)://[a-z0-9.-]*({hosts})\.[a-z]+", re.IGNORECASE)
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert not pattern.search(text), path


def test_every_fable_name_is_in_the_glossary() -> None:
    glossary = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Glossary")[1].split("\n## ")[0]
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    for word in folders - {"cli", "model"}:
        assert f"**{word}**" in glossary, word
