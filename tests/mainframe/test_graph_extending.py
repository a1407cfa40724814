"""The graph of recipes that extend each other: order and rings are matters of steps, not of recipes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from anvil.errors import RecipeError
from anvil.mainframe.graph import BlobRef, Graph, StepRef, build_graph
from anvil.model.lock import ImageLock
from anvil.recipe import Recipe, elf_static, language
from anvil.recipe.deck import extenders, received

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[Recipe], object]

LOCK = ImageLock(name="build", resolved="2026-01-01", architecture="amd64", packages=())
IMAGES = {"build": ("b" * 64, LOCK), "machine": ("c" * 64, replace(LOCK, name="machine"))}


def mine(make: Make, extends: str = "iso") -> Recipe:
    """A recipe of one's own."""
    recipe = Recipe("mine", licence="MIT", extends=extends)
    make(recipe)
    return recipe


def graph(make: Make) -> Graph:
    """The graph of a recipe that extends an iso made of a root."""
    language.provide("test", {})
    outer = mine(make).deck()
    chain = [outer]
    language.provide("test", {}, received=received(chain, "iso"), extenders=extenders(chain, "iso"))
    iso = Recipe("iso", licence="MIT")
    medium = iso.run("make", None, "true", inputs={"root": iso.use("root", "tar")})
    iso.artifact("iso", medium.out / "iso", kind=elf_static)
    chain.append(iso.deck())
    language.provide("test", {}, received=received(chain, "root"))
    root = Recipe("root", licence="MIT")
    inputs = {f"x{number}": a.ref("it") for number, a in enumerate(root.slot("things", "x"))}
    laid = root.run("lay", None, "true", inputs={"kept": root.file("root/kept"), **inputs})
    root.export("tar", laid.out / "tar")
    decks: dict[str, Any] = {"mine": outer, "iso": chain[1], "root": root.deck()}
    files = {("root", "root/kept"): "a" * 64, ("mine", "mine/file"): "d" * 64}
    return build_graph("mine", decks, sources={}, images=IMAGES, files=files)


def needs_come_first(found: Graph) -> bool:
    seen: set[str] = set()
    for node in found.nodes.values():
        if not set(node.needs) <= seen:
            return False
        seen.add(node.id)
    return True


def a_program_and_a_look_at_the_medium(recipe: Recipe) -> None:
    built = recipe.run("build", None, "cc")
    recipe.extend("root", "things", "bin", {"it": built / "bin"})
    recipe.extend("root", "things", "file", {"it": recipe.file("mine/file")})
    recipe.boot("look", medium=recipe.use("iso", "iso"), firmware="bios", attach="cdrom", expect="hello")
    recipe.artifact("bin/it", built / "bin", kind=elf_static)


def test_an_extender_builds_for_the_root_and_looks_at_the_medium_that_is_made_of_it() -> None:
    found = graph(a_program_and_a_look_at_the_medium)
    assert needs_come_first(found)
    order = [name for name in found.nodes if name.partition("/")[0] in {"mine", "iso", "root"}]
    assert order.index("mine/build") < order.index("root/lay") < order.index("iso/make") < order.index("mine/look")
    assert found.recipes == ("root", "iso", "mine")
    lay = found.nodes["root/lay"]
    assert lay.inputs["x0"] == StepRef(node="mine/build", tree="work", path="bin")
    assert lay.inputs["x1"] == BlobRef(sha256="d" * 64, name="file")
    assert "mine/look" in found.nodes["mine/artifact:bin/it"].needs
    assert "iso/artifact:iso" in found.nodes["mine/artifact:bin/it"].needs
    assert found.dependents()["mine/build"] == ["root/lay", "mine/artifact:bin/it"]


def what_the_root_is_made_of_from_the_root(recipe: Recipe) -> None:
    taken = recipe.run("take", None, "cp", inputs={"root": recipe.use("root", "tar")})
    again = recipe.run("again", taken, "pack")
    recipe.extend("root", "things", "again", {"it": again.out})


def test_a_ring_of_steps_is_told_with_its_path_and_recipes() -> None:
    with pytest.raises(RecipeError) as caught:
        graph(what_the_root_is_made_of_from_the_root)
    assert caught.value.message == (
        "steps are made of each other in a ring: root/lay -> mine/take -> mine/again -> root/lay"
    )
    assert caught.value.hint == "cut it between root and mine"


def the_root_into_itself(recipe: Recipe) -> None:
    recipe.extend("root", "things", "itself", {"it": recipe.use("root", "tar")})


def test_a_thing_that_goes_into_itself_is_a_ring_too() -> None:
    with pytest.raises(RecipeError, match="in a ring: root/lay -> root/lay"):
        graph(the_root_into_itself)


def something_that_is_not_there(recipe: Recipe) -> None:
    recipe.extend("root", "things", "bin", {"it": recipe.use("iso", "none")})


def test_what_an_addition_names_and_is_not_there_is_told_at_the_extender() -> None:
    with pytest.raises(RecipeError, match="recipe 'iso' has no result called 'none'") as caught:
        graph(something_that_is_not_there)
    assert caught.value.where == "mine.py"


def test_recipes_that_use_each_other_without_a_ring_of_steps_are_fine() -> None:
    language.provide("test", {})
    one, two = Recipe("one", licence="MIT"), Recipe("two", licence="MIT")
    one.export("a", one.run("a", None, "true").out)
    one.run("c", None, "true", inputs={"b": one.use("two", "b")})
    two.export("b", two.run("b", None, "true", inputs={"a": two.use("one", "a")}).out)
    found = build_graph("one", {"one": one.deck(), "two": two.deck()}, sources={}, images=IMAGES, files={})
    assert [name for name in found.nodes if not name.startswith("images")] == ["one/a", "two/b", "one/c"]
    assert needs_come_first(found)


def test_results_that_are_each_other_are_told() -> None:
    language.provide("test", {})
    one, two = Recipe("one", licence="MIT"), Recipe("two", licence="MIT")
    one.export("a", one.use("two", "b"))
    two.export("b", two.use("one", "a"))
    with pytest.raises(RecipeError, match="in a ring: two:b -> one:a -> two:b"):
        build_graph("one", {"one": one.deck(), "two": two.deck()}, sources={}, images=IMAGES, files={})


def test_a_long_line_of_steps_is_no_matter_of_recursion() -> None:
    language.provide("test", {})
    recipe = Recipe("one", licence="MIT")
    step = recipe.run("s0", None, "true")
    for number in range(1, 5000):
        step = recipe.run(f"s{number}", step, "true")
    decks = {"one": recipe.deck()}
    decks["one"]["steps"].reverse()  # as no language makes it: each before what it needs
    found = build_graph("one", decks, sources={}, images=IMAGES, files={})
    assert needs_come_first(found)
    assert list(found.nodes)[-1] == "one/s4999"
