"""Recipes that extend recipes, as the evaluator sees them: what reaches whom, and what is told when it fits not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anvil.errors import RecipeError
from anvil.recipe import Recipe, language
from anvil.recipe.evaluate import evaluate_closure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBFDlPtT7rGGYRQ8ZJr2aaGlmRVBGzzpWJmXCLjWmZpd ada@home"

# A house in place of the ISO: "door" is what is extended, "wall" what it is made of.
WALL = """
from anvil.recipe import Recipe
wall = Recipe("wall", licence="MIT")
stones = wall.slot("stones", "a stone, by name")
made = wall.run("lay", None, " ".join(f"{s.by}:{s.name}:{s.value}" for s in stones),
                inputs={s.name: s.ref("stone") for s in stones if s.refs})
wall.export("wall", made.out)
"""
DOOR = """
from anvil.recipe import Recipe
door = Recipe("door", licence="MIT")
door.export("door", door.run("hang", None, f"true {door.extended}", inputs={"wall": door.use("wall", "wall")}).out)
"""
MINE = """
from anvil.recipe import Recipe
mine = Recipe("mine", extends="door", licence="MIT")
"""
BASE = MINE.replace("mine", "base")
OVER = MINE.replace('"door"', '"base"')


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    language.provide("test", {})
    yield
    language.provide("", {})


def evaluate(wanted: str = "mine", **recipes: str) -> dict[str, Any]:
    texts = {"wall": WALL, "door": DOOR, **recipes}
    return evaluate_closure({"profile": "test", "sources": {}, "recipes": texts, "wanted": [wanted]})


def decks(wanted: str = "mine", **recipes: str) -> dict[str, Any]:
    answer = evaluate(wanted, **recipes)
    assert "error" not in answer, answer
    found: dict[str, Any] = answer["decks"]
    return found


def error(**recipes: str) -> tuple[str, str, str]:
    """Whose fault it is, what is told, and the hint."""
    answer = evaluate(**recipes)
    assert "error" in answer, answer
    return answer["recipe"], answer["error"]["message"], answer["error"]["hint"]


def test_what_is_extended_is_made_with_what_is_added_and_else_as_ever() -> None:
    mine = MINE + 'mine.extend("wall", "stones", "red", {"size": 3, "stone": mine.file("mine/red")})\n'
    found = decks(mine=mine)
    assert sorted(found) == ["door", "mine", "wall"]
    (step,) = found["wall"]["steps"]
    assert step["script"] == "mine:red:{'size': 3}"
    assert step["inputs"] == {"red": {"file": "mine/red", "of": "mine"}}
    alone = decks("door", mine=mine)
    assert alone["wall"]["steps"][0]["script"] == ""
    assert (alone["door"]["steps"][0]["script"], found["door"]["steps"][0]["script"]) == ("true False", "true True")


def test_a_chain_adds_up_innermost_first() -> None:
    base = BASE + 'base.extend("wall", "stones", "red", {"size": 1})\n'
    mine = OVER + 'mine.extend("wall", "stones", "blue", {"size": 2})\n'
    found = decks(mine=mine, base=base)
    assert found["wall"]["steps"][0]["script"] == "base:red:{'size': 1} mine:blue:{'size': 2}"
    assert decks("base", mine=mine, base=base)["wall"]["steps"][0]["script"] == "base:red:{'size': 1}"


def test_an_extender_can_be_extended_through_slots_of_its_own() -> None:
    base = BASE + 'base.run("say", None, " ".join(w.name for w in base.slot("words", "a word")))\n'
    mine = OVER + 'mine.extend("base", "words", "hello", {})\n'
    assert decks(mine=mine, base=base)["base"]["steps"][0]["script"] == "hello"


def test_two_that_add_the_same_are_one_and_both_are_named() -> None:
    same = '{0}.extend("wall", "stones", "red", {{"stone": {0}.use("quarry", "red")}})\n'
    quarry = 'from anvil.recipe import Recipe\nr = Recipe("quarry", licence="MIT")\nr.export("red", r.file("red"))\n'
    found = decks(mine=OVER + same.format("mine"), base=BASE + same.format("base"), quarry=quarry)
    assert found["wall"]["steps"][0]["script"] == "base and mine:red:{}"


@pytest.mark.parametrize(
    "value",
    ['{"size": 2}', '{"size": 1, "stone": mine.file("red")}', '{"size": True}', "{}"],
)
def test_two_that_contradict_each_other_are_both_named(value: str) -> None:
    base = BASE + 'base.extend("wall", "stones", "red", {"size": 1})\n'
    whose, message, hint = error(mine=OVER + f'mine.extend("wall", "stones", "red", {value})\n', base=base)
    assert message.startswith("base and mine contradict each other: stones 'red' is (size 1) for one and (")
    assert whose in {"base", "mine"}
    assert hint == "take it out of base or of mine"


def test_a_file_of_one_is_not_the_file_of_the_same_name_of_another() -> None:
    add = '{0}.extend("wall", "stones", "red", {{"stone": {0}.file("red")}})\n'
    _, message, _ = error(mine=OVER + add.format("mine"), base=BASE + add.format("base"))
    assert "(stone red of base) for one and (stone red of mine) for the other" in message


def test_an_unknown_slot_is_told_with_the_known_ones_and_whose_fault_it_is() -> None:
    whose, message, hint = error(mine=MINE + 'mine.extend("wall", "bricks", "x", {})\n')
    assert (whose, message) == ("mine", "mine adds 'x' to bricks: wall has no such slot")
    assert hint == "slots of wall: stones: a stone, by name"


def test_what_the_receiver_asks_for_and_does_not_get_is_told() -> None:
    wall = WALL.replace("if s.refs", "")
    whose, message, _ = error(mine=MINE + 'mine.extend("wall", "stones", "red", {"size": 3})\n', wall=wall)
    assert (whose, message) == ("mine", "mine adds 'red' to stones: no file or folder called 'stone' comes with it")


def test_recipes_that_extend_each_other_in_a_ring_are_told() -> None:
    _, message, _ = error(mine=OVER, base=BASE.replace('"door"', '"mine"'))
    assert message == "recipes extend each other in a ring: base extends 'mine'"


def test_an_unknown_recipe_that_is_extended_is_told() -> None:
    whose, message, hint = error(mine=OVER)
    assert (whose, message) == ("mine", "no recipe is called 'base', which mine extends")
    assert "door" in hint


@pytest.mark.parametrize(
    "deck", ['{"extends": []}', '{"additions": 5}', '{"additions": [5]}', '{"steps": 0}', '{"x": 1}']
)
def test_a_deck_that_a_recipe_wrote_itself_ends_the_evaluation_and_nothing_else(deck: str) -> None:
    hostile = MINE + f"whole = mine.deck\nRecipe.deck = lambda self: {{**whole(), **{deck}}}\n"
    answer = evaluate(mine=hostile)
    assert ("error" in answer) == (deck not in {'{"x": 1}', '{"extends": []}'})  # the host refuses these


def added_twice(recipe: Recipe) -> None:
    recipe.extend("a", "x", "y", {"z": 1})
    recipe.extend("a", "x", "y", {"z": 2})


REFUSED: list[tuple[str, Callable[[Recipe], object]]] = [
    ("cannot add to itself", lambda r: r.extend("it", "x", "y", {})),
    ("a file is Recipe.file", lambda r: r.extend("a", "x", "y", {"z": None})),  # type: ignore[dict-item]
    ("added twice, differently", added_twice),
    ("these are no names", lambda r: r.extend("A", "x", "y", {})),
    ("these are no names", lambda r: r.extend("a", "x y", "y", {})),
    ("these are no names", lambda r: r.extend("a", "x", "y\n", {})),
    ("a slot cannot be called", lambda r: r.slot("A", "x")),
    ("a slot cannot be called", lambda r: [r.slot("a", "x"), r.slot("a", "x")]),
    ("plain relative path", lambda r: r.root_text("/etc/motd", "x")),
    ("plain relative path", lambda r: r.root_text("etc/../motd", "x")),
    ("no path for a root", lambda r: r.root_text("etc/a b", "x")),
    ("the mode 0o4755", lambda r: r.root_file("bin/x", r.file("x"), mode=0o4755)),
    ("not a user's name", lambda r: r.user("Ada", uid=1000)),
    ("no uid", lambda r: r.user("ada", uid=0)),
    ("no uid", lambda r: r.user("ada", uid=65534)),
    ("not a home", lambda r: r.user("ada", uid=1000, home="home/ada")),
    ("plain relative path", lambda r: r.user("ada", uid=1000, home="/home/../etc")),
    ("not a shell", lambda r: r.user("ada", uid=1000, shell="sh")),
    ("hash of a password", lambda r: r.user("ada", uid=1000, password="secret")),
    ("no summary", lambda r: r.user("ada", uid=1000, summary="Ada:x")),
    ("no public ssh key", lambda r: r.ssh_key("ada", "AAAA")),
    ("damaged", lambda r: r.ssh_key("ada", "ssh-ed25519 AAAA%")),
    ("is damaged: it is cut short", lambda r: r.ssh_key("ada", KEY.replace("AAAAIBFD", "AAAAYBFD"))),
    ("not the ssh-rsa it says", lambda r: r.ssh_key("ada", KEY.replace("ssh-ed25519 ", "ssh-rsa "))),
    ("not a service's name", lambda r: r.service("a b", "/bin/x")),
    ("what a service's command begins with", lambda r: r.service("a", "x --serve")),
    ("no command", lambda r: r.service("a", "/bin/x\n/bin/y")),
    ("not a host's name", lambda r: r.hostname("My_Os")),
    ("CONFIG_ goes without saying", lambda r: r.kernel_options({"CONFIG_BTRFS_FS": "y"})),
    ("cannot be m", lambda r: r.kernel_options({"BTRFS_FS": "m"})),
    ("no value of a kernel option", lambda r: r.kernel_options({"LSM": 'a"b'})),
    ("word of the kernel line", lambda r: r.kernel_line("a b")),
    ("word of the kernel line", lambda r: r.kernel_line("a;b")),
]  # fmt: skip


@pytest.mark.parametrize(("why", "call"), REFUSED, ids=[f"{number}-{why}" for number, (why, _) in enumerate(REFUSED)])
def test_a_wrong_word_is_refused_where_it_is_said(why: str, call: Callable[[Recipe], object]) -> None:
    with pytest.raises(RecipeError, match=why):
        call(Recipe("it", licence="MIT", extends="iso"))


def test_who_extends_nothing_adds_nothing() -> None:
    with pytest.raises(RecipeError, match="it extends nothing") as caught:
        Recipe("it", licence="MIT").root_text("etc/motd", "x")
    assert 'extends="iso"' in caught.value.hint
    with pytest.raises(RecipeError, match="cannot extend itself"):
        Recipe("it", licence="MIT", extends="it")
    with pytest.raises(RecipeError, match="cannot be called"):
        Recipe("it", licence="MIT", extends="../iso")


def test_words_become_additions() -> None:
    r = Recipe("it", licence="MIT", extends="iso")
    r.kernel_options({"BTRFS_FS": True, "HZ": 250, "LSM": "selinux", "USB": "n"})
    r.ssh_key("root", KEY)
    r.ssh_key("root", KEY)
    r.payload("dropbear")
    found = {(a["recipe"], a["slot"], a["name"]): a for a in r.deck()["additions"]}
    values = {name: found[("kernel", "options", name)]["value"]["value"] for name in ("BTRFS_FS", "HZ", "LSM", "USB")}
    assert values == {"BTRFS_FS": "y", "HZ": "250", "LSM": '"selinux"', "USB": "n"}
    assert len([name for name in found if name[1] == "ssh-keys"]) == 1
    assert found[("rootfs", "trees", "dropbear")]["refs"] == {"tree": {"use": ["dropbear", "root"], "path": ""}}


def test_two_files_of_two_recipes_have_two_names() -> None:
    names = set()
    for name in ("one", "two"):
        r = Recipe(name, licence="MIT", extends="iso")
        r.kernel_fragment(r.file("fragment"))
        r.root_tree(r.run("a", None, "true").out)
        names |= {addition["name"] for addition in r.deck()["additions"]}
    assert names == {"one:fragment", "two:fragment", "one:a/out", "two:a/out"}
