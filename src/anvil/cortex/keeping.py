"""What is kept, when it was last of use, and what must stay: for the garbage collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cortex.queries import sql
from anvil.cortex.records import DeckState, KeptResult, Release
from anvil.cortex.store import Store, card_of, json_list
from anvil.microjson.codec import parse_canonical

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anvil.cortex.connection import Row
    from anvil.model.card import Card

_COARSE_US = 3600 * 1_000_000
"""A use is noted once in an hour, so that a forge with nothing to do writes nothing."""


class Keeping(Store):
    """Uses, releases, and everything that refers to something."""

    def touch(self, keys: Sequence[str]) -> None:
        """Note that these results, where they are kept, are of use now."""
        now = self._clock.utc_us()
        stale = [
            row[0] for row in self._db.rows(sql("stale_uses"), {"keys": json_list(keys), "stale": now - _COARSE_US})
        ]
        if stale:
            with self._db.transaction():
                self._db.change(sql("touch"), {"keys": json_list(stale), "now": now})

    def kept_results(self) -> list[KeptResult]:
        """Every kept result."""
        names = ("key", "card", "ret", "created", "used")
        return [KeptResult(**dict(zip(names, row, strict=True))) for row in self._db.rows(sql("kept_results"))]

    def forget_results(self, keys: Collection[str], *, unused_since: int) -> int:
        """Forget these results in one transaction, but for those that a card has or that are younger; how many.

        unused_since: microseconds UTC; what was made or of use later is younger.
        """
        with self._db.transaction():
            return self._db.change(sql("forget_results"), {"keys": json_list(sorted(keys)), "since": unused_since})

    def all_cards(self) -> list[Card]:
        """Every card on the stack, whatever its deck."""
        return [card_of(row) for row in self._db.rows(sql("all_cards"))]

    def decks(self) -> list[DeckState]:
        """The decks that have cards on the stack."""
        rows = self._db.rows(sql("decks"))
        return [DeckState(deck=row[0], claimed=bool(row[1]), jammed=bool(row[2])) for row in rows]

    def note_release(self, release: Release) -> None:
        """Remember what the artifact at a path was made from, in place of the one before; nothing when it is known."""
        row = self._db.row(sql("release"), {"path": release.path})
        if row is not None and _release(row) == release:
            return
        parameters = {
            "path": release.path,
            "sha256": release.sha256,
            "size": release.size,
            "keys": json_list(release.keys),
            "blobs": json_list(release.blobs),
            "images": json_list(release.images),
            "now": self._clock.utc_us(),
        }
        with self._db.transaction():
            self._db.change(sql("note_release"), parameters)

    def releases(self) -> list[Release]:
        """What was put at each path last."""
        return [_release(row) for row in self._db.rows(sql("releases"))]

    def old_decks(self, before: int) -> tuple[int, int]:
        """How many evaluated decks are older than a moment (microseconds UTC), and their bytes."""
        row = self._db.row(sql("old_decks"), {"before": before})
        return (row[0], row[1]) if row else (0, 0)

    def forget_decks(self, before: int) -> int:
        """Forget the evaluated decks that are older; they are evaluated again when they are wanted."""
        with self._db.transaction():
            return self._db.change(sql("forget_decks"), {"before": before})


def _release(row: Row) -> Release:
    lists = [tuple(parse_canonical(text, max_bytes=1 << 30)) for text in row[3:]]
    return Release(path=row[0], sha256=row[1], size=row[2], keys=lists[0], blobs=lists[1], images=lists[2])
