"""What the evaluation cell returns, read by a host that trusts nothing in it."""

from __future__ import annotations

import copy
import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cell import run as cell
from anvil.cell.spec import Bind, CellSpec, Limits
from anvil.errors import AnvilError, RecipeError
from anvil.mainframe import evaluation
from anvil.mainframe.book import RecipeBook
from anvil.mainframe.deckcheck import check_deck
from anvil.mainframe.evaluation import DeckStore
from anvil.mainframe.graph import build_graph
from anvil.mainframe.services import LOCKS
from anvil.microjson.codec import MicroJSON, canonical
from anvil.microjson.registry import MessageID
from anvil.model.lock import ImageLock
from anvil.recipe import GiB, MiB, Recipe, elf_static, human_json, kernel_image, language
from anvil.recipe.evaluate import evaluate_closure
from anvil.sources.lockfile import read_source_lock

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.image.build import Image
    from anvil.model.lock import SourceLock

Change = tuple[tuple[str | int, ...], object]
GONE = object()


@cache
def _whole() -> dict[str, Any]:
    """A deck in which every operation and every form of reference occurs."""
    language.provide("test", {"src": {"version": "1.0", "facts": {}}})
    r = Recipe("it", licence="MIT", summary="all there is", extends="base")
    tree = r.unpack(r.source("src"))
    patched = r.patch("patch", tree, r.file("it/fix.patch"))
    text = r.write("text", patched, "etc/motd", "hello\n")
    built = r.run("build", text, "make", inputs={"lib": r.use("lib", "prefix") / "usr"})
    built.check("works", "true")
    pool = r.forge("pool", kernel=built / "k", initrd=built.out, disks={"a.img": MiB}, append="quiet", done="OK")
    r.boot("boot", medium=pool.out / "a.img", firmware="bios", attach="usb", expect="READY")
    r.export("tree", built.work)
    r.slot("words", "a word")
    r.extend(
        "base", "things", "thing", {"text": "x", "number": 5, "flag": True, "tree": built.out, "file": r.file("f")}
    )
    opener = {"kernel": built / "k", "initrd": built / "i"}
    r.artifact("bin/it", built / "it", kind=elf_static, opener=opener)
    return json.loads(json.dumps(r.deck()))  # type: ignore[no-any-return]


def changed(*changes: Change) -> Any:
    deck: Any = copy.deepcopy(_whole())
    for path, value in changes:
        place = deck
        for key in path[:-1]:
            place = place[key]
        if value is GONE:
            del place[path[-1]]
        else:
            place[path[-1]] = value
    return deck


UNPACK, PATCH, WRITE, RUN, CHECK, FORGE, BOOT = range(7)
ART = ("artifacts", "bin/it")
WRONG_NAMES = ["", "..", "A", "a/b", "a\0", "a\n", "-a", "a" * 65, 5, None, ["a"], True]
WRONG_PATHS = [
    "", "/etc/passwd", "..", "../x", "a/../b", "a/./b", "a//b", "a/", "a\0", "a\nb", "a\x1b[2J", "a\x7f", "a\x85",
    "a\u202eb", "a\ud800", "a" * 201, 5, None, [], False,
]  # fmt: skip
ADD = ("additions", 0)
STEP = {"step": "build", "tree": "out", "path": ""}


def step(number: int, *path: str | int) -> tuple[str | int, ...]:
    return ("steps", number, *path)


def _each(path: tuple[str | int, ...], values: list[Any]) -> list[Change]:
    return [(path, value) for value in values]


REFUSED: list[Change] = [
    # the deck
    (("recipe",), "other"),
    *_each(("recipe",), WRONG_NAMES),
    *_each(("licence",), [5, None, [], "\ud800"]),
    *_each(("summary",), [5, None]),
    (("more",), 1),
    (("summary",), GONE),
    *_each(("steps",), [{}, None, ["x"], [None]]),
    *_each(("exports",), [[], None, {"x": STEP}, {"x": {"ref": STEP, "more": 1}}]),
    *_each(("artifacts",), [[], None, {"x": None}]),
    # a step
    *_each(step(RUN, "name"), [*WRONG_NAMES, "text"]),
    *_each(step(RUN, "op"), ["release", "fetch", "image", "", "Run", 5, None, ["run"]]),
    *_each(step(RUN, "image"), WRONG_NAMES),
    *_each(step(RUN, "base"), ["build", "works", "none", "../text", 5, None, ["text"]]),
    *_each(step(RUN, "script"), [5, None, "a\0b", "x" * 100_001, "é" * 50_001, "\ud800"]),
    *_each(step(RUN, "limits"), [{}, None, [], {"memory": 1}, {"memory": 1, "wall": 1, "processes": 1}]),
    *_each(step(RUN, "limits", "memory"), [0, -1, True, 64 * GiB + 1, "1", 1.0, None]),
    *_each(step(RUN, "limits", "wall"), [0, -1, True, 7 * 24 * 3600 + 1, "1", 1.0, None]),
    *_each(step(RUN, "expect"), [-1, True, "1", 1.0, None, 2**53]),
    *_each(step(RUN, "keep"), ["some", "", None, 5, ["all"]]),
    *_each(step(RUN, "extra"), [{"more": 1}, [], None]),
    (step(RUN, "more"), 1),
    (step(RUN, "keep"), GONE),
    # what a step takes in
    *_each(step(RUN, "inputs"), [[], None, *({key: STEP} for key in ("", "a/b", "..", "a\0", "a" * 65))]),
    (step(UNPACK, "inputs"), {}),
    (step(PATCH, "inputs", "more"), {"file": "x"}),
    (step(WRITE, "inputs"), {"x": {"file": "x"}}),
    (step(FORGE, "inputs", "initrd"), GONE),
    (step(BOOT, "inputs"), {}),
    *_each(step(RUN, "inputs", "lib"), [None, [], "file", {}, {"file": "x", "path": ""}, {"step": "text"}]),
    *_each(step(RUN, "inputs", "lib"), [{**STEP, "step": name} for name in ("build", "works", "none", "", 5, ["a"])]),
    *_each(step(CHECK, "inputs", "out", "tree"), ["", "in", None, ["out"]]),
    *_each(step(CHECK, "inputs", "out", "path"), WRONG_PATHS[1:]),
    *_each(step(PATCH, "inputs", "patch", "file"), WRONG_PATHS),
    *_each(step(UNPACK, "inputs", "source", "source"), WRONG_NAMES),
    *_each(step(RUN, "inputs", "lib", "path"), WRONG_PATHS[1:]),
    *_each(step(RUN, "inputs", "lib", "use"), ["lib", None, ["lib"], ["lib", "a", "b"], ["it", "tree"]]),
    *_each(step(RUN, "inputs", "lib", "use", 0), WRONG_NAMES),
    *_each(step(RUN, "inputs", "lib", "use", 1), WRONG_PATHS),
    # what only one operation understands
    *_each(step(WRITE, "extra", "path"), WRONG_PATHS),
    *_each(step(WRITE, "extra", "text"), [5, None, "\ud800"]),
    *_each(step(WRITE, "extra", "mode"), [-1, 0o1000, 0o4755, True, "644", None]),
    (step(WRITE, "extra", "more"), 1),
    (step(WRITE, "extra", "mode"), GONE),
    *_each(step(FORGE, "extra", "disks"), [[], {}, None, ["a"], [["a"]], [["a", 512, 1]], [["a", 512], ["a", 512]]]),
    *_each(step(FORGE, "extra", "disks", 0, 0), [*WRONG_PATHS, "a/b", "a,file=b", "-a", ".a", "n" * 65]),
    *_each(step(FORGE, "extra", "disks", 0, 1), [0, -512, 511, 513, True, "512", None, 64 * GiB + 512]),
    *_each(step(FORGE, "extra", "append"), [5, None, "a\0b"]),
    *_each(step(FORGE, "extra", "done"), [5, None, ""]),
    *_each(step(FORGE, "extra", "deterministic"), [5, 0, None, "", "true"]),
    (step(FORGE, "extra", "deterministic"), GONE),
    (step(FORGE, "extra", "more"), 1),
    *_each(step(BOOT, "extra", "firmware"), ["", "coreboot", None, ["bios"]]),
    *_each(step(BOOT, "extra", "attach"), ["", "network", None, 5]),
    *_each(step(BOOT, "extra", "expect"), ["", None, 5]),
    (step(BOOT, "extra"), {}),
    # extending and being extended
    *_each(("extends",), [*WRONG_NAMES[1:], "it"]),
    (("extends",), ""),  # who adds something extends something
    *_each(("slots",), [[], None, {"A": "x"}, {"a": 5}, {"a": "\ud800"}]),
    *_each(("additions",), [{}, None, ["x"], [None]]),
    ((*ADD, "more"), 1),
    ((*ADD, "refs"), GONE),
    *_each((*ADD, "recipe"), [*WRONG_NAMES, "it"]),
    *_each((*ADD, "slot"), WRONG_NAMES),
    *_each((*ADD, "name"), ["", "a\nb", "a\x1b[2J", "a\u202eb", "\ud800", "x" * 201, 5, None, ["a"]]),
    *_each((*ADD, "value"), [[], None, {"a b": 1}, {"a": None}, {"a": 1.5}, {"a": []}, {"a": {}}, {"a": 2**53}]),
    *_each((*ADD, "value"), [{"a": "\0"}, {"a": "\ud800"}, {"a": "x" * (2**20 + 1)}, {"file": "x"}, {"": 1}]),
    ((*ADD, "value"), {f"k{number}": number for number in range(15)}),
    *_each((*ADD, "refs"), [[], None, {"a": None}, {"a": {}}, {"a/b": {"file": "x"}}]),
    *_each((*ADD, "refs", "file"), [{"file": "../x"}, {"file": "x", "of": "base"}, {"step": "none", "tree": "out"}]),
    *_each(
        (*ADD, "refs", "tree"), [{**STEP, "step": "none"}, {**STEP, "of": "base"}, {"use": ["it", "x"], "path": ""}]
    ),
    # what others add can be taken in only if they do
    *_each(
        step(RUN, "inputs", "lib"), [{"file": "x", "of": "base"}, {**STEP, "of": "it"}, {"source": "s", "of": "b"}]
    ),
    # what leaves
    *_each(("exports",), [{path: {"ref": STEP}} for path in WRONG_PATHS if isinstance(path, str)]),
    (("exports", "bin/it"), {"ref": STEP}),
    (("exports", "tree", "ref", "step"), "none"),
    *_each(("artifacts",), [{path: _whole()["artifacts"]["bin/it"]} for path in WRONG_PATHS if isinstance(path, str)]),
    *_each((*ART, "ref"), [None, {}, {"step": "none", "tree": "out", "path": ""}]),
    *_each((*ART, "kind"), ["", "exe", None, 5, ["archive"]]),
    *_each((*ART, "licence"), [None, 5]),
    *_each((*ART, "redistribution"), [None, 5]),
    *_each((*ART, "opener"), [None, [], {"disk": STEP}, {"kernel": None}, {"kernel": {**STEP, "path": ".."}}]),
    ((*ART, "more"), 1),
    ((*ART, "opener"), GONE),
]


@pytest.mark.parametrize("change", REFUSED, ids=[f"{number}-{path[-1]}" for number, (path, _) in enumerate(REFUSED)])
def test_a_deck_that_the_language_would_not_make_is_refused(change: Change) -> None:
    with pytest.raises(RecipeError) as caught:
        check_deck("it", changed(change))
    assert "recipe it" in caught.value.message
    assert caught.value.message.isprintable()  # nothing that a terminal obeys


@pytest.mark.parametrize("deck", [None, [], "deck", 5, {}])
def test_what_is_no_deck_at_all_is_refused(deck: object) -> None:
    with pytest.raises(RecipeError):
        check_deck("it", deck)


ALLOWED: list[Change] = [
    (("summary",), ""),
    (step(RUN, "script"), "x" * 100_000),
    (step(RUN, "limits"), {"memory": 64 * GiB, "wall": 7 * 24 * 3600}),
    (step(WRITE, "extra", "mode"), 0o777),
    (step(WRITE, "extra", "path"), "a" * 200),
    (step(WRITE, "base"), ""),
    (step(FORGE, "extra", "disks"), [["a", 64 * GiB], ["b.c", 512]]),
    (("exports",), {}),
    ((*ART, "opener"), {}),
    (("exports", "…/…x"), {"ref": {"file": "ä/ß"}}),
    (("extends",), "other"),
    (("additions",), []),
    ((*ADD, "value"), {"a": "\n", "b": -(2**53) + 1, "c": False, "d": "x" * 2**20}),
    ((*ADD, "refs"), {}),
]


def test_the_whole_deck_and_what_is_just_allowed_pass() -> None:
    check_deck("it", changed())
    for change in ALLOWED:
        check_deck("it", changed(change))


def test_the_error_names_recipe_step_and_field() -> None:
    with pytest.raises(RecipeError, match=r"recipe it, step 'build': limits\.wall: 0 is no number") as caught:
        check_deck("it", changed((step(RUN, "limits", "wall"), 0)))
    assert caught.value.where == "it.py"


def test_a_deck_of_too_many_steps_is_refused() -> None:
    many = [{**_whole()["steps"][WRITE], "name": f"s{number}", "base": ""} for number in range(10_001)]
    empty: list[Change] = [(("exports",), {}), (("artifacts",), {}), (("additions",), [])]
    check_deck("it", changed((("steps",), many[:-1]), *empty))
    with pytest.raises(RecipeError, match="more than 10000"):
        check_deck("it", changed((("steps",), many), *empty))


LENT = [
    {"by": "mine", "slot": "s", "name": "n", "value": {}, "refs": {
        "tree": {"step": "a", "tree": "out", "path": "usr"}, "all": {"use": ["it", "x"], "path": ""},
        "file": {"file": "f"}, "source": {"source": "src"}}}
]  # fmt: skip


@pytest.mark.parametrize(
    ("ref", "taken"),
    [
        ({"step": "a", "tree": "out", "path": "usr", "of": "mine"}, True),
        ({"step": "a", "tree": "out", "path": "usr/lib", "of": "mine"}, True),
        ({"use": ["it", "x"], "path": "deep/er", "of": "mine"}, True),
        ({"file": "f", "of": "mine"}, True),
        ({"source": "src", "of": "mine"}, True),
        ({"step": "a", "tree": "out", "path": "", "of": "mine"}, False),
        ({"step": "a", "tree": "out", "path": "usrlocal", "of": "mine"}, False),
        ({"step": "a", "tree": "out", "path": "usr/../etc", "of": "mine"}, False),
        ({"step": "a", "tree": "work", "path": "usr", "of": "mine"}, False),
        ({"step": "b", "tree": "out", "path": "usr", "of": "mine"}, False),
        ({"step": "a", "tree": "out", "path": "usr", "of": "other"}, False),
        ({"step": "a", "tree": "out", "path": "usr", "of": 5}, False),
        ({"step": "a", "tree": "out", "path": 5, "of": "mine"}, False),
        ({"use": ["it", "y"], "path": "", "of": "mine"}, False),
        ({"file": "f/g", "of": "mine"}, False),
        ({"file": "g", "of": "mine"}, False),
        ({"file": "f", "of": "mine", "path": ""}, False),
        ({"of": "mine"}, False),
    ],
)
def test_what_came_with_an_addition_may_be_taken_in_and_nothing_else_of_others(ref: object, *, taken: bool) -> None:
    deck = changed((step(RUN, "inputs", "lib"), ref))
    if taken:
        check_deck("it", deck, LENT)
        return
    with pytest.raises(RecipeError, match=r"came with what others add|plain relative path"):
        check_deck("it", deck, LENT)


def test_a_deck_of_too_many_additions_is_refused() -> None:
    many = [{**_whole()["additions"][0], "name": f"n{number}"} for number in range(10_001)]
    check_deck("it", changed((("additions",), many[:-1])))
    with pytest.raises(RecipeError, match="there are 10001"):
        check_deck("it", changed((("additions",), many)))


# ---- the built-in recipes: the control that the check is not too strict


@cache
def _lock() -> SourceLock:
    return read_source_lock(LOCKS / "debian.json")


def _in_process(request: bytes) -> bytes:
    answer = evaluate_closure(MicroJSON.decode(request)["data"])
    return MicroJSON.message(MessageID.EVALUATION_ANSWER, answer)


def _store() -> tuple[dict[str, bytes], DeckStore]:
    kept: dict[str, bytes] = {}
    return kept, DeckStore(kept.get, kept.__setitem__)


def test_every_built_in_recipe_passes_fresh_and_kept() -> None:
    book, lock = RecipeBook(), _lock()
    kept, store = _store()

    def no_cell(request: bytes) -> bytes:
        raise AssertionError(request)

    for wanted in book.paths:
        fresh = evaluation.evaluate(wanted, book=book, lock=lock, store=store, cell=_in_process)
        assert evaluation.evaluate(wanted, book=book, lock=lock, store=store, cell=no_cell) == fresh
    assert len(kept) >= len(book.paths) >= 12  # iso-full has a variant of each recipe that it adds to


# ---- what the host does with an answer


class Small:
    """A project of two recipes, and a cell that answers what the test wants."""

    def __init__(self, folder: Path) -> None:
        (folder / "recipes").mkdir()
        for name in ("it", "other"):
            (folder / "recipes" / f"{name}.py").write_text("", encoding="utf-8")
        self.book = RecipeBook(project=folder)
        self.kept, self.store = _store()

    def evaluate(self, answer: object, wanted: str = "it") -> dict[str, Any]:
        data = MicroJSON.message(MessageID.EVALUATION_ANSWER, answer)
        lock = _lock()
        return evaluation.evaluate(wanted, book=self.book, lock=lock, store=self.store, cell=lambda _: data)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def deck(name: str, uses: str = "", script: str = "true") -> dict[str, Any]:
    language.provide("test", {})
    r = Recipe(name, licence="MIT")
    r.run("a", None, script, inputs={"x": r.use(uses, "x")} if uses else {})
    return r.deck()


def test_a_sound_answer_is_taken_and_kept(small: Small) -> None:
    decks = {"it": deck("it", uses="other"), "other": deck("other")}
    assert small.evaluate({"decks": decks}) == decks
    assert len(small.kept) == 2


@pytest.mark.parametrize(
    ("decks", "why"),
    [
        ({"it": deck("it"), "nobody": deck("nobody")}, "do not exist"),
        ({"it": deck("it"), "../etc": deck("it")}, "do not exist"),
        ({"it": deck("it"), "other": deck("other")}, "nobody asked for"),
        ({"it": deck("other")}, "the deck is of 'other'"),
        ({"it": {"steps": [], "exports": {}, "artifacts": {}}}, "missing or too much"),
        ({"it": None}, "no object"),
    ],
)
def test_an_answer_with_a_wrong_deck_is_refused_and_not_kept(small: Small, decks: object, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        small.evaluate({"decks": decks})
    assert not small.kept


@pytest.mark.parametrize(
    "answer",
    [
        None, [], "error", {}, {"decks": []}, {"decks": {}}, {"decks": {"it": deck("it", uses="other")}},
        {"recipe": "it", "error": "x"}, {"recipe": "it", "error": {"message": 5, "line": 0, "hint": ""}},
        {"recipe": ["it"], "error": {"message": "x", "line": 0, "hint": ""}},
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_told_as_that(small: Small, answer: object) -> None:
    with pytest.raises(AnvilError, match="no sound answer"):
        small.evaluate(answer)


def test_an_unknown_source_is_refused(small: Small) -> None:
    hostile = deck("it")
    hostile["steps"][0]["inputs"] = {"x": {"source": "nothing"}}
    with pytest.raises(RecipeError, match="no source is called 'nothing'"):
        small.evaluate({"decks": {"it": hostile}})


def test_a_wrong_deck_in_the_store_is_refused_too(small: Small) -> None:
    small.evaluate({"decks": {"it": deck("it")}})
    (key,) = small.kept
    small.kept[key] = canonical({**deck("it"), "recipe": "other"})
    with pytest.raises(RecipeError, match="the deck is of 'other'"):
        small.evaluate(None)


def test_one_recipe_cannot_replace_the_kept_deck_of_another(small: Small) -> None:
    small.evaluate({"decks": {"other": deck("other")}}, "other")
    before = dict(small.kept)
    decks = {"it": deck("it", uses="other"), "other": deck("other", script="evil")}
    assert small.evaluate({"decks": decks})["other"] == deck("other")
    assert before.items() <= small.kept.items()


# ---- files beside a recipe


@pytest.mark.parametrize("path", ["", ".", "..", "../secret", "a/../../secret", "./a", "a//b", "/etc/passwd", "a\0b"])
def test_no_path_leads_out_of_a_recipes_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "recipes" / "a").mkdir(parents=True)
    (tmp_path / "recipes" / "it.py").touch()
    (tmp_path / "recipes" / "a" / "fine").write_bytes(b"fine")
    (tmp_path / "secret").write_bytes(b"secret")
    book = RecipeBook(project=tmp_path)
    assert book.file("it", "a/fine") == b"fine"
    with pytest.raises(RecipeError, match="not a plain relative path"):
        book.file("it", path)


# ---- names that collide


def graph(*recipes: tuple[str, tuple[str, ...]]) -> None:
    """Build the graph of recipes with these artifacts; each uses the one before."""
    language.provide("test", {})
    decks = {}
    before = None
    for name, artifacts in recipes:
        r = Recipe(name, licence="MIT")
        made = r.run("a", None, "true", inputs={"x": r.use(before, "all")} if before else {})
        r.export("all", made.out)
        for artifact in artifacts:
            r.artifact(artifact, made.out / "x", kind=human_json if artifact.endswith(".json") else kernel_image)
        decks[name], before = r.deck(), name
    images = {"build": ("b" * 64, ImageLock(name="build", resolved="2026-01-01", architecture="amd64", packages=()))}
    build_graph(recipes[-1][0], decks, sources={}, images=images, files={})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a"),
        ("a", "a.json"),
        ("a.json", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a"),
        ("a", "a.json/b"),
        ("a.json/b", "a"),
        ("x/a", "x/a/b/c"),
    ],
)
def test_two_artifacts_cannot_need_one_place(one: str, other: str) -> None:
    with pytest.raises(RecipeError, match="cannot both be released") as caught:
        graph(("first", (one,)), ("second", (other,)))
    assert f"first:{one} " in caught.value.message
    assert f"second:{other} " in caught.value.message


def test_two_artifacts_of_one_recipe_cannot_need_one_place_either() -> None:
    with pytest.raises(RecipeError, match="cannot both be released"):
        graph(("first", ("a", "a.json")))


def test_artifacts_side_by_side_are_fine() -> None:
    graph(("first", ("a", "b/c", "b/d", "ab", "a.jso")), ("second", ("b/e", "b.c", "x.json")))


@pytest.mark.parametrize("name", ["images", "sources"])
def test_a_recipe_cannot_take_the_hosts_own_names(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be called"):
        graph((name, ()), ("user", ()))


# ---- a recipe's process against the evaluator

HOSTILE = """
from anvil.recipe import Recipe
system = Recipe.step.__globals__["re"].__loader__.__class__.__init__.__globals__["sys"].modules["os"]
parent = system.getppid()
said = []
for number in range(3, 30):
    try:
        system.fstat(number)
        said.append("fd%d" % number)
    except OSError:
        pass
for process in [name for name in system.listdir("/proc") if name.isdigit() and int(name) != system.getpid()]:
    for path, flags in (("mem", system.O_RDWR), ("fd/1", system.O_WRONLY), ("fd/3", system.O_WRONLY)):
        try:
            system.close(system.open("/proc/" + process + "/" + path, flags))
            said.append(("parent" if int(process) == parent else "process" + process) + "/" + path)
        except OSError:
            pass
r = Recipe("hostile", licence="MIT", summary=" ".join(said))
r.run("a", None, "true")
"""

OPEN = """
import sys; sys.path.insert(0, '/in/language')
from anvil.recipe import evaluate
evaluate._close_to_children = evaluate._keep_only = evaluate._end_all_others = lambda *_: None
evaluate.main()
"""


def _reach(image: Image, folder: Path, command: tuple[str, ...]) -> str:
    folder.mkdir(mode=0o755)
    request = {"profile": "test", "sources": {}, "recipes": {"hostile": HOSTILE}, "wanted": ["hostile"]}
    spec = CellSpec(
        rootfs=image.rootfs,
        command=command,
        first=command is evaluation.EVALUATE,
        inputs=(Bind(name="language", source=evaluation.place_language(folder)),),
        env={"PYTHONHASHSEED": "0"},
        limits=Limits(memory_bytes=1024**3, wall_seconds=60, processes=64),
        stdin=MicroJSON.message(MessageID.EVALUATION_REQUEST, request),
    )
    outcome, data = cell.exchange(spec, folder / "errors", cap=MiB)
    assert outcome.ok, (folder / "errors").read_text(encoding="utf-8")
    answer = MicroJSON.decode(data)["data"]
    assert "decks" in answer, answer
    return str(answer["decks"]["hostile"]["summary"])


@pytest.mark.cell
def test_a_recipes_process_reaches_neither_the_evaluator_nor_the_answer(eval_image: Image, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    bare = _reach(eval_image, tmp_path / "bare", (*evaluation.EVALUATE[:-1], OPEN))
    assert "parent/mem" in bare  # the control: without the bar it does
    assert len([word for word in bare.split() if word.startswith("fd")]) > 1
    shut = _reach(eval_image, tmp_path / "shut", evaluation.EVALUATE).split()
    assert len([word for word in shut if word.startswith("fd")]) == 1  # its own way to answer
    # bubblewrap's own init cannot be barred from here: what it could be made to say, the host's check of decks meets
    assert {word for word in shut if not word.startswith("fd")} <= {"process1/mem"}
