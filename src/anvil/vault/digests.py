"""What a digest looks like: anything else never becomes part of a path."""

from __future__ import annotations

_HEX = frozenset("0123456789abcdef")


def is_digest(text: object) -> bool:
    """Whether ``text`` is a sha256 as 64 lower-case hex digits."""
    return isinstance(text, str) and len(text) == 64 and _HEX.issuperset(text)
