"""Whether the SQLite in use is one for a cortex: its version, and that it does what the statements ask of it."""

from __future__ import annotations

import apsw

from anvil.cortex.connection import refuse_version
from anvil.errors import DatabaseRefused

_TRIAL = (
    "CREATE TABLE t (a TEXT NOT NULL PRIMARY KEY CHECK (json_valid(a)), b INTEGER) STRICT, WITHOUT ROWID",
    "INSERT INTO t VALUES (json_object('x', 1), 2) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING b",
    "SELECT b FROM t WHERE b IN (SELECT value FROM json_each('[1, 2]'))",
)
"""What the migrations and queries are written in: STRICT (3.37), RETURNING (3.35), WITHOUT ROWID, upserts and JSON,
which may be compiled out."""


def sqlite_in_use() -> str:
    """The version of the SQLite that the cortex would use, and how it is built in a few words.

    Raises DatabaseRefused for one that must not touch a cortex.
    """
    version = apsw.sqlite_lib_version()
    refuse_version(version)
    trial = apsw.Connection(":memory:")
    try:
        for statement in _TRIAL:
            trial.execute(statement).fetchall()
    except apsw.Error as error:
        raise DatabaseRefused(
            f"SQLite {version} lacks what the cortex needs: {error}", where=apsw.__file__ or "apsw", hint="make setup"
        ) from error
    finally:
        trial.close()
    if not {"THREADSAFE=1", "THREADSAFE=2"}.intersection(apsw.compile_options):
        raise DatabaseRefused(
            f"SQLite {version} is built without threads", where=apsw.__file__ or "apsw", hint="make setup"
        )
    return f"SQLite {version}"
