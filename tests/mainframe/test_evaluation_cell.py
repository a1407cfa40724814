"""A chain of small recipes that extend each other, forged through the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.cell

# A note in place of the root, and a letter in place of the medium.
NOTE = """from anvil.recipe import Recipe
note = Recipe("note", licence="MIT")
lines = note.slot("lines", "a line, by name")
added = "\\n".join(f"cat /in/{a.name} >> /out/note" for a in lines)
made = note.run("write", None, "echo mine > /out/note\\n" + added, inputs={a.name: a.ref("text") for a in lines})
note.export("note", made.out / "note")
"""
LETTER = """from anvil.recipe import Recipe, human_json
letter = Recipe("letter", licence="MIT")
put = letter.run("put", None, "printf '{\\\\n  \\"lines\\": %s\\\\n}\\\\n' $(wc -l < /in/note) > /out/letter.json",
                 inputs={"note": letter.use("note", "note")})
put.check("whole", "test -s /in/out/letter.json")
letter.artifact("letter.json", put.out / "letter.json", kind=human_json)
"""
BASE = """from anvil.recipe import Recipe
base = Recipe("base", extends="letter", licence="MIT")
base.extend("note", "lines", "one", {"text": base.file("base/one")})
"""
MINE = """from anvil.recipe import Recipe
mine = Recipe("mine", extends="base", licence="MIT")
two = mine.run("two", None, "echo two > /out/two")
mine.extend("note", "lines", "two", {"text": two.out / "two"})
mine.run("look", None, "grep 3 /in/letter", inputs={"letter": mine.use("letter", "letter.json")}).check("fine", "true")
"""


@pytest.fixture
def chain(project: Project) -> Project:
    for name, text in (("note", NOTE), ("letter", LETTER), ("base", BASE), ("mine", MINE)):
        project.recipe(name, text)
    (project.folder / "recipes" / "base").mkdir()
    (project.folder / "recipes" / "base" / "one").write_text("one\n", encoding="utf-8")
    return project


def fates(project: Project, recipe: str) -> dict[str, str]:
    plan = project.anvil("plan", recipe, "--project", str(project.folder), "--json")
    assert plan.returncode == 0, plan.stderr
    return {card["card"]: card["fate"] for card in json.loads(plan.stdout)["cards"]}


def lines(project: Project) -> int:
    return int(json.loads((project.output / "letter.json").read_text(encoding="utf-8"))["lines"])


def test_a_chain_is_forged_and_what_it_extends_stays_as_it_was(chain: Project) -> None:
    done = chain.forge("mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines(chain) == 3
    for name, expected in (("base", 2), ("letter", 1)):
        assert chain.forge(name).returncode == 0
        assert lines(chain) == expected
    # every variant is kept beside the others
    for name in ("mine", "base", "letter"):
        assert set(fates(chain, name).values()) == {"kept"}
    assert chain.forge("mine").returncode == 0
    assert lines(chain) == 3


def test_a_changed_file_of_an_addition_runs_only_what_is_made_of_it(chain: Project) -> None:
    assert chain.forge("mine").returncode == 0
    (chain.folder / "recipes" / "base" / "one").write_text("another\n", encoding="utf-8")
    found = fates(chain, "mine")
    assert {card for card, fate in found.items() if fate == "run"} == {"note/write"}
    assert found["mine/two"] == "kept"
    done = chain.forge("mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kept  mine/look" in done.stdout  # the letter has as many lines as before


def test_the_sidecar_accounts_for_the_extenders_cards(chain: Project) -> None:
    assert chain.forge("mine").returncode == 0
    sidecar = json.loads((chain.output / "letter.json.json").read_text(encoding="utf-8"))
    assert [card["card"] for card in sidecar["cards"]][:3] == ["mine/two", "note/write", "letter/put"]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (
            'mine.extend("note", "lines", "one", {"text": two.out})',
            "base and mine contradict each other",
            "take it out",
        ),
        ('mine.extend("note", "words", "x", {})', "note has no such slot", "slots of note: lines"),
        ('mine.extend("nota", "lines", "x", {})', "no recipe of this forge", "can be added to: note"),
        ('mine.extend("note", "lines", "it", {"text": mine.use("note", "note")})', "in a ring: note/write", "input"),
        ('mine.root_text("/etc", "x")', "is not a plain relative path", ""),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(chain: Project, line: str, message: str, hint: str) -> None:
    chain.recipe("mine", f"{MINE}{line}\n")
    done = chain.forge("mine")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert message in said
    assert hint in said
    assert "run   " not in said
    assert "Traceback" not in said
