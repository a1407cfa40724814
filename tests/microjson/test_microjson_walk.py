"""The walk before orjson: what it must not let through, and that the one in C is the one in Python."""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import datetime as dt
import decimal
import enum
import math
import shutil
import subprocess
import sys
import sysconfig
import uuid
import zoneinfo
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil.microjson import MessageID, MicroJSON, MicroJSONError, canonical, codec, walk

from .microjson_oracle import PATHS, Path, taking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = FilePath(walk.__file__).with_name("_walk.c")
HEADER = FilePath(sysconfig.get_paths()["include"]) / "Python.h"

can_build = pytest.mark.skipif(
    shutil.which("cc") is None or not HEADER.is_file(), reason="no C compiler or no Python.h: nothing to be built"
)
if "native" in PATHS:
    from anvil.microjson import _walk


@can_build
def test_the_walk_in_c_is_there_where_it_could_be_built() -> None:
    assert "native" in PATHS, "run: rm .venv/anvil-setup; make setup-dev"
    assert vars(codec)["count_plain"] is _walk.count_plain


@can_build
def test_it_is_built_without_a_warning(tmp_path: FilePath) -> None:
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{HEADER.parent}"]
    done = subprocess.run(["cc", *strict, str(SOURCE)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


class Mode(float, enum.Enum):
    HALF = 0.5
    WHOLE = 1.0


class Listed(list, enum.Enum):  # type: ignore[type-arg, misc]
    ONE = [1]  # noqa: RUF012 -- the value of a member


class Agreeing(enum.Enum):
    """Equal to whatever it is compared with."""

    ONE = 1

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = enum.Enum.__hash__


class Flags(enum.Flag):
    A = 1


class Many(enum.Enum):
    MAP = {"a": 1}  # noqa: RUF012 -- the value of a member


class Liar:
    """Says that it is an int."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return int


class Indexed:
    def __index__(self) -> int:
        return 1

    __int__ = __index__


class Arrayed:
    """What looks like an array of numpy's, and offers itself as a buffer would."""

    __array_interface__: Any = {"shape": (1,), "typestr": "<i8", "data": (0, True), "version": 3}  # noqa: RUF012
    __array_struct__ = None
    dtype = "int64"
    ndim = 1
    shape = (1,)

    def tolist(self) -> list[int]:
        return [1]


class Words(dict[str, int]):
    pass


class Row(list[int]):
    pass


class Pair(tuple[int, int]):
    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: int = 1


# Each with what orjson writes for it when it is let, or None where orjson refuses too.
SMUGGLED: list[tuple[object, bytes | None]] = [
    (1.0, b"1.0"),
    (-0.0, b"-0.0"),
    (1e300, b"1e+300"),
    (math.nan, b"null"),
    (math.inf, b"null"),
    (Mode.WHOLE, b"1.0"),
    (Listed.ONE, b"[1]"),
    (Agreeing.ONE, b"1"),
    (Flags.A, b"1"),
    (Many.MAP, b'{"a":1}'),
    (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), b'"2026-01-01T00:00:00+00:00"'),
    (dt.date(2026, 1, 1), b'"2026-01-01"'),
    (dt.time(1, 2), b'"01:02:00"'),
    (Slotted(), b'{"a":1}'),
    (orjson.Fragment(b"[1.0,{]"), b"[1.0,{]"),
    (Words(a=1), b'{"a":1}'),
    (Row([1]), b"[1]"),
    (collections.OrderedDict(a=1), b'{"a":1}'),
    (collections.defaultdict(int, a=1), b'{"a":1}'),
    (Pair((1, 2)), None),
    (Liar(), None),
    (Indexed(), None),
    (Arrayed(), None),
    (ctypes.c_int(1), None),
    (zoneinfo.ZoneInfo("UTC"), None),
    (decimal.Decimal(1), None),
    (b"bytes", None),
    (memoryview(b"bytes"), None),
    (1j, None),
    (frozenset({1}), None),
    (range(3), None),
    (int, None),
    (..., None),
]
names = [f"{type(value).__name__}-{number}" for number, (value, _) in enumerate(SMUGGLED)]

PLACES: dict[str, Callable[[Any], Any]] = {
    "bare": lambda x: x,
    "in a list": lambda x: [1, x],
    "in a dict": lambda x: {"a": "b", "c": x},
    "in a tuple": lambda x: [("a", (x,))],
    "deep": lambda x: [{"a": [{"b": [[x]]}]}],
    "after much": lambda x: [*range(1000), {"a": [None, True, "x"]}, x],
    "at the last level": lambda x: _nested(x, 62),
}


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    with taking(request.param):
        yield request.param


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [value for value, _ in SMUGGLED], ids=names)
@pytest.mark.usefixtures("path")
def test_nothing_is_smuggled(value: object, place: str) -> None:
    hidden = PLACES[place](value)
    with pytest.raises(MicroJSONError):
        canonical(hidden)
    with pytest.raises(MicroJSONError):
        MicroJSON.message(MessageID.DECK, hidden)
    with pytest.raises(MicroJSONError):
        MicroJSON.encode({"@ID": 200, "data": hidden})


@pytest.mark.parametrize(("value", "written"), SMUGGLED, ids=names)
def test_orjson_alone_lets_it_through(value: object, written: bytes | None) -> None:
    """The negative control: this is what the walk is for."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
    if written is None:
        with pytest.raises(orjson.JSONEncodeError):
            orjson.dumps([value], option=options)
    else:
        assert orjson.dumps([value], option=options) == b"[" + written + b"]"


def test_true_stays_true_and_one_stays_one(path: Path) -> None:
    assert canonical([True, 1, False, 0]) == b"[true,1,false,0]", path
    got = MicroJSON.decode(b'{"@ID":200,"data":[true,1,false,0]}')["data"]
    assert [type(item) for item in got] == [bool, int, bool, int]


@pytest.mark.parametrize(
    "number",
    [True, 200.0, "200", None, Mode.WHOLE, Flags.A, uuid.UUID(int=200), Indexed(), Liar(), [200], 10**30, -1],
    ids=repr,
)
@pytest.mark.usefixtures("path")
def test_no_other_id_is_smuggled(number: object) -> None:
    with pytest.raises(MicroJSONError, match="is not an ID of the message registry"):
        MicroJSON.encode({"@ID": number, "data": 1})


leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats() | st.binary(max_size=2) | st.uuids()
)
anything = st.recursive(
    leaves | st.sampled_from([value for value, _ in SMUGGLED]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2) | st.sampled_from(["@ID", "data"]) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)
frames = st.fixed_dictionaries({"@ID": st.integers(199, 202) | leaves, "data": anything}) | anything


@pytest.mark.skipif("native" not in PATHS, reason="the walk in C is not built here")
@settings(deadline=None, max_examples=500)
@given(value=frames, room=st.integers(0, 6) | st.just(64), most=st.integers(1, 40) | st.just(1 << 24))
def test_c_and_python_walk_alike(value: object, room: int, most: int) -> None:
    assert _walk.count_plain(value, room, most) == walk.count_plain(value, room, most)
    assert _walk.frame_id(value, room, most) == walk.frame_id(value, room, most)
    more = (value, room, most, frozenset({200, 201}), orjson.dumps, orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER)
    assert _walk.write_message(*more) == walk.write_message(*more)


@pytest.mark.parametrize("path", [path for path in PATHS if path != "plain"])
def test_what_the_count_counts(path: Path) -> None:
    taken = walk if path == "fast" else _walk
    value = {"a": [1, "x", None], "b": (True, {})}
    assert taken.count_plain(value, 3, 8) == 8
    assert taken.count_plain(value, 3, 7) == 0
    assert taken.count_plain(value, 2, 8) == 0
    assert taken.count_plain("x", 0, 1) == 1
    assert taken.frame_id({"@ID": 7, "data": value}, 4, 8) == 7
    assert taken.frame_id({"@ID": 7, "data": value}, 3, 8) == 0
    assert taken.frame_id({"@ID": 7, "more": value}, 4, 8) == 0


@pytest.mark.parametrize("path", [path for path in PATHS if path != "plain"])
def test_what_dumps_says_is_looked_at(path: Path) -> None:
    write = walk.write_message if path == "fast" else _walk.write_message
    known = frozenset({200})

    def written(dumps: Callable[[object, None, int], bytes], number: int = 200, most: int = 3) -> bytes | None:
        return write({"@ID": number, "data": 1}, 64, most, known, dumps, 0)

    def refusing(*_: object) -> bytes:
        raise orjson.JSONEncodeError("no")

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    assert written(lambda *_: b"abc") == b"abc"
    assert written(lambda *_: b"abcd") is None
    assert written(lambda *_: b"a\x80c") is None
    assert written(lambda *_: b"abc", number=201) is None
    assert written(refusing) is None
    with pytest.raises(ZeroDivisionError):
        written(broken)


@pytest.mark.skipif("native" not in PATHS, reason="the walk in C is not built here")
def test_the_walk_in_c_keeps_its_references_and_refuses_a_wrong_call() -> None:
    data, number = ["text"], 10**30
    message = {"@ID": number, "data": data}
    before = sys.getrefcount(data), sys.getrefcount(number), sys.getrefcount(message)
    for _ in range(1000):
        assert _walk.frame_id(message, 64, 100) == number
        assert _walk.count_plain(message, 64, 100) == 4
        assert _walk.write_message(message, 64, 100, {number}, lambda *_: b"x", 0) == b"x"
        assert _walk.write_message(message, 64, 100, {number}, lambda *_: b"\xff", 0) is None
    assert (sys.getrefcount(data), sys.getrefcount(number), sys.getrefcount(message)) == before
    wrong: list[tuple[Any, ...]] = [(), (1,), (1, 2), (1, 2, 3, 4), (1, "2", 3), (1, 2, "3"), (1, 2, 1 << 70)]
    for arguments in wrong:
        for function in (_walk.count_plain, _walk.frame_id, _walk.write_message):
            with pytest.raises((TypeError, OverflowError)):
                function(*arguments)
