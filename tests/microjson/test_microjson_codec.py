"""MicroJSON by example: what is written, what is refused, and what the refusal says."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import math
import subprocess
import sys
import time
import types
import uuid
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from anvil.errors import AnvilError
from anvil.microjson import MessageID, MicroJSON, MicroJSONError, canonical, parse_canonical

from .microjson_oracle import PATHS, Path, taking

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=PATHS, autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    with taking(request.param):
        yield request.param


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


class Colour(enum.StrEnum):
    RED = "red"


class Plain(enum.Enum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Number(int):
    pass


Pair = collections.namedtuple("Pair", ["a", "b"])  # noqa: PYI024 - the untyped kind, on purpose


@dataclasses.dataclass
class Record:
    a: int = 1


class TestMessages:
    def test_a_message_is_two_keys_compact_and_sorted(self) -> None:
        got = MicroJSON.encode({"data": {"b": [1, None, True], "a": "ü"}, "@ID": 201})
        assert got == '{"@ID":201,"data":{"a":"ü","b":[1,null,true]}}'.encode()

    def test_message_takes_an_id_by_name_or_number(self) -> None:
        assert MicroJSON.message(MessageID.DECK, []) == MicroJSON.message(200, []) == b'{"@ID":200,"data":[]}'
        assert MicroJSON.encode({"@ID": MessageID.DECK, "data": []}) == b'{"@ID":200,"data":[]}'

    @pytest.mark.parametrize("data", [None, True, 0, -1, "", "text", [], {}, [[]], {"": {}}])
    def test_data_may_be_any_value(self, data: object) -> None:
        got = MicroJSON.decode(MicroJSON.message(200, data))
        assert got == {"@ID": 200, "data": data}
        assert type(got["@ID"]) is int

    def test_decode_takes_bytes_and_str(self) -> None:
        text = '{"@ID":200,"data":"é😂"}'
        assert MicroJSON.decode(text) == MicroJSON.decode(text.encode()) == {"@ID": 200, "data": "é😂"}

    def test_other_mappings_are_messages_too(self) -> None:
        message = types.MappingProxyType({"@ID": 200, "data": 1})
        assert MicroJSON.encode(message) == b'{"@ID":200,"data":1}'

    @pytest.mark.parametrize(
        ("payload", "says"),
        [
            ({}, "@ID is missing"),
            ({"@ID": 200}, "data is missing"),
            ({"data": 1}, "@ID is missing"),
            ({"@ID": 200, "data": 1, "more": 2}, '"more" is too much'),
            ({"@id": 200, "data": 1}, "@ID is missing"),
            ({"@ID": 299, "data": 1}, "299 is not an ID"),
            ({"@ID": True, "data": 1}, "bool is not an ID"),
            ({"@ID": 200.0, "data": 1}, "float is not an ID"),
            ({"@ID": "200", "data": 1}, '"200" is not an ID'),
            ({"@ID": Number(200), "data": 1}, "Number is not an ID"),
            ({"@ID": 10**5000, "data": 1}, "int is not an ID"),
            ({"@ID": [200], "data": 1}, "list is not an ID"),
            ({Text("@ID"): 200, "data": 1}, None),
            ([200, 1], "not list"),
            (None, "not NoneType"),
        ],
    )
    def test_other_frames_are_not_written(self, payload: Any, says: str | None) -> None:
        if says is None:  # a key that only equals "@ID": taken as it, or refused, but never written as something else
            with contextlib.suppress(MicroJSONError):
                assert MicroJSON.encode(payload) == b'{"@ID":200,"data":1}'
            return
        with pytest.raises(MicroJSONError, match=says):
            MicroJSON.encode(payload)

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"{}", "@ID is missing"),
            (b"[]", "not list"),
            (b"200", "not int"),
            (b'{"@ID":200}', "data is missing"),
            (b'{"@ID":299,"data":1}', "299 is not an ID"),
            (b'{"@ID":true,"data":1}', "bool is not an ID"),
            (b'{"@ID":null,"data":1}', "NoneType is not an ID"),
            (b'{"@ID":200,"data":1,"e":2}', '"e" is too much'),
            (b'{"data":1,"@ID":200}', "not the canonical bytes"),
            (b'{"@ID":200.0,"data":1}', "no float"),
        ],
    )
    def test_other_frames_are_not_read(self, data: bytes, says: str) -> None:
        with pytest.raises(MicroJSONError, match=says):
            MicroJSON.decode(data)


class TestWriting:
    @pytest.mark.parametrize(
        ("value", "data"),
        [
            (None, b"null"),
            (True, b"true"),
            (-0, b"0"),
            (2**53 - 1, b"9007199254740991"),
            (-(2**53) + 1, b"-9007199254740991"),
            ((), b"[]"),
            ((1, ("a",)), b'[1,["a"]]'),
            (MessageID.DECK, b"200"),
            ([Colour.RED, {"c": MessageID.DECK}], b'["red",{"c":200}]'),
            ('"\\/\b\f\n\r\t\0\x1f\x7f\u2028', b'"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xe2\x80\xa8"'),
        ],
    )
    def test_values(self, value: object, data: bytes) -> None:
        assert canonical(value) == data

    def test_keys_are_sorted_by_utf16_not_by_code_point(self) -> None:
        keys = ["\ufb33", "\U0001f602", "\ue000", "z", "é", "", "\uffff", "\U0010ffff", "\ud7ff"]
        got = parse_canonical(canonical(dict.fromkeys(keys, 0)))
        assert list(got) == ["", "z", "é", "\ud7ff", "\U0001f602", "\U0010ffff", "\ue000", "\ufb33", "\uffff"]

    @pytest.mark.parametrize(
        ("value", "where"),
        [
            ({"a": [0, 1.0]}, "$.a[1]"),
            ([math.nan], "$[0]"),
            ({"x y": {"é": -0.0}}, '$["x y"]["\\u00e9"]'),
            ({"n": 2**53}, "$.n"),
            ([-(2**53)], "$[0]"),
            (10**5000, "$"),
            ({"s": "\ud800"}, "$.s"),
            ({"\udfff": 1}, "$"),
            ({"k": {1: 2}}, "$.k"),
            ({None: 2}, "$"),
            ({Text("k"): 2}, "$"),
            ({Colour.RED: 2}, "$"),
            ([b"bytes"], "$[0]"),
            ([bytearray(b"bytes")], "$[0]"),
            ([{1, 2}], "$[0]"),
            ([decimal.Decimal(1)], "$[0]"),
            ([Text("text")], "$[0]"),
            ([Number(1)], "$[0]"),
            ([Plain.ONE], "$[0]"),
            ([Pair(1, 2)], "$[0]"),
            ([Record()], "$[0]"),
            ([uuid.UUID(int=1)], "$[0]"),
            ([dt.datetime.now(tz=dt.UTC)], "$[0]"),
            ([orjson.Fragment(b"{}")], "$[0]"),
            ([collections.OrderedDict(a=1)], "$[0]"),
            ([range(3)], "$[0]"),
            ([object()], "$[0]"),
        ],
        ids=lambda value: None if isinstance(value, str) else type(value).__name__,
    )
    def test_what_has_no_form_is_refused_with_its_path(self, value: object, where: str) -> None:
        with pytest.raises(MicroJSONError) as caught:
            canonical(value)
        assert caught.value.where == where
        inside = where.replace("$", "$.data", 1)
        with pytest.raises(MicroJSONError) as caught:
            MicroJSON.message(MessageID.DECK, value)
        assert caught.value.where == inside

    def test_the_error_is_one_of_ours_and_is_a_message_itself(self) -> None:
        with pytest.raises(AnvilError) as caught:
            canonical(1.5)
        error = caught.value
        assert error.message == "MicroJSON has no float: use an integer of a smaller unit, or text"
        told = MicroJSON.decode(MicroJSON.message(error.message_id, error.as_data()))
        assert told == {"@ID": 500, "data": {"error": "MicroJSONError", "message": error.message, "where": "$"}}


class TestReading:
    @pytest.mark.parametrize(
        ("data", "says", "where"),
        [
            (b"", "not JSON", "byte 0"),
            (b" 1", "not the canonical bytes", "byte 0"),
            (b"1\n", "not the canonical bytes", "byte 1"),
            (b'{"a": 1}', "not the canonical bytes", "byte 5"),
            (b'{"b":1,"a":2}', "not the canonical bytes", "byte 2"),
            (b'{"a":1,"a":1}', 'key "a" is there twice', ""),
            (b'{"x":{"a":1,"b":2,"\\u0061":1}}', 'key "a" is there twice', ""),
            (b'"\\u0041"', "not the canonical bytes", "byte 1"),
            (b'"\\/"', "not the canonical bytes", "byte 1"),
            (b'"\\u001F"', "not the canonical bytes", "byte 6"),
            (b'"\xc3\xa9" ', "not the canonical bytes", "byte 4"),
            (b"-0", "not the canonical bytes", "byte 0"),
            (b"-0.0", "no float", "$"),
            (b"[1.5]", "no float", "$[0]"),
            (b'{"a":1e2}', "no float", "$.a"),
            (b"[1E400]", "no float", "$[0]"),
            (b"NaN", "no float", "$"),
            (b"[-Infinity]", "no float", "$[0]"),
            (b"9007199254740992", "beyond", "$"),
            (b"[-9007199254740992]", "beyond", "$[0]"),
            (b"123456789012345678901234567890", "beyond", "$"),
            (b"9" * 100_000, "beyond", "$"),
            (b'"\\ud800"', "lone surrogate", "$"),
            (b'{"\\udc00\\ud800":1}', "lone surrogate", "$"),
            (b'"\xed\xa0\x80"', "not UTF-8", "byte 1"),
            (b'"\xc0\xaf"', "not UTF-8", "byte 1"),
            (b'"\xf4\x90\x80\x80"', "not UTF-8", "byte 1"),
            (b"\xef\xbb\xbf1", "byte order mark", "byte 0"),
            (b"01", "not JSON", "byte 1"),
            (b"[1,]", "not JSON", "byte 3"),
            ('["ä" 1]'.encode(), "not JSON", "byte 6"),
            (b"[1]]", "not JSON", "byte 3"),
            (b'"\x01"', "not JSON", "byte 1"),
            (b"[1]\0", "not JSON", "byte 3"),
            ("\ud800", "lone surrogate", "character 0"),
        ],
        ids=lambda value: repr(value)[:24],
    )
    def test_what_is_not_canonical_is_refused_with_its_place(self, data: bytes | str, says: str, where: str) -> None:
        with pytest.raises(MicroJSONError, match=says) as caught:
            parse_canonical(data)
        assert caught.value.where == where

    def test_keys_in_code_point_order_are_not_canonical(self) -> None:
        data = orjson.dumps({"@ID": 200, "data": {"\ufb33": 1, "\U0001f602": 2}}, option=orjson.OPT_SORT_KEYS)
        for read in (MicroJSON.decode, parse_canonical):
            with pytest.raises(MicroJSONError, match="not the canonical bytes"):
                read(data)

    def test_size_is_judged_before_anything_else(self) -> None:
        with pytest.raises(MicroJSONError, match="100 bytes of MicroJSON are over the cap of 99"):
            parse_canonical(b"\xff" * 100, max_bytes=99)

    @pytest.mark.parametrize("data", [None, 1, [b"1"], bytearray(b"1"), memoryview(b"1")])
    def test_only_bytes_and_str_are_read(self, data: Any) -> None:
        with pytest.raises(MicroJSONError, match="read from bytes or str"):
            parse_canonical(data)


class TestCaps:
    def test_depth_counts_containers_and_ends_at_64(self) -> None:
        at, over = b"[" * 64 + b"0" + b"]" * 64, b"[" * 65 + b"0" + b"]" * 65
        assert canonical(nested(64)) == at
        assert parse_canonical(at) == nested(64)
        with pytest.raises(MicroJSONError, match="nested more than 64 deep"):
            canonical(nested(65))
        with pytest.raises(MicroJSONError, match="nested more than 64 deep"):
            parse_canonical(over)

    def test_the_frame_counts(self) -> None:
        whole = MicroJSON.message(200, nested(63))
        assert MicroJSON.decode(whole)["data"] == nested(63)
        with pytest.raises(MicroJSONError, match="nested more than 64 deep"):
            MicroJSON.message(200, nested(64))
        with pytest.raises(MicroJSONError, match="nested more than 64 deep"):
            MicroJSON.decode(whole.replace(b"0]", b"[0]]"))

    def test_brackets_in_text_are_not_depth(self) -> None:
        for text in ("[" * 200, '"[' * 200, "\\[" * 200, "\\" * 99 + '"[' * 99):
            assert parse_canonical(canonical([text])) == [text]

    def test_size_is_counted_in_bytes_both_ways(self) -> None:
        data = '["äß😂"]'.encode()
        assert canonical(["äß😂"], max_bytes=len(data)) == data
        assert parse_canonical(data, max_bytes=len(data)) == ["äß😂"]
        for refused in (
            lambda: canonical(["äß😂"], max_bytes=len(data) - 1),
            lambda: parse_canonical(data, max_bytes=3),
        ):
            with pytest.raises(MicroJSONError, match="over the cap of"):
                refused()
        message = MicroJSON.message(200, "x", max_bytes=22)
        assert len(message) == 22
        with pytest.raises(MicroJSONError, match="22 bytes of MicroJSON are over the cap of 21"):
            MicroJSON.message(200, "x", max_bytes=21)
        with pytest.raises(MicroJSONError, match="22 bytes of MicroJSON are over the cap of 21"):
            MicroJSON.decode(message, max_bytes=21)
        with pytest.raises(MicroJSONError, match="over the cap of 21"):
            MicroJSON.decode(message.decode(), max_bytes=21)

    def test_a_value_with_as_many_parts_as_the_cap_holds_is_taken(self) -> None:
        values: list[Any] = [[0] * 9, [[]] * 9, {"": 0}, [{}], 1, []]
        for value in values:
            data = canonical(value)
            assert canonical(value, max_bytes=len(data)) == data

    def test_the_default_cap_is_16_mib(self) -> None:
        canonical("x" * (16 * 1024 * 1024 - 2))
        with pytest.raises(MicroJSONError, match="over the cap of 16777216"):
            canonical("x" * (16 * 1024 * 1024 - 1))

    def test_a_value_that_holds_itself(self) -> None:
        loop: list[object] = []
        loop.append(loop)
        with pytest.raises(MicroJSONError, match="nested more than 64 deep"):
            canonical(loop)

    def test_a_small_graph_that_unfolds_into_a_huge_tree(self) -> None:
        value: Any = []
        for _ in range(60):
            value = [value, value]
        with pytest.raises(MicroJSONError, match="more parts than the cap"):
            canonical(value, max_bytes=100_000)

    @pytest.mark.parametrize(
        "bomb",
        [
            b"[" * 1_000_000,
            b'{"a":' * 300_000,
            b"[" * 500_000 + b"]" * 500_000,
            b"[[]," * 300_000,
            b'"' + b'\\"' * 500_000,
            b'["' + b"\\" * 999_999,
            b"]" * 500_000 + b"[" * 500_000,
            b"9" * 1_000_000,
            b"-" * 1_000_000,
            b'"\\u' + b"d" * 1_000_000,
            b"[1," * 60 + b'"' * 1_000_000,
            b"[]," * 100 + b'"' + b'\\"' * 500_000,
        ],
        ids=lambda bomb: repr(bomb[:8]),
    )
    def test_bombs_are_refused_quickly(self, bomb: bytes) -> None:
        start = time.process_time()
        with pytest.raises(MicroJSONError):
            parse_canonical(bomb)
        assert time.process_time() - start < 3

    def test_a_bomb_does_not_crash_a_process_with_a_raised_recursion_limit(self, path: Path) -> None:
        script = (
            "import sys; sys.setrecursionlimit(10**7)\n"
            "from anvil.microjson import codec\n"
            f"codec.orjson = codec.orjson if {path != 'plain'} else None\n"
            "for bomb in (b'[' * 10**7, b'[' * 10**7 + b']', b'{\"a\":' * 10**6):\n"
            "    try: codec.parse_canonical(bomb)\n"
            "    except codec.MicroJSONError as error: print(error.message)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["nested more than 64 deep"] * 3


def test_a_manifest_of_100_000_entries_takes_seconds_at_most(path: Path) -> None:
    entries = [
        {"mode": 420, "path": f"usr/lib/{n}.py", "sha256": f"{n:064x}", "size": n, "type": "file"}
        for n in range(100_000)
    ]
    start = time.process_time()
    data = canonical(entries)
    assert parse_canonical(data) == entries
    assert time.process_time() - start < (15 if path == "plain" else 5)
    assert len(data) > 12_000_000
