"""MicroJSON: canonical, compact, strict JSON (RFC 8785's bytes over a smaller set of values).

Values: None, bool, int within ±(2**53 - 1), str, list, dict with str keys; encoding also takes a tuple (as a list) and
a member of an IntEnum or StrEnum (as its number or text). Floats, other subclasses, bytes, sets and Decimal are
refused. The bytes taken are exactly those that encoding gives: ``canonical(parse_canonical(b)) == b``.

Two paths, one verdict. The plain path (``plain``, the standard library) is the definition and the only one that
refuses. The fast path here (orjson) may only accept, and only where it can show that its bytes are the plain path's;
in doubt it steps aside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from anvil.microjson.plain import (
    MAX_BYTES,
    MAX_DEPTH,
    MicroJSONError,
    check_size,
    plain_bytes,
    plain_value,
    refuse,
    shown,
)
from anvil.microjson.registry import MessageID

try:
    from anvil.microjson._walk import count_plain, frame_id, write_message
except ImportError:  # no C compiler where Anvil was installed, or the python3 of a cell
    from anvil.microjson.walk import count_plain, frame_id, write_message

try:
    import orjson
except ImportError:  # the python3 of a cell has none: the plain path is complete
    orjson = None  # type: ignore[assignment]

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MicroJSON", "MicroJSONError", "canonical", "parse_canonical"]

_IDS = frozenset(int(member) for member in MessageID)


class MicroJSON:
    """The codec of messages: exactly ``{"@ID": int, "data": value}``, with an ID of the closed registry."""

    @staticmethod
    def encode(payload: Mapping[str, object], *, max_bytes: int = MAX_BYTES) -> bytes:
        """The canonical bytes of a message.

        Raises MicroJSONError: a key missing or too many, an ID that is not registered, a value that MicroJSON has no
        form for, nesting beyond 64 (the message's own object counts), more than ``max_bytes``.
        """
        if orjson is not None:
            encoded = write_message(payload, MAX_DEPTH, max_bytes, _IDS, orjson.dumps, _OPTIONS)
            if encoded is not None:
                return encoded
        return canonical(_framed(payload), max_bytes=max_bytes)

    @staticmethod
    def decode(payload: bytes | str, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
        """The message that these bytes are: ``{"@ID": int, "data": value}``.

        Raises MicroJSONError on anything that ``encode`` would not have written, byte for byte.
        """
        if orjson is not None and type(payload) is bytes and len(payload) <= max_bytes and payload.isascii():
            # Written out for the ordinary message: a call costs a third of what orjson takes.
            try:
                message: dict[str, Any] = orjson.loads(payload)
                if (
                    frame_id(message, MAX_DEPTH, max_bytes) in _IDS
                    and orjson.dumps(message, None, _OPTIONS) == payload
                ):
                    return message
            except (orjson.JSONDecodeError, orjson.JSONEncodeError):
                pass
        return _framed(parse_canonical(payload, max_bytes=max_bytes))

    @staticmethod
    def message(number: int, data: object, *, max_bytes: int = MAX_BYTES) -> bytes:
        """The canonical bytes of the message with this ID (a MessageID or its number); raises as ``encode`` does."""
        return MicroJSON.encode({"@ID": _unnamed(number), "data": data}, max_bytes=max_bytes)


def canonical(value: object, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The RFC 8785 bytes of any MicroJSON value.

    Raises MicroJSONError: a value that MicroJSON has no form for, nesting beyond 64, more than ``max_bytes``.
    """
    encoded = _fast_bytes(value, max_bytes)
    return plain_bytes(value, max_bytes) if encoded is None else encoded


def parse_canonical(data: bytes | str, *, max_bytes: int = MAX_BYTES) -> Any:
    """The value whose canonical bytes these are; a str is taken as its UTF-8.

    Raises MicroJSONError: not JSON, not canonical (white space, order, escapes, a key twice, -0), a float, an integer
    beyond ±(2**53 - 1), a lone surrogate, not UTF-8, nesting beyond 64, more than ``max_bytes``.
    """
    raw = data if type(data) is bytes else _raw(data, max_bytes)
    if orjson is not None and len(raw) <= max_bytes:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return plain_value(raw, max_bytes)
        # orjson takes more than we do (a key twice, any order, white space): only this comparison accepts.
        if _fast_bytes(value, max_bytes) == raw:
            return value
    return plain_value(raw, max_bytes)


def _raw(data: object, max_bytes: int) -> bytes:
    if isinstance(data, bytes):
        return bytes(data)
    if not isinstance(data, str):
        refuse(f"MicroJSON is read from bytes or str, not {type(data).__name__}")
    check_size(len(data), max_bytes)
    try:
        return data.encode()
    except UnicodeEncodeError as error:
        refuse("the text has a lone surrogate, and so no UTF-8 form", f"character {error.start}")


def _unnamed(number: object) -> object:
    # A plain int keeps the message on the fast path.
    return int(number) if type(number) is MessageID else number


def _framed(message: object) -> dict[str, Any]:
    """The message as a dict with a plain ID; raises MicroJSONError that says what is wrong with its frame."""
    if not isinstance(message, Mapping):
        refuse(f"a message is an object with the keys @ID and data, not {type(message).__name__}", "$")
    if missing := [key for key in ("@ID", "data") if key not in message]:
        refuse(f"a message has exactly the keys @ID and data; {missing[0]} is missing", "$")
    if len(message) != 2:
        excess = next(key for key in message if key not in {"@ID", "data"})
        refuse(f"a message has exactly the keys @ID and data; {shown(excess)} is too much", "$")
    number = _unnamed(message["@ID"])
    if type(number) is not int or number not in _IDS:
        refuse(f"{shown(number)} is not an ID of the message registry", '$["@ID"]')
    return {"@ID": number, "data": message["data"]}


_OPTIONS = 0 if orjson is None else orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def _fast_bytes(value: object, max_bytes: int) -> bytes | None:
    """The canonical bytes of ``value``, or None where the plain path must decide.

    Once every type is plain, orjson and RFC 8785 differ in the order of some keys only: orjson itself refuses keys
    that are not exactly str, lone surrogates and integers beyond ±(2**53 - 1), and writes the same escapes.
    """
    # A value takes a byte at least, so this many are enough.
    if orjson is None or not count_plain(value, MAX_DEPTH, max_bytes):
        return None
    try:
        encoded = orjson.dumps(value, None, _OPTIONS)
    except orjson.JSONEncodeError:
        return None
    if len(encoded) > max_bytes or not (encoded.isascii() or _sorts_alike(encoded)):
        return None
    return encoded


# RFC 8785 sorts keys by UTF-16 code units, orjson by UTF-8 bytes, that is, by code points. The two differ only between
# a character above the BMP (F0 to F4 in UTF-8, a surrogate pair in UTF-16) and one of U+E000 to U+FFFF (EE, EF).
_ABOVE_BMP = re.compile(rb"[\xf0-\xf4]")
_ABOVE_SURROGATES = re.compile(rb"[\xee\xef]")


def _sorts_alike(encoded: bytes) -> bool:
    """Whether no such pair of characters is in these bytes (in keys or in texts: the safe side)."""
    return _ABOVE_BMP.search(encoded) is None or _ABOVE_SURROGATES.search(encoded) is None
