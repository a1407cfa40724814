"""The command line's own manners: help, versions, wrong words, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import anvil
from anvil.cli import options, parsing
from anvil.cli.main import command_names, main, summary
from anvil.errors import UsageError


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"anvil {anvil.__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for name in command_names():
        assert f"  {name} " in said


@pytest.mark.parametrize("name", command_names())
def test_what_the_help_says_of_a_command_is_what_its_module_says(name: str) -> None:
    said = (parsing.command(name).__doc__ or "").splitlines()[0].rstrip(".")
    assert summary(name) == said
    assert said


def test_the_help_and_the_version_import_no_command() -> None:
    program = (
        "import sys; from anvil.cli.main import main; main(sys.argv[1:]); "
        "print(*[m for m in sys.modules if m.startswith('anvil.') and m != 'anvil.cli.main'])"
    )
    for words in (["--help"], ["--version"], []):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        assert set(done.stdout.splitlines()[-1].split()) <= {"anvil.cli", "anvil.errors"}, words


@pytest.mark.parametrize("name", command_names())
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  anvil {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["forgee"], "did you mean: anvil forge"),
        (["xyzzy"], "anvil --help"),
        (["forge", "--nonsense"], "anvil forge --help"),
        (["forge", "--jobs", "0"], "1 to 1024"),
        (["forge", "--jobs", "many"], "anvil forge --help"),
        (["boot", "/nonexistent.iso"], "anvil forge iso"),
        (["forge", "--project", "/nonexistent"], "recipes/"),
        (["forge", "--keep"], "anvil forge --check --keep"),
        (["vault"], "anvil vault --help"),
        (["vault", "verify", "--dry-run"], "anvil vault --help"),
        (["vault", "gc", "--mend"], "anvil vault --help"),
    ],
)
def test_wrong_words_are_exit_code_2_with_the_next_step(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("action", ["verify", "gc"])
def test_a_vault_that_is_not_there_is_not_called_whole_and_not_made(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert main(["vault", action, "--home", str(home)]) == 1
    assert str(home) in capsys.readouterr().err
    assert not home.exists()


def test_the_home_is_the_argument_then_the_environment_then_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        home: Path | None = Path("/a")

    words = Words()
    assert options.home(words) == Path("/a")  # type: ignore[arg-type]
    words.home = None
    monkeypatch.setenv("ANVIL_HOME", "/b")
    assert options.home(words) == Path("/b")  # type: ignore[arg-type]
    monkeypatch.delenv("ANVIL_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/c")
    assert options.home(words) == Path("/c/anvil")  # type: ignore[arg-type]


def test_a_project_without_recipes_is_wrong_words(tmp_path: Path) -> None:
    class Words:
        home = tmp_path
        project = tmp_path

    with pytest.raises(UsageError, match="no folder recipes/"):
        options.settings(Words())  # type: ignore[arg-type]
