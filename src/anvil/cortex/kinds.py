"""Kinds of ledger events: MicroJSON message IDs. The triggers in ``migrations/`` write the same numbers."""

from __future__ import annotations

from enum import IntEnum


class EventKind(IntEnum):
    """What happened. 100-199 life cycle, 200-299 jobs, 500-599 errors."""

    FORGE_STARTED = 110
    FORGE_ENDED = 111
    CARD_PUSHED = 200
    CARD_CLAIMED = 201
    CARD_PUNCHED = 202
    CARD_RELEASED = 203
    CARD_RETRIED = 204
    CARD_APPROVED = 205
    CARD_CLEARED = 206
    RESULT_KEPT = 210
    RESULT_FORGOTTEN = 211
    CARD_JAMMED = 520
