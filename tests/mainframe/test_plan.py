"""Graphs, keys and plans: pure, so they are tested without a database, a vault or a cell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from anvil.errors import RecipeError
from anvil.mainframe.graph import BlobRef, Graph, Node, StepRef, build_graph
from anvil.mainframe.keys import card_key
from anvil.mainframe.plan import Fate, make_plan
from anvil.mainframe.results import LayerRef, StepResult
from anvil.model.layer import Digest
from anvil.model.lock import ImageLock, PinnedFile, Source
from anvil.recipe import Recipe, archive, elf_static, language

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOURCE = Source(
    name="src", version="1.0", licence="MIT",
    files=(PinnedFile(name="src.tar", sha256="5" * 64, size=1, archive="debian", path="pool/s/src.tar"),),
)  # fmt: skip
LOCK = ImageLock(name="build", resolved="2026-01-01", architecture="amd64", packages=())
IMAGES = {"build": ("b" * 64, LOCK), "machine": ("c" * 64, replace(LOCK, name="machine"))}


@pytest.fixture
def decks() -> dict[str, Any]:
    language.provide("test", {"src": {"version": "1.0", "facts": {}}})
    library = Recipe("library", licence="MIT")
    tree = library.unpack(library.source("src"))
    made = library.run("make", tree, "make", inputs={"patch": library.file("fix.patch")})
    library.export("prefix", made.out)
    program = Recipe("program", licence="MIT")
    text = program.write("text", None, "motd", "hello\n")
    built = program.run("build", text, "cc", inputs={"lib": program.use("library", "prefix") / "lib"})
    built.check("works", "true")
    program.artifact("bin/program", built / "program", kind=elf_static)
    program.artifact("all.tar", built / "all.tar", kind=archive)
    return {"library": library.deck(), "program": program.deck()}


def graph_of(decks: Mapping[str, Any], wanted: str = "program") -> Graph:
    files = {("library", "fix.patch"): "f" * 64}
    return build_graph(wanted, decks, sources={"src": SOURCE}, images=IMAGES, files=files)


def test_every_name_is_resolved_and_needs_come_first(decks: dict[str, Any]) -> None:
    graph = graph_of(decks)
    seen: set[str] = set()
    for node in graph.nodes.values():
        assert set(node.needs) <= seen, node.id
        seen.add(node.id)
    assert graph.nodes["program/build"].inputs["lib"] == StepRef(node="library/make", tree="out", path="lib")
    assert graph.nodes["library/make"].inputs["patch"] == BlobRef(sha256="f" * 64, name="fix.patch")
    assert graph.nodes["library/unpack-src"].needs == ("sources/src", "images/build")


def test_an_artifact_waits_for_every_check_of_its_recipe(decks: dict[str, Any]) -> None:
    assert "program/works" in graph_of(decks).nodes["program/artifact:bin/program"].needs


def test_only_what_must_be_opened_needs_the_machine_image_and_it_is_told_the_texts(decks: dict[str, Any]) -> None:
    nodes = graph_of(decks).nodes
    assert nodes["program/artifact:bin/program"].image == ""
    assert "images/machine" in nodes["program/artifact:all.tar"].needs
    # the text that is written, and the library's patch, which goes into what the program is made from
    assert len(nodes["program/artifact:all.tar"].extra["texts"]) == 2


def test_a_node_survives_its_way_through_a_card(decks: dict[str, Any]) -> None:
    for node in graph_of(decks).nodes.values():
        assert Node.from_data(node.as_data()) == node


def test_a_result_that_does_not_exist_is_told_with_those_that_do(decks: dict[str, Any]) -> None:
    decks["library"]["exports"] = {"other": decks["library"]["exports"]["prefix"]}
    with pytest.raises(RecipeError, match="no result called 'prefix'") as caught:
        graph_of(decks)
    assert "other" in caught.value.hint


def test_the_longest_way_starts_first(decks: dict[str, Any]) -> None:
    depths = graph_of(decks).depths(lambda node: 100 if node.id == "library/make" else 1)
    assert depths["library/unpack-src"] > depths["library/make"] > depths["program/build"]
    assert depths["program/text"] < depths["library/make"]


NODE = Node(id="r/a", recipe="r", op="run", image="i", script="make", memory=1, wall=2, expect=3)


def key(node: Node = NODE, base: tuple[str, ...] = ("l1",), inputs: Mapping[str, str] | None = None) -> str:
    return card_key(node, base=base, inputs={"x": "d1"} if inputs is None else inputs)


@pytest.mark.parametrize(
    "other",
    [
        key(replace(NODE, op="check")),
        key(replace(NODE, image="j")),
        key(replace(NODE, script="make -k")),
        key(replace(NODE, keep="out")),
        key(replace(NODE, extra={"a": 1})),
        key(base=("l2",)),
        key(base=("l1", "l2")),
        key(inputs={"x": "d2"}),
        key(inputs={"y": "d1"}),
    ],
)
def test_what_can_change_the_bytes_changes_the_key(other: str) -> None:
    assert other != key()


@pytest.mark.parametrize(
    "same",
    [
        replace(NODE, id="s/b", recipe="s"),
        replace(NODE, memory=9, wall=9, expect=9),
        replace(NODE, after=("r/z",)),
    ],
)
def test_what_cannot_does_not(same: Node) -> None:
    assert key(same) == key()


def result(name: str) -> StepResult:
    layer = LayerRef(digest=Digest(name), times=Digest(""))
    return StepResult(stack=(layer,), out=layer)


def plan_of(graph: Graph, known: Callable[[Node, str], StepResult | None], **more: Any) -> dict[str, Fate]:
    planned = make_plan(graph, known=known, reference=lambda found, ref: f"{found.out}{ref.path}", **more)
    return {name: card.fate for name, card in planned.items()}


def test_with_everything_known_nothing_runs(decks: dict[str, Any]) -> None:
    assert set(plan_of(graph_of(decks), lambda node, _key: result(node.id)).values()) == {Fate.KEPT}


def test_below_a_card_that_runs_cards_may_run_and_others_are_kept(decks: dict[str, Any]) -> None:
    fates = plan_of(graph_of(decks), lambda node, _key: None if node.id == "library/make" else result(node.id))
    assert fates["library/unpack-src"] is Fate.KEPT
    assert fates["library/make"] is Fate.RUN
    assert fates["program/text"] is Fate.KEPT
    assert fates["program/build"] is Fate.MAY_RUN
    assert fates["program/artifact:bin/program"] is Fate.MAY_RUN


def test_a_forced_card_runs_although_it_is_known(decks: dict[str, Any]) -> None:
    fates = plan_of(graph_of(decks), lambda node, _key: result(node.id), forced=frozenset({"program/build"}))
    assert fates["program/build"] is Fate.RUN
    assert fates["library/make"] is Fate.KEPT


def test_a_changed_output_changes_the_keys_below_and_an_equal_one_does_not(decks: dict[str, Any]) -> None:
    graph = graph_of(decks)

    def keys_with(outcome: str) -> dict[str, str]:
        planned = make_plan(
            graph,
            known=lambda node, _key: result(outcome if node.id == "library/make" else node.id),
            reference=lambda found, ref: f"{found.out}{ref.path}",
        )
        return {name: card.key for name, card in planned.items()}

    one, same, other = keys_with("a"), keys_with("a"), keys_with("b")
    assert one == same
    assert one["program/build"] != other["program/build"]
    assert one["library/make"] == other["library/make"]
