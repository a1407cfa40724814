"""Kinds of ledger events: MicroJSON message IDs. The triggers in ``migrations/`` write the same numbers."""

from __future__ import annotations

from enum import IntEnum


class EventKind(IntEnum):
    """What happened, by the names and numbers of ``anvil.microjson.registry``."""

    FORGE_STARTED = 100
    FORGE_ENDED = 101
    CARD_CLEARED = 106
    CARD_CLAIMED = 110
    CARD_PUNCHED = 112
    LEASE_RECLAIMED = 115
    CARD_CANCELLED = 116
    CARD_PUSHED = 117
    CARD_RETRIED = 118
    CARD_APPROVED = 119
    RESULT_KEPT = 121
    RESULT_FORGOTTEN = 122
    CARD_JAM = 520
