"""Migrations: in order, all or nothing, copied before, never changed, never backwards."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from anvil.cortex import schema, store
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.schema import FOLDER, Migration, known, pending
from anvil.errors import DatabaseRefused, DiskFull

if TYPE_CHECKING:
    from pathlib import Path

ONE = Migration(component="a", number=1, name="one", text="CREATE TABLE one (x);", digest="d1")
TWO = replace(ONE, number=2, name="two", text="CREATE TABLE two (x);", digest="d2")


def with_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str) -> tuple[Migration, ...]:
    """The real migrations and one more."""
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(text)
    known.cache_clear()
    changed = known(str(folder))
    monkeypatch.setattr(store, "known", lambda: changed)
    return changed


def make(path: Path) -> None:
    with CortexDB(path) as db:
        db.push_card("a", "run", "{}")


def test_series_are_numbered_without_gaps() -> None:
    series: dict[str, list[int]] = {}
    for each in known():
        series.setdefault(each.component, []).append(each.number)
    assert {"cards", "ledger", "results", "forges", "facts"} <= set(series)
    for numbers in series.values():
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_ledger_comes_first_then_by_name() -> None:
    order = [(each.component != "ledger", each.component, each.number) for each in known()]
    assert all(before < after for before, after in pairwise(order))


def test_pending() -> None:
    assert pending([ONE, TWO], []) == [ONE, TWO]
    assert pending([ONE, TWO], [("a", 1, "d1")]) == [TWO]
    assert pending([ONE], [("a", 1, "d1")]) == []
    with pytest.raises(DatabaseRefused, match="newer Anvil"):
        pending([ONE], [("a", 1, "d1"), ("a", 2, "d2")])
    with pytest.raises(DatabaseRefused, match="newer Anvil"):
        pending([ONE], [("b", 1, "d1")])
    with pytest.raises(DatabaseRefused, match="not the one"):
        pending([ONE], [("a", 1, "other")])


def test_a_new_migration_copies_the_database_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cortex.db"
    make(path)
    with_migration(tmp_path, monkeypatch, "spy/001_files.sql", "CREATE TABLE files (path TEXT) STRICT;")
    with CortexDB(path) as db:
        assert db._db.value("SELECT count(*) FROM files") == 0
        assert db.card("", "a") is not None
    copy = sqlite3.connect(tmp_path / "cortex.db.before-spy-001")
    assert copy.execute("SELECT id FROM card_stack").fetchall() == [("a",)]
    assert not copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchall()
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    before = sorted(tmp_path.iterdir())
    CortexDB(path).close()
    assert sorted(tmp_path.iterdir()) == before


def test_a_new_database_is_not_copied(tmp_path: Path) -> None:
    make(tmp_path / "cortex.db")
    assert not list(tmp_path.glob("*before*"))


def test_a_failing_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cortex.db"
    make(path)
    real = known()
    text = "CREATE TABLE half (x TEXT) STRICT; INSERT INTO half SELECT 1 FROM nowhere;"
    with_migration(tmp_path, monkeypatch, "spy/001_files.sql", text)
    with pytest.raises(Exception, match="nowhere"):
        CortexDB(path)
    monkeypatch.setattr(store, "known", lambda: real)
    with CortexDB(path) as db:
        schema.verify_schema(db._db, real)
        assert db.card("", "a") is not None


def test_a_copy_that_does_not_fit_stops_the_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cortex.db"
    make(path)
    with_migration(tmp_path, monkeypatch, "spy/001_files.sql", "CREATE TABLE files (path TEXT) STRICT;")

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("anvil.cortex.disk.Disk.sync", no_room)
        with pytest.raises(DiskFull):
            CortexDB(path)
    assert not list(tmp_path.glob("*before*"))
    plain = sqlite3.connect(path)
    assert not plain.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchall()
    plain.close()


def test_a_newer_cortex_is_refused_and_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cortex.db"
    real = known()
    with monkeypatch.context() as newer:
        with_migration(tmp_path, newer, "cards/777_future.sql", "CREATE TABLE future (x TEXT) STRICT;")
        make(path)
    assert known() == real
    content = path.read_bytes()
    with pytest.raises(DatabaseRefused, match="newer Anvil") as caught:
        CortexDB(path)
    assert caught.value.where == str(path)
    assert path.read_bytes() == content


def test_a_changed_migration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cortex.db"
    make(path)
    with open(f"{FOLDER}/facts/001_facts.sql", encoding="utf-8") as file:
        text = file.read()
    with_migration(tmp_path, monkeypatch, "facts/001_facts.sql", text + "-- a word more\n")
    with pytest.raises(DatabaseRefused, match="facts 001 is not the one"):
        CortexDB(path)


def test_a_misnamed_migration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "1-first.sql").write_text("")
    with pytest.raises(DatabaseRefused, match="NNN_name"):
        known(str(tmp_path))


def test_several_processes_make_one_database_at_once(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from anvil.cortex.db_interface import CortexDB\n"
        "with CortexDB(sys.argv[1]) as db: db.push_card(sys.argv[2], 'run', '{}')\n"
    )
    path = tmp_path / "cortex.db"
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(path), f"c{index}"], stderr=subprocess.PIPE)
        for index in range(6)
    ]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors.decode()
    with CortexDB(path) as db:
        assert sorted(card.id for card in db.cards("")) == [f"c{index}" for index in range(6)]
        assert db.verify_ledger() == 6
