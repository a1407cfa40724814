"""What was: the cards of earlier forges, what their keys are made of, and how long they took."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from anvil.cortex.queries import sql
from anvil.cortex.records import ForgeRun, Noted, PastCard, Run
from anvil.cortex.store import Store, json_list
from anvil.microjson.codec import canonical, parse_canonical
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anvil.cortex.connection import Row

_FORGE = ("id", "deck", "recipe", "started", "ended", "verdict", "machine")
_BODY_LIMIT = 64 * 1024 * 1024


class History(Store):
    """Remembering, and looking back; nothing here decides what runs."""

    def note_identity(self, noted: Noted) -> None:
        """Remember what a key is the hash of; of one that is known, where its parts come from now."""
        parameters = {
            "key": noted.key,
            "card": noted.card,
            "body": noted.body,
            "origins": noted.origins,
            "now": self._clock.utc_us(),
        }
        with self._db.transaction():
            self._db.change(sql("note_identity"), parameters)

    def identities(self, key: str, card: str) -> list[Noted]:
        """What a key is known to be the hash of: first as that card was given it, then as others were."""
        rows = self._db.rows(sql("identities_of_key"), {"key": key, "card": card})
        return [Noted(key=key, card=row[0], body=row[1], origins=row[2]) for row in rows]

    def note_pins(self, pins: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember what digests stand for; the first word on a digest stays."""
        now = self._clock.utc_us()
        with self._db.transaction():
            for digest, body in pins.items():
                text = canonical(dict(body), max_bytes=_BODY_LIMIT).decode()
                self._db.change(sql("note_pin"), {"digest": digest, "body": text, "now": now})

    def pin(self, digest: str) -> dict[str, Any] | None:
        """What a digest stands for."""
        body = self._db.value(sql("pin"), {"digest": digest})
        return None if body is None else dict(parse_canonical(body, max_bytes=_BODY_LIMIT))

    def past_cards(self, deck: str) -> list[PastCard]:
        """The cards of a forge's deck as they are or were last, whether on the stack or not."""
        return [_past(row) for row in self._db.rows(sql("past_of_deck"), {"deck": deck})]

    def past_of_card(self, card: str, limit: int = 100) -> list[PastCard]:
        """When a card was punched or jammed in forges, newest first; without ``ret`` for those off the stack."""
        return [_past(row) for row in self._db.rows(sql("past_of_card"), {"card": card, "limit": limit})]

    def forge_of(self, deck: str) -> ForgeRun | None:
        """The forge that a deck was of."""
        row = self._db.row(sql("forge_of_deck"), {"deck": deck})
        return ForgeRun(**dict(zip(_FORGE, row, strict=True))) if row else None

    def forgotten(self, key: str) -> int:
        """When the result of a key was forgotten last, microseconds UTC; 0 if never."""
        return int(self._db.value(sql("forgotten"), {"key": key}) or 0)

    def runs(self, cards: Iterable[str]) -> dict[str, list[Run]]:
        """How long those of the card ids took that ever ran, newest first."""
        rows = self._db.rows(sql("runs"), {"cards": json_list(sorted(set(cards)))})
        return {
            card: [Run(key=row[1], milliseconds=row[2], at=row[3]) for row in runs]
            for card, runs in groupby(rows, key=lambda row: str(row[0]))
        }


def _past(row: Row) -> PastCard:
    return PastCard(
        deck=row[0],
        id=row[1],
        seq=row[2],
        op=row[3],
        key=row[4],
        stat=Status(row[5]),
        ran=bool(row[6]),
        milliseconds=row[7],
        at=row[8],
        ret=row[9],
    )
