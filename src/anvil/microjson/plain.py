"""The plain path: MicroJSON by the standard library alone, and every refusal with its reason and its place.

It defines what MicroJSON is; the fast path of ``codec`` may only agree with it.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, NoReturn

from anvil.errors import AnvilError

MAX_DEPTH = 64
MAX_BYTES = 16 * 1024 * 1024
MAX_INT = 2**53 - 1


class MicroJSONError(AnvilError):
    """A value cannot be MicroJSON, or bytes are not.

    where: a path into the value ("$.data.needs[2]") or an offset into the bytes ("byte 17"), "" if neither is known.
    """


def refuse(message: str, where: str = "") -> NoReturn:
    """Raise the one error of this package."""
    raise MicroJSONError(message, where=where)


def most_values(max_bytes: int) -> int:
    """How many values ``max_bytes`` can hold: each takes a byte at least, and a comma or a bracket beside it."""
    return max_bytes // 2 + 1


def check_size(size: int, max_bytes: int) -> None:
    """Raise MicroJSONError when ``size`` bytes are more than the cap."""
    if size > max_bytes:
        refuse(f"{size} bytes of MicroJSON are over the cap of {max_bytes}")


_write = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode


def plain_bytes(value: object, max_bytes: int) -> bytes:
    """The canonical bytes of a value; raises MicroJSONError."""
    encoded = _write(_Tidier(most_values(max_bytes)).tidy(value)).encode()
    check_size(len(encoded), max_bytes)
    return encoded


def plain_value(raw: bytes, max_bytes: int) -> Any:
    """The value whose canonical bytes ``raw`` is; raises MicroJSONError."""
    check_size(len(raw), max_bytes)
    if raw.startswith(b"\xef\xbb\xbf"):
        refuse("MicroJSON has no byte order mark", "byte 0")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        refuse(f"not UTF-8: {error.reason}", f"byte {error.start}")
    if _nests_too_deep(raw):
        refuse(f"nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        refuse(f"not JSON: {error.msg}", f"byte {len(text[: error.pos].encode())}")
    again = plain_bytes(value, max_bytes)
    if again != raw:
        at = next((i for i, (a, b) in enumerate(zip(again, raw, strict=False)) if a != b), min(len(again), len(raw)))
        want, have = again[at : at + 16] or b"the end", raw[at : at + 16] or b"the end"
        refuse(f"not the canonical bytes of what they say: {want!r} should be where {have!r} is", f"byte {at}")
    return value


def shown(value: object) -> str:
    """A value's text for an error: escaped, short, and safe for any value."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 40 else value[:40] + "…")
    if type(value) is int and abs(value) <= 2**64:
        return str(value)
    return type(value).__name__


class _Tidier:
    """One walk over a value that is to be written; keeps the path for errors and counts against what unfolds."""

    def __init__(self, most: int) -> None:
        self.trail: list[str | int] = []
        self.left = most

    def tidy(self, value: object) -> object:
        """The value as exact types, with keys in RFC 8785's order, which the json module then keeps."""
        # A small graph of shared lists can unfold into an endless tree.
        self.left -= 1
        if self.left < 0:
            refuse("the value has more parts than the cap on bytes can hold")
        if value is None or type(value) is bool:
            return value
        if type(value) is dict:
            return self._dict(value)
        if type(value) is list or type(value) is tuple:
            return self._list(value)
        # Members of these enums equal their number or text, so decode(encode(v)) == v holds; other subclasses may
        # mean more than what would be written.
        if type(value) is int or (isinstance(value, Enum) and isinstance(value, int)):
            return self._int(int.__int__(value))
        if type(value) is str or (isinstance(value, Enum) and isinstance(value, str)):
            return self._str(str.__str__(value))
        advice = "use an integer of a smaller unit, or text" if isinstance(value, float) else "convert it first"
        return self._refuse(f"MicroJSON has no {type(value).__name__}: {advice}")

    def _int(self, value: int) -> int:
        if not -MAX_INT <= value <= MAX_INT:
            self._refuse("the integer is beyond ±(2**53 - 1): write it as text")
        return value

    def _str(self, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self._refuse("the text has a lone surrogate, and so no UTF-8 form")
        return value

    def _list(self, value: list[object] | tuple[object, ...]) -> list[object]:
        self._enter()
        result = []
        for index, item in enumerate(value):
            self.trail[-1] = index
            result.append(self.tidy(item))
        self.trail.pop()
        return result

    def _dict(self, value: dict[object, object]) -> dict[str, object]:
        keys = []
        for key in value:
            if type(key) is not str:
                self._refuse(f"a key must be a str, not {type(key).__name__} ({shown(key)})")
            keys.append(self._str(key))
        keys.sort(key=_utf16)
        self._enter()
        result = {}
        for key in keys:
            self.trail[-1] = key
            result[key] = self.tidy(value[key])
        self.trail.pop()
        return result

    def _enter(self) -> None:
        if len(self.trail) == MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} deep")
        self.trail.append(0)

    def _refuse(self, message: str) -> NoReturn:
        refuse(message, "$" + "".join(map(_step, self.trail)))


def _step(step: str | int) -> str:
    if isinstance(step, str) and step.isascii() and step.isidentifier() and len(step) <= 40:
        return f".{step}"
    return f"[{shown(step)}]"


def _utf16(key: str) -> bytes:
    # RFC 8785, 3.2.3: keys are sorted by their UTF-16 code units, which big-endian bytes sort like.
    return key.encode("utf-16-be")


def _integer(digits: str) -> int:
    # Longer than -(2**53 - 1) is out of range whatever it says, and must not cost the time of a huge conversion.
    return int(digits) if len(digits) <= 17 else 2**53


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        refuse(f"the key {shown(twice)} is there twice in one object")
    return result


# A text, or the rest from a quote that is never closed; possessive, so the time is linear whatever comes in.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _nests_too_deep(raw: bytes) -> bool:
    """Whether the part of ``raw`` that a parser would read nests beyond the cap.

    Judged before the json module parses, which recurses in C: a process with a raised recursion limit would crash.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _TEXT.sub(b"", raw).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
