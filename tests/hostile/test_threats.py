"""docs/THREATS.md cites tests and attacks by name, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.hostile.registry import all_attacks

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"`(attack|test):([^`]+)`")


@cache
def known() -> frozenset[tuple[str, str]]:
    """Every test function and every attack."""
    names = {("attack", name) for name in all_attacks()}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                names.add(("test", node.name))
    return frozenset(names)


def cited(text: str) -> list[tuple[str, str]]:
    """What a text cites."""
    return CITED.findall(text)


def test_every_name_that_is_cited_exists() -> None:
    found = cited((ROOT / "docs" / "THREATS.md").read_text(encoding="utf-8"))
    assert len(found) > 60
    assert [name for name in found if name not in known()] == []


def test_a_name_that_does_not_exist_would_be_seen() -> None:
    wrong = cited("`attack:no-such-attack` and `test:test_every_name_that_is_cited_exists`")
    assert [name for name in wrong if name not in known()] == [("attack", "no-such-attack")]
