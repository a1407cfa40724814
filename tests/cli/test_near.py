"""A mistyped name is told what it may have meant, by one function, wherever a name is asked for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil.cli.main import main
from anvil.errors import RecipeError
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.graph import build_graph
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.model import near

if TYPE_CHECKING:
    from pathlib import Path


def test_the_likeliest_comes_first_and_none_is_far() -> None:
    known = ["kernel/build", "kernel/config", "busybox/build", "iso/boot-bios"]
    assert near.nearest("kernel/biuld", known)[0] == "kernel/build"
    assert near.nearest("KERNEL/CONFIG", known)[0] == "kernel/config"
    assert set(near.nearest("build", known)) == {"kernel/build", "busybox/build"}
    assert near.nearest("xyzzy", known) == []
    assert near.nearest("", known) == []
    assert len(near.nearest("a", ["a1", "a2", "a3", "a4", "a5"])) <= near.MOST


def test_the_dashes_of_an_option_make_it_like_nothing() -> None:
    assert near.nearest("--mend", ["--home"]) == []
    assert near.nearest("-offline", ["--offline"]) == ["--offline"]


def test_the_hint_is_a_next_step_or_what_is_given_instead() -> None:
    assert near.hint("isoo", ["iso"], form="anvil forge {}") == "did you mean: anvil forge iso"
    assert near.hint("xyzzy", ["iso"], otherwise="anvil plan") == "anvil plan"


@given(st.lists(st.text(max_size=12), max_size=8), st.text(max_size=12))
def test_only_known_names_are_said_and_a_known_one_first(known: list[str], word: str) -> None:
    found = near.nearest(word, known)
    assert set(found) <= set(known)
    if word and word.lstrip("-") and word in known:
        assert near.nearest(word, known, most=99)[0].casefold().lstrip("-") == word.casefold().lstrip("-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["forgee"], "anvil forge"),
        (["--versoin"], "anvil --version"),
        (["forge", "--offlne"], "anvil forge --offline"),
        (["forge", "--profil=debian", "--jbos", "3"], "anvil forge --jobs"),
        (["vault", "verfy"], "anvil vault verify"),
        (["vault", "gc", "--olderthan", "3d"], "anvil vault gc --older-than"),
        (["boot", "x.iso", "--as", "dsk"], "disk"),
        (["completion", "bsh"], "bash"),
    ],
)
def test_a_mistyped_word_of_a_command(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("  next:  did you mean: ")
    assert said in lines[-1].removeprefix("  next:  did you mean: ").split(", ")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(home=tmp_path / "home", output=tmp_path / "out", profile="debain"))


def test_a_mistyped_recipe_and_profile(services: Services) -> None:
    with contextlib.closing(services):
        with pytest.raises(RecipeError) as recipe:
            Architect(services).draw("iso-ful")
        assert recipe.value.hint.startswith("did you mean: iso-full")
        with pytest.raises(RecipeError) as unlike:
            Architect(services).draw("xyzzy")
        assert "busybox" in unlike.value.hint
        with pytest.raises(RecipeError) as profile:
            _ = services.sources
        assert profile.value.hint == "did you mean: debian"


def test_a_mistyped_recipe_is_told_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forge", "busybx", "--home", str(tmp_path / "home"), "--output", str(tmp_path / "out")]) == 1
    assert "did you mean: busybox" in capsys.readouterr().err
    assert not list((tmp_path / "home" / "images").iterdir())


DECK = {
    "recipe": "one", "licence": "MIT", "summary": "", "extends": "", "slots": {}, "additions": [],
    "steps": [], "exports": {"root": {"ref": {"file": "x"}}}, "artifacts": {},
}  # fmt: skip
FILES = {("one", "x"): "0" * 64}
STEP = {
    "name": "s", "op": "run", "image": "biuld", "base": "", "inputs": {}, "script": "",
    "limits": {"memory": 1, "wall": 1}, "expect": 0, "keep": "out", "extra": {},
}  # fmt: skip


def test_a_mistyped_base_image_and_result() -> None:
    image = {**DECK, "steps": [STEP]}
    with pytest.raises(RecipeError) as told:
        build_graph("one", {"one": image}, sources={}, images={"build": ("d", None)}, files=FILES)  # type: ignore[dict-item]
    assert told.value.hint == "did you mean: build"
    use = {**STEP, "image": "build", "inputs": {"x": {"use": ["one", "rooot"], "path": ""}}}
    two = {**DECK, "recipe": "two", "exports": {}, "artifacts": {}, "steps": [use]}
    with pytest.raises(RecipeError) as result:
        build_graph("two", {"one": DECK, "two": two}, sources={}, images={"build": ("d", None)}, files=FILES)  # type: ignore[dict-item]
    assert result.value.hint == "did you mean: root"
