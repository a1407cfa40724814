"""The bytes that chain the ledger's events; nothing here touches the database.

::

    hash = SHA-256( "anvil ledger event 1" 0x00
                  | prev   32 bytes, the hash of the event before; zeros for the first
                  | seq    8 bytes, signed, big-endian, as the next three
                  | at_us  8 bytes
                  | kind   8 bytes
                  | size   8 bytes, the length of body in bytes
                  | body   UTF-8 )
"""

from __future__ import annotations

import hashlib
import struct

DOMAIN = b"anvil ledger event 1\0"
GENESIS = bytes(32)
_HEAD = struct.Struct(">32sqqqq")


def event_hash(prev: bytes, seq: int, at_us: int, kind: int, body: str) -> bytes:
    """The 32 bytes that name an event and everything before it. ``prev`` must be 32 bytes."""
    if len(prev) != 32:
        raise ValueError("an event's prev is 32 bytes")
    text = body.encode()
    return hashlib.sha256(DOMAIN + _HEAD.pack(prev, seq, at_us, kind, len(text)) + text).digest()


def text_hash(text: str) -> str:
    """sha256 of a text's UTF-8, hex; "" for the empty text."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
