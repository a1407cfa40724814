"""A project of one's own: made, found, and never written over."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cli.main import main
from anvil.errors import EnvironmentLack, UsageError
from anvil.mainframe import newproject, project
from anvil.sources import lockfile

if TYPE_CHECKING:
    from tests.conftest import Project

FILES = [
    ".gitignore", "README.md", "ROADMAP.md", "recipes/my-os.py", "recipes/my-os/hello.c", "recipes/my-os/motd",
    "sources.json",
]  # fmt: skip


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def make_project(folder: Path) -> Path:
    (folder / "recipes").mkdir(parents=True)
    (folder / "ROADMAP.md").touch()
    return folder


# ---- init


@pytest.mark.parametrize("place", ["my-os", "not/there/yet/my-os", "./x/../my-os"])
def test_init_makes_a_project_and_says_what_comes_next(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", place]) == 0
    said = capsys.readouterr().out
    folder = Path(os.path.normpath(tmp_path / place))
    assert files(folder) == FILES
    assert f"cd {os.path.relpath(folder)}\n    anvil plan my-os\n    anvil forge my-os\n" in said
    assert lockfile.read_source_lock(folder / "sources.json").sources == {}
    for name in FILES:
        text = (folder / name).read_text(encoding="utf-8")
        assert "@NAME@" not in text, name
    assert 'Recipe("my-os", extends="iso"' in (folder / "recipes/my-os.py").read_text(encoding="utf-8")
    assert project.find(folder) == folder


def test_init_in_the_empty_folder_one_is_in_and_with_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", ".", "--name", "my-os", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"project": str(tmp_path), "name": "my-os", "files": FILES}
    assert files(tmp_path) == FILES


@pytest.mark.parametrize("there", ["a file in it", ".hidden", "folder/"])
def test_init_leaves_a_folder_alone_that_has_something_in_it(
    there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my-os"
    folder.mkdir()
    if there.endswith("/"):
        (folder / there).mkdir()
    else:
        (folder / there).write_text("mine", encoding="utf-8")
    before = sorted(folder.rglob("*"))
    assert main(["init", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "is not empty" in told
    assert there.rstrip("/") in told
    assert "nothing was written" in told
    assert sorted(folder.rglob("*")) == before


def test_init_where_no_folder_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "is no folder" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert main(["init", str(tmp_path / "link")]) == 2
    assert main(["init", str(tmp_path / "file" / "my-os")]) == 3
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert main(["init", ""]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["X"], "cannot be called 'x'"),
        (["3d-os"], "cannot be called '3d-os'"),
        (["ok", "--name", "My Os"], "cannot be called 'My Os'"),
        (["ok", "--name", "../up"], "cannot be called '../up'"),
        (["ok", "--name", "kernel"], "a recipe that Anvil comes with"),
        (["iso"], "a recipe that Anvil comes with"),
        (["sources"], "a recipe that Anvil comes with"),
    ],
)
def test_a_name_that_cannot_be_one(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "--name my-os" in told
    assert not list(tmp_path.iterdir())


def test_what_was_made_is_taken_away_when_it_cannot_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lockfile, "write_source_lock", full)
    with pytest.raises(EnvironmentLack):
        newproject.create(tmp_path / "a" / "b", "my-os")
    assert not list(tmp_path.iterdir())
    (tmp_path / "c").mkdir()
    with pytest.raises(EnvironmentLack):
        newproject.create(tmp_path / "c", "my-os")
    assert list(tmp_path.rglob("*")) == [tmp_path / "c"]


def test_a_file_that_comes_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-os"

    def somebody_is_quicker(_folder: Path) -> None:
        (folder / "recipes").mkdir(parents=True)
        (folder / "recipes" / "my-os.py").write_text("mine", encoding="utf-8")

    monkeypatch.setattr(newproject, "require_empty", somebody_is_quicker)
    with pytest.raises(EnvironmentLack):
        newproject.create(folder, "my-os")
    assert files(folder) == ["recipes/my-os.py"]
    assert (folder / "recipes" / "my-os.py").read_text(encoding="utf-8") == "mine"


# ---- where the project is


def test_the_project_is_here_or_above(tmp_path: Path) -> None:
    one = make_project(tmp_path / "one")
    deep = one / "recipes" / "x" / "y"
    deep.mkdir(parents=True)
    assert project.find(one) == one
    assert project.find(deep) == one
    inner = make_project(one / "inner")
    assert project.find(inner / "recipes") == inner
    assert project.find(tmp_path) is None
    (one / "ROADMAP.md").unlink()
    assert project.find(deep) is None


def test_a_folder_above_that_others_may_write_to_decides_nothing(tmp_path: Path) -> None:
    """As /tmp is: whoever may write there could say what is forged below."""
    shared = make_project(tmp_path / "shared")
    below = shared / "mine"
    below.mkdir()
    assert project.find(below) == shared
    shared.chmod(0o1777)
    assert project.find(below) is None
    assert project.find(shared) == shared  # said by being there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("strange", [".", "recipes", "ROADMAP.md"])
def test_a_strangers_folder_above_decides_nothing(strange: str, tmp_path: Path) -> None:
    one = make_project(tmp_path / "one")
    (one / "below").mkdir()
    assert project.find(one / "below") == one
    os.chown(one / strange, 65534, 65534)
    assert project.find(one / "below") is None


def test_a_strangers_link_above_decides_nothing(tmp_path: Path) -> None:
    one = make_project(tmp_path / "one")
    (one / "below").mkdir()
    (one / "recipes").rmdir()
    (one / "recipes").symlink_to(tmp_path)
    assert project.find(one / "below") == one  # one's own link
    if os.geteuid() == 0:
        os.chown(one / "recipes", 65534, 65534, follow_symlinks=False)
        assert project.find(one / "below") is None


def test_artifacts_go_into_the_project_wherever_one_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anvil.cli import options

    class Words:
        home = tmp_path / "home"

    one = make_project(tmp_path / "one")
    monkeypatch.chdir(one / "recipes")
    found = options.settings(Words())  # type: ignore[arg-type]
    assert (found.project, found.output) == (one, one / "build_artifacts")
    monkeypatch.chdir(tmp_path)
    found = options.settings(Words())  # type: ignore[arg-type]
    assert (found.project, found.output) == (None, tmp_path / "build_artifacts")
    Words.project = Path("one")  # type: ignore[attr-defined]
    found = options.settings(Words())  # type: ignore[arg-type]
    assert (found.project, found.output) == (one, one / "build_artifacts")
    (one / "build_artifacts").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is a link"):
        options.settings(Words())  # type: ignore[arg-type]


# ---- the template itself


def test_the_first_program_is_what_its_check_says(tmp_path: Path) -> None:
    """The C of the template, with whatever compiler this machine has."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine; the cell's is used where cells are")
    newproject.create(tmp_path / "my-os", "my-os")
    source = tmp_path / "my-os" / "recipes" / "my-os" / "hello.c"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "hello", source], check=True)
    assert subprocess.run([tmp_path / "hello"], capture_output=True, check=True).stdout == b"hello from my-os\n"
    serving = subprocess.Popen([tmp_path / "hello", "--serve"], stdout=subprocess.PIPE)
    assert serving.stdout is not None
    assert serving.stdout.readline() == b"hello from my-os\n"
    assert serving.poll() is None
    serving.kill()
    serving.communicate()


@pytest.mark.cell
def test_the_first_recipe_is_planned_as_it_is(project: Project) -> None:
    """Nothing of it is run here but its evaluation: a new kernel, and what is made with it."""
    folder = project.folder / "my-os"
    made = subprocess.run(
        [sys.executable, "-m", "anvil.cli.main", "init", str(folder)], capture_output=True, text=True, check=True
    )
    assert "anvil forge my-os" in made.stdout
    planned = project.anvil("plan", "my-os", "--project", str(folder))
    assert planned.returncode == 0, planned.stderr
    for card in ("hello", "speaks", "says-hello", "options-1", "artifact:anvilos-phase2.iso"):
        assert re.search(rf" {card} ", planned.stdout), card
