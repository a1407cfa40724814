"""Runs of the forge, decks by digest, and small facts."""

from __future__ import annotations

from anvil.cortex.queries import sql
from anvil.cortex.records import ForgeRun
from anvil.cortex.store import Store
from anvil.errors import UsageError


class Forges(Store):
    """History and memory."""

    def begin_forge(self, id: str, *, deck: str, recipe: str, machine: str = "{}") -> None:  # noqa: A002
        """Note that a forge started. machine: a description, JSON text.

        Raises IntegrityError if there is a forge of that id already.
        """
        parameters = {"id": id, "deck": deck, "recipe": recipe, "machine": machine, "now": self._clock.utc_us()}
        with self._db.transaction():
            self._db.change(sql("begin_forge"), parameters)

    def end_forge(self, id: str, *, verdict: str) -> None:  # noqa: A002
        """Note how a forge ended: done, jammed, interrupted or killed. Raises UsageError if it is not running."""
        with self._db.transaction():
            if not self._db.change(sql("end_forge"), {"id": id, "verdict": verdict, "now": self._clock.utc_us()}):
                raise UsageError("there is no such running forge", where=id)

    def forges(self, limit: int = 12) -> list[ForgeRun]:
        """The last ``limit`` forges, newest first."""
        names = ("id", "deck", "recipe", "started", "ended", "verdict", "machine")
        rows = self._db.rows(sql("forges"), {"limit": limit})
        return [ForgeRun(**dict(zip(names, row, strict=True))) for row in rows]

    def put_deck(self, digest: str, content: bytes) -> None:
        """Keep an evaluated deck under the digest of what it was evaluated from."""
        with self._db.transaction():
            self._db.change(sql("put_deck"), {"digest": digest, "content": content, "now": self._clock.utc_us()})

    def get_deck(self, digest: str) -> bytes | None:
        """A kept deck."""
        content = self._db.value(sql("get_deck"), {"digest": digest})
        return None if content is None else bytes(content)

    def set_fact(self, name: str, value: str) -> None:
        """Remember a small thing; the last value stays."""
        with self._db.transaction():
            self._db.change(sql("set_fact"), {"name": name, "value": value, "now": self._clock.utc_us()})

    def fact(self, name: str) -> str | None:
        """What is remembered under ``name``."""
        value = self._db.value(sql("fact"), {"name": name})
        return None if value is None else str(value)
