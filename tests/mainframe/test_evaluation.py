"""Evaluating recipes that extend each other, on the host: chains, keys, what is kept, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anvil.errors import RecipeError
from anvil.mainframe import evaluation
from anvil.mainframe.book import RecipeBook
from anvil.mainframe.evaluation import DeckStore, named_files
from anvil.mainframe.services import LOCKS
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from anvil.recipe.evaluate import evaluate_closure
from anvil.sources.lockfile import read_source_lock

if TYPE_CHECKING:
    from pathlib import Path

LOCK = read_source_lock(LOCKS / "debian.json")
HEAD = "from anvil.recipe import Recipe\n"
RECIPES = {
    "wall": HEAD
    + """
wall = Recipe("wall", licence="MIT")
stones = wall.slot("stones", "a stone, by name")
made = wall.run("lay", None, " ".join(f"{s.by}:{s.name}" for s in stones),
                inputs={s.name: s.ref("stone") for s in stones})
wall.export("wall", made.out)
""",
    "door": HEAD
    + """
door = Recipe("door", licence="MIT")
door.export("door", door.run("hang", None, "true", inputs={"wall": door.use("wall", "wall")}).out)
""",
    "base": HEAD
    + """
base = Recipe("base", extends="door", licence="MIT")
base.extend("wall", "stones", "red", {"stone": base.file("base/red")})
""",
    "mine": HEAD
    + """
mine = Recipe("mine", extends="base", licence="MIT")
mine.extend("wall", "stones", "blue", {"stone": mine.run("dig", None, "true").out / "blue"})
""",
}


class House:
    """A project, its store, and an evaluator that counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "recipes"
        self.folder.mkdir()
        self.kept: dict[str, bytes] = {}
        self.asked: list[list[str]] = []
        for name, text in RECIPES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.folder / f"{name}.py").read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def add(self, name: str, line: str) -> None:
        self.change(name, HEAD, HEAD + "\n")
        with open(self.folder / f"{name}.py", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def decks(self, wanted: str = "mine") -> dict[str, Any]:
        def cell(request: bytes) -> bytes:
            answer = evaluate_closure(MicroJSON.decode(request)["data"])
            self.asked.append(sorted(answer.get("decks", {})))
            return MicroJSON.message(MessageID.EVALUATION_ANSWER, answer)

        return evaluation.evaluate(
            wanted,
            book=RecipeBook(project=self.folder.parent),
            lock=LOCK,
            store=DeckStore(self.kept.get, self.kept.__setitem__),
            cell=cell,
        )

    def lay(self, wanted: str = "mine") -> str:
        return str(self.decks(wanted)["wall"]["steps"][0]["script"])

    def error(self, wanted: str = "mine") -> RecipeError:
        before = dict(self.kept)
        with pytest.raises(RecipeError) as caught:
            self.decks(wanted)
        assert self.kept == before  # nothing of a refused forge is kept
        return caught.value


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_one_forge_has_the_additions_of_the_wanted_recipes_chain(house: House) -> None:
    assert house.lay("mine") == "base:red mine:blue"
    assert house.lay("base") == "base:red"
    assert house.lay("door") == ""
    assert house.lay("wall") == ""
    assert house.asked == [["base", "door", "mine", "wall"], ["base", "door", "wall"], ["door", "wall"]]


def test_every_variant_is_kept_and_nothing_is_asked_twice(house: House) -> None:
    first = {name: house.decks(name) for name in ("mine", "base", "door")}
    asked = len(house.asked)
    assert {name: house.decks(name) for name in ("mine", "base", "door")} == first
    assert len(house.asked) == asked


def test_a_changed_addition_evaluates_who_receives_it_anew(house: House) -> None:
    house.decks()
    house.change("mine", '"blue"', '"green"')
    assert house.lay() == "base:red mine:green"
    assert house.asked[-1] == ["base", "door", "mine", "wall"]
    house.change("mine", '"green"', '"blue"')
    assert house.lay() == "base:red mine:blue"
    assert len(house.asked) == 2


def test_without_additions_a_deck_is_kept_whoever_extends_something(house: House) -> None:
    house.decks("door")
    kept = dict(house.kept)
    house.decks("mine")
    assert kept.items() <= house.kept.items()
    assert house.decks("door")["wall"]["steps"][0]["script"] == ""


def test_a_file_of_an_addition_is_the_extenders(house: House) -> None:
    assert named_files(house.decks()) == {("base", "base/red")}


def test_a_comment_changes_no_deck_but_its_own_key(house: House) -> None:
    before = house.decks()
    house.change("mine", HEAD, HEAD + "# a remark\n")
    assert house.decks() == before


def test_an_addition_to_a_recipe_that_is_not_there_is_told_with_those_that_are(house: House) -> None:
    house.add("mine", 'mine.extend("fence", "stones", "x", {})')
    error = house.error()
    assert error.message == "mine adds to stones of 'fence', which is no recipe of this forge"
    assert error.hint == "recipes that can be added to: wall"
    assert error.where.endswith("mine.py")


def test_it_is_told_although_every_deck_is_kept(house: House) -> None:
    """Each deck may be known from another forge, in which it was all right."""
    house.write("shed", HEAD + 'Recipe("shed", licence="MIT").slot("stones", "x")\n')
    house.add("door", 'door.run("more", None, "true", inputs={"x": door.use("shed", "x")})')
    house.write(
        "shed", HEAD + 'r = Recipe("shed", licence="MIT")\nr.slot("stones", "x")\nr.export("x", r.file("x"))\n'
    )
    house.add("mine", 'mine.extend("shed", "stones", "x", {})')
    house.decks()
    house.change("door", 'door.run("more"', '# door.run("more"')
    assert "'shed', which is no recipe of this forge" in house.error().message


def test_what_the_receiver_refuses_is_told_at_the_extenders_file(house: House) -> None:
    house.add("mine", 'mine.extend("wall", "bricks", "x", {})')
    error = house.error()
    assert error.message == "mine adds 'x' to bricks: wall has no such slot"
    assert error.where.endswith("mine.py")


def test_a_contradiction_in_a_chain_names_both(house: House) -> None:
    house.add("mine", 'mine.extend("wall", "stones", "red", {"stone": mine.file("other")})')
    assert "base and mine contradict each other: stones 'red' is" in house.error().message


def test_who_extends_in_a_ring_is_told_with_the_ring(house: House) -> None:
    house.change("base", '"door"', '"mine"')
    assert "extend each other in a ring" in house.error().message


def test_an_addition_outwards_is_refused(house: House) -> None:
    house.add("mine", 'mine.slot("words", "x")')
    house.add("base", 'base.extend("mine", "words", "x", {})')
    assert house.error().message == "base adds to mine, which itself extends base"


def test_a_recipe_that_is_only_used_may_extend_nothing(house: House) -> None:
    other = HEAD + 'r = Recipe("other", extends="door", licence="MIT")\nr.export("x", r.file("x"))\n'
    house.write("other", other)
    house.add("mine", 'mine.run("more", None, "true", inputs={"x": mine.use("other", "x")})')
    error = house.error()
    assert error.message.startswith("mine uses other, which extends another recipe; in one forge only mine and")
    assert house.lay("other") == ""


def test_an_extender_may_be_used_by_what_it_extends(house: House) -> None:
    house.add("door", 'door.run("more", None, "true", inputs={"x": door.use("mine", "x")})')
    house.add("mine", 'mine.export("x", mine.file("x"))')
    assert house.lay() == "base:red mine:blue"
    # but not where it is not what is wanted: its additions would be in some of the forge's things and not in others
    assert "door uses mine, which extends another recipe" in house.error("door").message


def test_a_recipe_that_is_another_one_each_time_is_refused(house: House) -> None:
    """The decks of one answer belong together: none is mixed with what was kept of another evaluation."""
    house.decks()
    (key,) = (key for key, data in house.kept.items() if b'"recipe":"base"' in data)
    house.kept[key] = house.kept[key].replace(b'"name":"red"', b'"name":"rot"')
    house.change("mine", HEAD, HEAD + "# a remark\n")
    assert house.error().message == "recipe base does not give the same deck each time"
