"""The map of the seed's backlog is complete, and says of the code only what is so."""

from __future__ import annotations

import pkgutil
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = ROOT / "docs" / "SEED-MAP.md"

LINES = {
    "1.1": 5, "1.2": 6, "1.3": 5, "1.4": 4,
    "4.1": 5, "4.2": 4, "4.3": 2,
    "1.5.1": 6, "1.5.2": 5, "1.5.3": 4,
    "2A.1": 2, "2A.2": 3, "2A.3": 4, "2A.4": 4, "2A.5": 2, "2A.6": 1,
    "2.1": 6, "2.2": 7, "2.3": 7, "2.4": 4,
    "3.1": 5, "3.2": 5, "3.3": 4, "3.4": 3,
    "5.1": 5, "5.2": 4, "5.3": 5, "5.4": 5,
    "6": 3,
    "7.1": 8, "7.2": 4, "8.1": 5, "8.2": 3, "9.1": 2, "9.2": 6, "9.3": 3, "10.1": 5, "11.1": 3, "11.2": 1, "12.1": 5,
    "13.1": 3, "14.1": 4, "14.2": 4, "14.3": 2,
}  # fmt: skip
"""How many lines each section of the seed's backlog has, in the seed's order."""

STATE = re.compile(r"works|later|replaced: ADR (\d{4})")
QUOTED = re.compile(r"`([^`]+)`")
METHOD = re.compile(r"`([A-Z][A-Za-z]+\.[a-z_]\w*)")
MODULE = re.compile(r"anvil(\.\w+)+")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the seed. places, tests: what the third and fourth column have in backticks."""

    number: int
    section: str
    words: str
    places: tuple[str, ...]
    tests: tuple[str, ...]
    state: str

    @classmethod
    def read(cls, number: int, line: str) -> Row:
        """A row from its line of the table; ``number`` is the line's in the file."""
        section, words, where, shown, state = (cell.strip() for cell in line.strip("|").split("|"))
        return cls(
            number=number, section=section, words=words, places=tuple(QUOTED.findall(where)),
            tests=tuple(QUOTED.findall(shown)), state=state,
        )  # fmt: skip

    def __str__(self) -> str:
        """What pytest calls it."""
        return f"{self.section}-line{self.number}"

    @property
    def methods(self) -> list[str]:
        """The seed's methods in its words: Class.method."""
        return METHOD.findall(self.words)


TEXT = MAP.read_text(encoding="utf-8")
ROWS = [
    Row.read(number, line)
    for number, line in enumerate(TEXT.splitlines(), 1)
    if re.match(r"\| \d+[A-Z0-9.]* \|", line)
]
BUILT = [row for row in ROWS if row.state == "works"]
PLANNED = [row for row in ROWS if row.state == "later"]
REPLACED = [row for row in ROWS if row.state.startswith("replaced")]


def there(place: str, methods: list[str]) -> bool:
    """Whether a path or a dotted module is there, and the methods in it, if it is one of our modules."""
    name = place
    if "/" in place:
        if not (ROOT / place).exists():
            return False
        if not (place.startswith("src/anvil/") and place.endswith(".py")) or place.startswith("src/anvil/recipes/"):
            return True
        name = place.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        for inside in methods or [""]:
            pkgutil.resolve_name(f"{name}.{inside}".strip("."))
    except (ImportError, AttributeError):
        return False
    return True


def test_every_line_of_the_seed_has_its_row_in_the_seeds_order() -> None:
    assert list(dict.fromkeys(row.section for row in ROWS)) == list(LINES)
    assert Counter(row.section for row in ROWS) == LINES


def test_the_counts_of_the_intro_are_right() -> None:
    told = {state: int(count) for state, count in re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE)}
    assert told == {"works": len(BUILT), "later": len(PLANNED), "replaced": len(REPLACED)}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_states_are_of_the_closed_set(row: Row) -> None:
    assert STATE.fullmatch(row.state)
    assert row.places


@pytest.mark.parametrize("row", BUILT, ids=str)
def test_what_works_is_there_and_shown(row: Row) -> None:
    assert all(there(place, row.methods) for place in row.places)
    assert row.tests
    for test in row.tests:
        assert re.fullmatch(r"tests/(\w+/)*test_\w+\.py", test)
        assert (ROOT / test).is_file()


@pytest.mark.parametrize("row", PLANNED, ids=str)
def test_what_is_planned_is_not_there_yet(row: Row) -> None:
    # a promise that has been kept must not go on being called one
    assert not row.tests
    for place in row.places:
        assert "/" in place or MODULE.fullmatch(place)
        assert not there(place, row.methods), f"{place} is there: say works, and which test shows it"


@pytest.mark.parametrize("row", REPLACED, ids=str)
def test_what_is_replaced_has_a_reason(row: Row) -> None:
    match = STATE.fullmatch(row.state)
    assert match
    assert list((ROOT / "docs" / "adr").glob(f"{match[1]}-*.md"))
    assert all((ROOT / path).exists() for path in (*row.places, *row.tests))


def test_the_directives_name_what_is_there() -> None:
    laws = re.findall(r"^\| (\d)\. (.*)$", TEXT, re.MULTILINE)
    assert [number for number, _ in laws] == ["1", "2", "3", "4", "5", "6"]
    for number, law in laws:
        paths = [path for path in QUOTED.findall(law) if path.startswith(("src/", "tests/"))]
        assert any(path.startswith("tests/") for path in paths), number
        assert all((ROOT / path).exists() for path in paths), number


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == sorted(path.name for path in folder.glob("[0-9]*.md"))


@pytest.mark.parametrize(
    ("place", "methods", "expected"),
    [
        ("src/anvil/cortex/db_interface.py", ["CortexDB.push_card"], True),
        ("src/anvil/cortex/db_interface.py", ["CortexDB.no_such"], False),
        ("src/anvil/microjson/__init__.py", ["MicroJSON.encode"], True),
        ("src/anvil/recipes/monolith/iso.py", [], True),
        ("src/anvil/none.py", [], False),
        ("anvil.microjson.codec", [], True),
        ("anvil.microjson.codec", ["MicroJSON.no_such"], False),
        ("anvil.none", [], False),
    ],
)
def test_the_eye_of_these_tests(place: str, methods: list[str], *, expected: bool) -> None:
    assert there(place, methods) is expected
