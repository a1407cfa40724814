"""Bringing a database to the schema this Anvil knows: numbered SQL files, one series per component."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import apsw

from anvil.cortex.queries import sql
from anvil.cortex.sqlite_errors import RESTORE
from anvil.errors import DatabaseRefused, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anvil.cortex.clock import Clock
    from anvil.cortex.connection import Connection, Row

# "Anvl": tells a cortex from any other SQLite file.
APPLICATION_ID = 0x416E766C
FOLDER = os.path.join(os.path.dirname(__file__), "migrations")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file: ``component/NNN_name.sql``. digest: sha256 of its text, hex."""

    component: str
    number: int
    name: str
    text: str
    digest: str


@cache
def known(folder: str = FOLDER) -> tuple[Migration, ...]:
    """All migrations of ``folder`` in the order in which they are applied."""
    found = [
        _read(component, os.path.join(folder, component, file))
        for component in os.listdir(folder)
        if os.path.isdir(os.path.join(folder, component))
        for file in os.listdir(os.path.join(folder, component))
        if file.endswith(".sql")
    ]
    # The ledger first: triggers of the others write into it.
    return tuple(sorted(found, key=lambda each: (each.component != "ledger", each.component, each.number)))


def _read(component: str, path: str) -> Migration:
    match = re.fullmatch(r"(\d{3})_([a-z0-9_]+)\.sql", os.path.basename(path))
    if match is None:
        raise DatabaseRefused("a migration's file name is not NNN_name.sql", where=path)
    with open(path, "rb") as file:
        content = file.read()
    return Migration(
        component=component,
        number=int(match[1]),
        name=match[2],
        text=content.decode(),
        digest=hashlib.sha256(content).hexdigest(),
    )


def pending(migrations: Sequence[Migration], applied: Iterable[tuple[str, int, str]]) -> list[Migration]:
    """Which of ``migrations`` a database that has ``applied`` (component, number, digest) lacks.

    Raises DatabaseRefused if the database has one that is not known (it was made by a newer Anvil) or one whose text
    was another.
    """
    texts = {(each.component, each.number): each.digest for each in migrations}
    seen = set()
    for component, number, digest in applied:
        seen.add((component, number))
        if (component, number) not in texts:
            raise DatabaseRefused(
                f"the cortex was made by a newer Anvil: it has {component} {number:03d}, which this one does not know",
                hint="use the newer Anvil, or choose another home with --home DIR",
            )
        if texts[component, number] != digest:
            raise DatabaseRefused(
                f"migration {component} {number:03d} is not the one this cortex was made with",
                hint="restore the file (git checkout), and put changes into a migration with the next number",
            )
    return [each for each in migrations if (each.component, each.number) not in seen]


def migrate(db: Connection, migrations: Sequence[Migration], clock: Clock) -> None:
    """Bring the database up to ``migrations``. One that has data is copied first, beside itself.

    All of it happens in one transaction: a crash leaves the old schema.
    """
    if _missing(db, migrations):
        with db.exclusive():  # looked at again inside: another process may have done it meanwhile
            missing = _missing(db, migrations)
            if missing and not _is_fresh(db):
                last = missing[-1]
                db.copy_to(f"{db.path}.before-{last.component}-{last.number:03d}")
            with db.transaction():
                for each in missing:
                    _apply(db, each, clock)


def _missing(db: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    try:
        if _is_fresh(db):
            return list(migrations)
        if db.value("PRAGMA application_id") != APPLICATION_ID:
            raise DatabaseRefused("this SQLite file is not a cortex", hint="choose another home with --home DIR")
        return pending(migrations, [(row[0], row[1], row[2]) for row in db.rows(sql("applied_migrations"))])
    except DatabaseRefused as error:
        error.where = error.where or db.path
        raise


def _is_fresh(db: Connection) -> bool:
    return not db.value("SELECT count(*) FROM sqlite_schema")


def _apply(db: Connection, migration: Migration, clock: Clock) -> None:
    if _is_fresh(db):
        db.rows(f"PRAGMA application_id={APPLICATION_ID}")
        db.rows(sql("create_migrations"))
    db.rows(migration.text)
    db.rows(
        sql("record_migration"),
        {
            "component": migration.component,
            "number": migration.number,
            "name": migration.name,
            "digest": migration.digest,
            "applied": clock.utc_us(),
        },
    )


def verify_schema(db: Connection, migrations: Sequence[Migration]) -> None:
    """Raise IntegrityError if a table, index or trigger is not as the migrations make it (a seal was taken off)."""
    model = apsw.Connection(":memory:")
    try:
        for text in (sql("create_migrations"), *(each.text for each in migrations)):
            model.execute(text)
        expected = dict(map(_pair, model.execute(sql("schema"))))
    finally:
        model.close()
    actual = dict(map(_pair, db.rows(sql("schema"))))
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            state = "is missing" if name not in actual else "is foreign" if name not in expected else "was changed"
            raise IntegrityError(f"the schema was tampered with: {name} {state}", where=db.path, hint=RESTORE)


def _pair(row: Row) -> tuple[str, str]:
    return row[0], row[1]
