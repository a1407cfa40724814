"""The recipe language: what it makes of calls, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anvil.errors import RecipeError
from anvil.recipe import MiB, Recipe, elf_static, language
from anvil.recipe.evaluate import evaluate_closure
from anvil.recipe.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = {
    "linux": {"version": "6.12.107", "facts": {}},
    "zfs": {"version": "2.3.2", "facts": {"linux-maximum": "6.14"}},
}


@pytest.fixture(autouse=True)
def _sources() -> Iterator[None]:
    language.provide("test", SOURCES)
    yield
    language.provide("", {})


@pytest.fixture
def recipe() -> Recipe:
    return Recipe("it", licence="MIT")


def test_steps_come_in_order_and_start_from_each_other(recipe: Recipe) -> None:
    tree = recipe.unpack(recipe.source("linux"))
    built = recipe.run("build", tree, "\n    make\n    make install\n")
    built.check("works", "test -e vmlinux")
    recipe.artifact("bzImage", built.out / "bzImage", kind=elf_static)
    deck = recipe.deck()
    assert [step["name"] for step in deck["steps"]] == ["unpack-linux", "build", "works"]
    assert deck["steps"][1]["base"] == "unpack-linux"
    assert deck["steps"][1]["script"] == "make\nmake install"
    assert deck["steps"][2]["inputs"] == {"out": {"step": "build", "tree": "out", "path": ""}}
    assert deck["artifacts"]["bzImage"]["ref"] == {"step": "build", "tree": "out", "path": "bzImage"}


def test_versions_compare_by_their_numbers(recipe: Recipe) -> None:
    linux = recipe.source("linux")
    assert linux.older_than("6.13")
    assert not linux.older_than("6.9")
    assert not linux.newer_than("6.12")
    assert linux.newer_than("6.11")
    assert linux.newer_than("6.12.9")


def twice(recipe: Recipe) -> None:
    recipe.export("x", recipe.file("a"))
    recipe.artifact("x", recipe.file("a"), kind=elf_static)


REFUSED: list[tuple[str, Callable[[Recipe], object]]] = [
    ("no source is called", lambda r: r.source("none")),
    ("two steps are called", lambda r: [r.run("a", None, "true"), r.run("a", None, "true")]),
    ("step cannot be called", lambda r: r.run("A b", None, "true")),
    ("plain relative path", lambda r: r.file("/etc/passwd")),
    ("plain relative path", lambda r: r.file("a/../b")),
    ("plain relative path", lambda r: r.run("a", None, "true").out / "../x"),
    ("input cannot be called", lambda r: r.run("a", None, "true", inputs={"a/b": r.file("x")})),
    ("not a file or folder", lambda r: r.run("a", None, "true", inputs={"x": "text"})),  # type: ignore[dict-item]
    ("above 0", lambda r: r.run("a", None, "true", wall=0)),
    ("above 0", lambda r: r.run("a", None, "true", memory=True)),
    ("keep is", lambda r: r.run("a", None, "true", keep="some")),  # type: ignore[arg-type]
    ("no kind", lambda r: r.artifact("x", r.run("a", None, "true").out, kind=Kind("exe"))),
    ("two results", twice),
    ("cannot use itself", lambda r: r.use("it", "x")),
    ("another recipe", lambda r: r.run("a", Recipe("other", licence="MIT").run("b", None, "true"), "true")),
    ("makes no disk", lambda r: r.forge("a", kernel=r.file("k"), initrd=r.file("i"), disks={}, append="", done="x")),
    ("bios or uefi", lambda r: r.boot("a", medium=r.file("x"), firmware="coreboot", attach="disk", expect="x")),
    ("over 100000 bytes", lambda r: r.run("a", None, "x" * 100_001)),
    ("below", lambda r: r.file("x") / "y"),
    ("too new", lambda r: r.require(False, "too new")),
]


@pytest.mark.parametrize(("why", "call"), REFUSED, ids=[why for why, _ in REFUSED])
def test_what_cannot_be_a_deck_is_refused(recipe: Recipe, why: str, call: Callable[[Recipe], object]) -> None:
    with pytest.raises(RecipeError, match=why):
        call(recipe)


def test_a_forge_step_names_its_disks_in_order(recipe: Recipe) -> None:
    recipe.forge(
        "pool", kernel=recipe.file("k"), initrd=recipe.file("i"), disks={"b": MiB, "a": 2 * MiB}, append="", done="x"
    )
    assert recipe.deck()["steps"][0]["extra"]["disks"] == [["b", MiB], ["a", 2 * MiB]]


GOOD = (
    'from anvil.recipe import Recipe\nr = Recipe("good", licence="MIT")\nr.export("x", r.run("a", None, "true").out)\n'
)
USER = 'from anvil.recipe import Recipe\nr = Recipe("user", licence="MIT")\nr.export("x", r.use("good", "x"))\n'


def evaluate(recipes: dict[str, str], *wanted: str) -> dict[str, object]:
    return evaluate_closure({"profile": "test", "sources": SOURCES, "recipes": recipes, "wanted": list(wanted)})


def test_evaluating_takes_in_what_is_used_and_nothing_else() -> None:
    answer = evaluate({"good": GOOD, "user": USER, "broken": "1/0"}, "user")
    assert isinstance(answer["decks"], dict)
    assert sorted(answer["decks"]) == ["good", "user"]


def test_evaluated_twice_a_recipe_gives_the_same_deck() -> None:
    assert evaluate({"good": GOOD}, "good") == evaluate({"good": GOOD}, "good")


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("import time\n", "cannot import 'time'", 0),
        ("from . import x\n", "cannot import", 0),
        ("x = (\n", "syntax error", 1),
        (GOOD + GOOD, "makes 2 recipes", 0),
        ("", "makes 0 recipes", 0),
        (GOOD.replace('"good"', '"bad"'), "its recipe is 'bad'", 0),
        (GOOD + "\nopen('/etc/passwd')\n", "NameError", 5),
        (GOOD + "\n__import__('os')\n", "cannot import 'os'", 5),
        (GOOD + "\nraise SystemExit(0)\n", "SystemExit", 5),
        (GOOD + "\nimport string\nstring.os\n", "AttributeError", 6),
        (GOOD + "\nr.write('w', None, 'f', 'x', mode=0.5)\n", "", 0),
    ],
)
def test_a_wrong_recipe_is_an_answer_with_a_line(text: str, why: str, line: int) -> None:
    answer = evaluate({"good": text}, "good")
    error = answer["error"]
    assert isinstance(error, dict)
    assert why in error["message"]
    assert not line or error["line"] == line
