"""The walk over a value's types that must come before orjson writes it.

orjson makes NaN null, a UUID its text, any Enum its value, and an orjson.Fragment whatever it holds, silently: no
option forbids it, and nothing in its output tells. ``_walk.c`` has the same functions, which give the same answers in
a tenth of the time; the codec takes those where they could be built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet


def count_plain(value: object, room: int, most: int) -> int:
    """How many values ``value`` is, itself and all in it; 0 where that is not so.

    0: a type is not plain (exactly None, bool, int, str, dict, list or tuple), containers nest beyond ``room``, or
    there are more than ``most`` values: a small graph can unfold into an endless tree. Keys are not looked at.
    """
    items: Any
    kind = type(value)
    if kind is dict:
        items = value.values()  # type: ignore[attr-defined]
    elif kind is list or kind is tuple:
        items = value
    else:
        return 1 if kind is str or kind is int or kind is bool or value is None else 0
    count = 1 + len(items)
    if not room or count > most:
        return 0
    for item in items:
        kind = type(item)
        if kind is str or kind is int or kind is bool or item is None:
            continue
        if kind is not dict and kind is not list and kind is not tuple:
            return 0
        below = count_plain(item, room - 1, most - count + 1)
        if not below:
            return 0
        count += below - 1
    return count


def frame_id(message: object, room: int, most: int) -> int:
    """The ID of a message: a dict of exactly the keys "@ID", an int, and "data", plain as in ``count_plain``; else 0.

    The message is one of the ``room`` containers; ``most`` is for its data. Whether the ID is registered is not asked.
    """
    if type(message) is not dict or len(message) != 2 or "data" not in message or not room:
        return 0
    number = message.get("@ID")
    return number if type(number) is int and count_plain(message["data"], room - 1, most) else 0


def write_message(
    message: object,
    room: int,
    most: int,
    known: AbstractSet[int],
    dumps: Callable[[object, None, int], bytes],
    options: int,
) -> bytes | None:
    """What ``dumps`` (orjson's) writes for a message, as in ``frame_id``, whose ID is known.

    None: it is no such message, ``dumps`` refuses it, or the bytes are more than ``most`` or not all ASCII.
    """
    if frame_id(message, room, most) not in known:
        return None
    try:
        written = dumps(message, None, options)
    except TypeError:
        return None
    return written if len(written) <= most and written.isascii() else None
