"""An independent reading of what MicroJSON is, made of parts that are not ours, and the paths to hold to it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import rfc8785

from anvil.microjson import codec, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    from anvil.microjson import _walk
except ImportError:  # test_microjson_walk.py says whether it had to be there
    _walk = None  # type: ignore[assignment]

Path = Literal["native", "fast", "plain"]
PATHS: tuple[Path, ...] = ("fast", "plain") if _walk is None else ("native", "fast", "plain")
"""With orjson and the walk in C, with orjson and the walk in Python, with neither."""


@contextmanager
def taking(path: Path) -> Iterator[None]:
    """The codec as it is where there is that much."""
    with pytest.MonkeyPatch.context() as patch:
        if path == "plain":
            patch.setattr(codec, "orjson", None)
        else:
            assert vars(codec)["orjson"] is not None, "the development environment has orjson: every path must be seen"
            taken = _walk if path == "native" else walk
            for name in ("count_plain", "frame_id", "write_message"):
                patch.setattr(codec, name, getattr(taken, name))
        yield


class Refused(Exception):
    """The oracle's refusal."""


def oracle_parse(data: bytes, *, depth: int = 64) -> Any:
    """The value whose canonical bytes these are, by the json module and rfc8785; raises Refused."""
    try:
        value = json.loads(
            data.decode("utf-8", "strict"),
            object_pairs_hook=_no_key_twice,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
        as_it_should_be = rfc8785.dumps(value) == data and nesting(value) <= depth
    except (ValueError, RecursionError) as error:
        raise Refused from error
    if not as_it_should_be:
        raise Refused
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Refused
    return dict(pairs)


def _refuse(_text: str) -> Any:
    raise Refused


def nesting(value: Any) -> int:
    """How many containers are one in the other, at most."""
    if isinstance(value, dict):
        return 1 + max(map(nesting, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(nesting, value), default=0)
    return 0


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way (True is not 1), a tuple counting as a list."""
    if isinstance(left, tuple):
        left = list(left)
    if isinstance(right, tuple):
        right = list(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
