"""What a digest looks like: anything else never becomes part of a path; and what mends a wrong one."""

from __future__ import annotations

MEND = "anvil vault verify --mend, then forge again"
"""The next step after a digest and its bytes disagree."""
_HEX = frozenset("0123456789abcdef")


def is_digest(text: object) -> bool:
    """Whether ``text`` is a sha256 as 64 lower-case hex digits."""
    return isinstance(text, str) and len(text) == 64 and _HEX.issuperset(text)
