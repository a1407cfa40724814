"""In what two identities differ, estimates, and other pure parts of looking ahead and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.cortex.records import Noted, Run
from anvil.errors import UsageError
from anvil.mainframe.crew import HOST_WORKERS
from anvil.mainframe.difference import MOST_LINES, Change, changes, package_lines, text_lines
from anvil.mainframe.estimate import HOST_LANES, estimates, wall_seconds
from anvil.mainframe.graph import BlobRef, Graph, Node, StepRef
from anvil.mainframe.history import find_forge
from anvil.mainframe.keys import Identity
from anvil.mainframe.sides import config_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NODE = Node(
    id="r/a", recipe="r", op="run", image="i1", base="r/z", script="make\n",
    inputs={
        "fragment": BlobRef(sha256="f1", name="x.fragment"),
        "source": BlobRef(sha256="s1", name="s-1.tar", node="sources/s"),
        "lib": StepRef(node="q/build", tree="out", path="lib"),
    },
)  # fmt: skip
INPUTS = {"fragment": "f1", "source": "s1", "lib": "l1"}


class Known:
    """What the tests' digests stand for."""

    def pin(self, digest: str) -> Mapping[str, Any]:
        if digest.startswith("s"):
            return {"source": "s", "version": digest[1:], "file": f"s-{digest[1:]}.tar"}
        if digest.startswith("i"):
            return {"image": "build", "packages": {"gcc": [digest[1:], "x"], "make": ["4", digest]}}
        return {}

    def text(self, digest: str) -> str | None:
        return {"f1": "A=1\nB=1\n", "f2": "A=1\nB=2\n"}.get(digest)

    def path(self, _card: str, name: str, _digest: str) -> str:
        return f"r/{name}"

    def named(self, digest: str) -> str:
        return "r/x.fragment" if digest == "f2" else ""


def identity(
    node: Node = NODE, *, base: tuple[str, ...] | None = ("b1",), inputs: Mapping[str, str | None] | None = None
) -> Identity:
    return Identity.of(node, base=base, inputs=INPUTS if inputs is None else inputs)


def told(other: Identity, first: Identity | None = None) -> list[Change]:
    return list(changes(first or identity(), other, Known()))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_same_identity_differs_in_nothing() -> None:
    assert told(identity()) == []


def test_a_script_is_told_with_its_lines() -> None:
    [change] = told(identity(replace(NODE, script="make -k\n")))
    assert (change.what, change.name, change.lines) == ("script", "r/a", ("-make", "+make -k"))
    assert (change.before, change.after) == (sha("make\n"), sha("make -k\n"))
    assert change.own


def test_a_file_is_told_by_its_path_and_digests() -> None:
    [change] = told(identity(inputs={**INPUTS, "fragment": "f2"}))
    assert (change.what, change.name, change.before, change.after) == ("file", "r/x.fragment", "f1", "f2")
    assert change.lines == (" A=1", "-B=1", "+B=2")
    assert change.place == "/in/fragment"


def test_a_source_is_told_by_its_versions() -> None:
    [change] = told(identity(inputs={**INPUTS, "source": "s2"}))
    assert (change.what, change.name, change.before, change.after) == ("source", "s", "s1", "s2")
    assert change.lines == ("- s 1 (s-1.tar)", "+ s 2 (s-2.tar)")


def test_an_image_is_told_by_its_packages() -> None:
    [change] = told(identity(replace(NODE, image="i2")))
    assert (change.what, change.name, change.before, change.after) == ("image", "build", "i1", "i2")
    assert change.lines == ("gcc 1 -> 2", "make 4: i1 -> i2")


def test_the_output_of_another_card_is_not_the_cards_own() -> None:
    [change] = told(identity(inputs={**INPUTS, "lib": "l2"}))
    assert (change.what, change.name, change.path, change.own) == ("card", "q/build", "lib", False)
    [change] = told(identity(inputs={**INPUTS, "lib": None}))
    assert (change.known, change.after, change.own) == (False, "", False)
    [change] = told(identity(base=("b2",)))
    assert (change.what, change.name, change.place, change.own) == ("card", "r/z", "/work", False)
    [change] = told(identity(base=None))
    assert (change.known, change.own) == (False, False)


def test_what_is_taken_from_elsewhere_is_the_cards_own() -> None:
    other = replace(NODE, inputs={**NODE.inputs, "lib": StepRef(node="q/build", tree="out", path="other")})
    [change] = told(identity(other, inputs={**INPUTS, "lib": "l2"}))
    assert (change.path, change.was, change.own) == ("other", "/out/lib of q/build", True)
    [change] = told(identity(replace(NODE, base="r/y"), base=("b2",)))
    assert (change.name, change.was, change.own) == ("r/y", "r/z", True)


def test_an_input_more_or_less_is_the_cards_own() -> None:
    more = replace(NODE, inputs={**NODE.inputs, "new": StepRef(node="q/new", tree="out", path="")})
    [change] = told(identity(more, inputs={**INPUTS, "new": "n"}))
    assert (change.name, change.before, change.after, change.was, change.own) == ("q/new", "", "n", "nothing", True)
    [change] = told(identity(), identity(more, inputs={**INPUTS, "new": "n"}))
    assert (change.name, change.before, change.after, change.was, change.own) == (
        "q/new",
        "n",
        "",
        "/out of q/new",
        True,
    )


@pytest.mark.parametrize(
    ("other", "what", "name"),
    [(replace(NODE, op="check"), "operation", "op"), (replace(NODE, keep="out"), "keep", "keep"),
     (replace(NODE, extra={"mode": 420}), "setting", "mode")],
)  # fmt: skip
def test_every_other_field_is_told(other: Node, what: str, name: str) -> None:
    [change] = told(identity(other))
    assert (change.what, change.name, change.own) == (what, name, True)


def test_another_contract_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity()
    monkeypatch.setattr("anvil.mainframe.keys.CONTRACT", 999_999)
    [change] = told(identity(), before)
    assert (change.what, change.after) == ("contract", "999999")


def test_no_part_of_an_identity_is_passed_over() -> None:
    """Whatever is hashed into the key is compared: with any one field another, something is told."""
    body = dict(identity().body)
    for name, value in body.items():
        other = Identity(card="r/a", key="k", body={**body, name: _other(value)}, origins=identity().origins)
        assert told(other), name


def _other(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, next(iter(value), "new"): "other"}
    return [*value, "other"] if isinstance(value, list) else value + type(value)(1)


def test_texts_of_the_gate_are_named() -> None:
    node = replace(NODE, op="release", extra={"texts": ["f1", "f3"]})
    [change] = told(identity(replace(node, extra={"texts": ["f2", "f3"]})), identity(node))
    assert (change.what, change.own, change.lines) == ("texts", False, ("- f1", "+ f2 r/x.fragment"))


def test_sources_and_images_of_the_host_set_are_told_as_that() -> None:
    fetch = Node(id="sources/s", recipe="sources", op="fetch", extra={"files": [{"sha256": "s1", "name": "s-1.tar"}]})
    other = replace(fetch, extra={"files": [{"sha256": "s2", "name": "s-2.tar"}]})
    [change] = told(identity(other, base=(), inputs={}), identity(fetch, base=(), inputs={}))
    assert (change.what, change.name) == ("source", "s")
    image = Node(id="images/build", recipe="images", op="image", extra={"name": "build", "digest": "i1"})
    other = replace(image, extra={"name": "build", "digest": "i2"})
    [change] = told(identity(other, base=(), inputs={}), identity(image, base=(), inputs={}))
    assert (change.what, change.name) == ("image", "build")


def test_long_differences_are_cut_and_say_so() -> None:
    lines = text_lines("", "".join(f"{number}\n" for number in range(100)))
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == "… and 60 more lines"
    packages = package_lines({}, {f"p{number:03}": "1" for number in range(100)})
    assert packages[0] == "+ p000 1"
    assert len(packages) == MOST_LINES + 1


def test_a_long_setting_is_told_word_by_word() -> None:
    words = " ".join(f"zfs.setting_{number}=1" for number in range(30))
    one, two = replace(NODE, extra={"append": words}), replace(NODE, extra={"append": words.replace("7=1", "7=2", 1)})
    [change] = told(identity(two), identity(one))
    assert {"-zfs.setting_7=1", "+zfs.setting_7=2"} <= set(change.lines)


def test_a_noted_identity_counts_only_when_its_hash_is_its_key() -> None:
    noted = identity().noted()
    again = Identity.from_noted(noted)
    assert again is not None
    assert again.body == identity().body
    assert Identity.from_noted(replace(noted, body=noted.body.replace("make", "fake"))) is None
    assert Identity.from_noted(replace(noted, key="0" * 64)) is None


def test_an_unknown_part_gives_no_key() -> None:
    assert identity().key
    assert identity(base=None).key == ""
    assert identity(inputs={**INPUTS, "lib": None}).key == ""


# ---- estimates


def run(milliseconds: int, key: str = "k") -> Run:
    return Run(key=key, milliseconds=milliseconds, at=0)


def test_one_run_is_what_is_expected_with_a_quarter_each_way() -> None:
    found = estimates([NODE], {"r/a": [run(10_000)]})["r/a"]
    assert (found.low, found.expected, found.high, found.ground, found.runs) == (7.5, 10.0, 12.5, "card", 1)


def test_runs_of_the_very_key_go_before_others() -> None:
    found = estimates([NODE], {"r/a": [run(90_000, "other"), run(10_000)]}, {"r/a": "k"})["r/a"]
    assert (found.expected, found.ground) == (10.0, "key")


def test_one_odd_run_does_not_spoil_it_but_is_in_the_spread() -> None:
    found = estimates([NODE], {"r/a": [run(50_000), run(10_000), run(11_000), run(9_000)]})["r/a"]
    assert (found.low, found.expected, found.high) == (9.0, 11.0, 50.0)


def test_without_a_run_the_hint_counts_scaled_by_what_others_took() -> None:
    other = replace(NODE, id="r/b", expect=10)
    node = replace(NODE, expect=100)
    assert estimates([node], {})["r/a"].expected == 100
    found = estimates([node, other], {"r/b": [run(20_000)]})["r/a"]
    assert (found.low, found.expected, found.high, found.ground) == (100.0, 200.0, 400.0, "recipe")


def test_wall_time_follows_the_needs_and_the_jobs() -> None:
    nodes = {
        name: Node(id=name, recipe="r", op=op, after=after)
        for name, op, after in (
            ("s", "fetch", ()), ("a", "run", ("s",)), ("b", "run", ("s",)), ("c", "run", ("s",)), ("d", "run", ("a",)),
        )
    }  # fmt: skip
    graph = Graph(wanted="r", nodes=nodes, recipes=("r",))
    every = {"s": 1.0, "a": 10.0, "b": 10.0, "c": 10.0, "d": 5.0}
    assert wall_seconds(graph, every, 1) == 36.0
    assert wall_seconds(graph, every, 2) == 21.0
    assert wall_seconds(graph, every, 9) == 16.0
    assert wall_seconds(graph, {"d": 5.0}, 2) == 5.0
    assert wall_seconds(graph, {}, 2) == 0.0
    assert HOST_LANES == HOST_WORKERS


# ---- the rest


def test_a_forge_is_found_by_number_by_age_and_by_its_name(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "cortex.db") as db:
        with pytest.raises(UsageError, match="no forge in this home"):
            find_forge(db, "last")
        for name in ("iso-a", "iso-b", "busybox-a"):
            db.begin_forge(name, deck=name, recipe="r")
        found = {word: find_forge(db, word) for word in ("1", "3", "last", "last~1", "last~2", "bus", "iso-b")}
        assert {word: (number, forge.id) for word, (number, forge) in found.items()} == {
            "1": (1, "iso-a"), "3": (3, "busybox-a"), "last": (3, "busybox-a"), "last~1": (2, "iso-b"),
            "last~2": (1, "iso-a"), "bus": (3, "busybox-a"), "iso-b": (2, "iso-b"),
        }  # fmt: skip
        for word in ("0", "4", "last~3", "iso", "none", ""):
            with pytest.raises(UsageError):
                find_forge(db, word)


def test_options_are_read_from_what_kconfig_wrote_alone() -> None:
    text = (
        '#\n# Automatically generated file; DO NOT EDIT.\n#\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x=1"\n# a\n'
    )
    assert config_options(text.encode()) == {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": '"x=1"'}
    assert config_options(b"CONFIG_A=y\n") == {}
    assert config_options(b"\xff\xfe\0") == {}


def test_an_identity_is_what_it_was_when_keys_were_first_kept() -> None:
    """Keys are what results are kept by: that they can be explained may not change them."""
    body = {"contract": identity().body["contract"], "architecture": "x86_64", "op": "run", "image": "i1",
            "script": "make\n", "keep": "all", "extra": {}, "base": ["b1"], "inputs": INPUTS}  # fmt: skip
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert identity().key == hashlib.sha256(b"anvil card key\n" + text.encode()).hexdigest()
    assert identity().noted() == Noted(key=identity().key, card="r/a", body=text, origins=identity().noted().origins)
