"""A project's own lock over a profile's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anvil.errors import RecipeError
from anvil.model.lock import Source, SourceLock
from anvil.sources import lockfile
from anvil.sources.overlay import lay_over, with_source, without_source

from .misbehaving_server import pin

if TYPE_CHECKING:
    from pathlib import Path


def source(name: str, version: str = "1") -> Source:
    return Source(name=name, version=version, licence="MIT", files=(pin(f"pool/{name}", version.encode()),))


PROFILE = SourceLock(profile="debian", resolved="2026-01-02", sources={"zlib": source("zlib"), "musl": source("musl")})
OWN = SourceLock(profile="project", resolved="2026-03-04", sources={"hello": source("hello")})


def test_a_projects_sources_stand_beside_the_profiles() -> None:
    found = lay_over(PROFILE, OWN, "sources.json")
    assert list(found.sources) == ["hello", "musl", "zlib"]
    assert (found.profile, found.resolved) == ("debian", "2026-01-02")


def test_a_name_in_both_is_explained_unless_it_is_said_to_replace() -> None:
    both = with_source(OWN, replace(OWN, sources={"zlib": source("zlib", "9")}))
    with pytest.raises(
        RecipeError, match=r"'zlib' is in the project's lock \(9\) and in profile debian \(1\)"
    ) as told:
        lay_over(PROFILE, both, "sources.json")
    assert "anvil sources remove zlib" in told.value.hint
    assert "--replace" in told.value.hint
    found = lay_over(PROFILE, replace(both, replaces=frozenset({"zlib"})), "sources.json")
    assert found.sources["zlib"].version == "9"


def test_adding_and_taking_out() -> None:
    added = with_source(OWN, SourceLock(profile="project", resolved="2026-05-06", sources={"zlib": source("zlib")},
                                        replaces=frozenset({"zlib"})))  # fmt: skip
    assert (list(added.sources), added.resolved, added.replaces) == (
        ["hello", "zlib"],
        "2026-05-06",
        frozenset({"zlib"}),
    )
    again = with_source(added, SourceLock(profile="project", resolved="2026-01-01", sources={"zlib": source("zlib")}))
    assert (again.resolved, again.replaces) == ("2026-05-06", frozenset())
    assert without_source(added, "zlib") == replace(OWN, resolved="2026-05-06")


def test_what_replaces_is_written_and_read_back(tmp_path: Path) -> None:
    lock = replace(OWN, replaces=frozenset({"hello"}))
    lockfile.write_source_lock(lock, tmp_path / "sources.json")
    assert lockfile.read_source_lock(tmp_path / "sources.json") == lock
    text = (tmp_path / "sources.json").read_text(encoding="utf-8")
    for wrong in ('["other"]', '["hello", "hello"]', "[1]", '"hello"'):
        (tmp_path / "sources.json").write_text(text.replace('[\n    "hello"\n  ]', wrong), encoding="utf-8")
        with pytest.raises(RecipeError, match="replaces"):
            lockfile.read_source_lock(tmp_path / "sources.json")
