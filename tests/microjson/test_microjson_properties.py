"""MicroJSON against an independent oracle (rfc8785 for the bytes, the json module for the reading), on every path."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from anvil.microjson import MessageID, MicroJSON, MicroJSONError, canonical, parse_canonical

from .microjson_oracle import PATHS, Path, Refused, oracle_parse, same, taking

# How long an example takes says something about the machine only.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
every_path = pytest.mark.parametrize("path", PATHS)

# Characters beside every border that matters: escapes, UTF-8 lengths, surrogates, the two sides of the sort order.
BORDERS = '\0\x1f "/\\AZaz\x7f\x80\u07ff\u0800\u2028\ud7ff\ue000\ufb33\ufeff\uffff\U00010000\U0001f602\U0010ffff'
texts = st.text() | st.text(st.sampled_from(BORDERS), max_size=6)
whole = st.integers(-(2**53) + 1, 2**53 - 1) | st.sampled_from([0, 2**53 - 1, -(2**53) + 1])
good = st.recursive(
    st.none() | st.booleans() | whole | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5) | st.tuples(inner, inner),
    max_leaves=25,
)
# What has no form on the wire; each is written by orjson, by json or by rfc8785 when it is let.
bad_leaves = (
    st.floats()
    | st.integers(min_value=2**53)
    | st.integers(max_value=-(2**53))
    | st.text(st.sampled_from("a\ud800\udfff"), min_size=1).filter(lambda text: not text.isascii())
    | st.binary()
    | st.uuids()
    | st.dates()
    | st.decimals()
    | st.sets(st.integers(), max_size=2)
    | st.just(orjson.Fragment(b"1"))
    | st.dictionaries(st.integers() | st.none() | st.floats(), st.none(), min_size=1, max_size=2)
)


@every_path
@unhurried
@given(value=good)
@example(value={"\ufb33": 1, "\U0001f602": 2})
@example(value={"a\ufb33": 1, "a\U0001f602": 2, "a": 3})
def test_the_bytes_are_rfc_8785s(path: Path, value: Any) -> None:
    with taking(path):
        data = canonical(value)
        assert data == rfc8785.dumps(value)
        assert same(parse_canonical(data), value)
        assert same(parse_canonical(data.decode()), value)
        message = MicroJSON.message(MessageID.CARD_RESULT, value)
        assert message == rfc8785.dumps({"@ID": 202, "data": value})
        assert same(MicroJSON.decode(message), {"@ID": 202, "data": value})


@every_path
@unhurried
@given(
    value=st.recursive(good | bad_leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner))
)
def test_a_value_is_written_right_or_refused(path: Path, value: Any) -> None:
    with taking(path):
        if _has_form(value):
            assert canonical(value) == rfc8785.dumps(value)
        else:
            with pytest.raises(MicroJSONError):
                canonical(value)
            with pytest.raises(MicroJSONError):
                MicroJSON.message(MessageID.DECK, value)


def _has_form(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _has_form(key) and _has_form(value[key]) for key in value)
    if isinstance(value, list | tuple):
        return all(map(_has_form, value))
    if isinstance(value, str):
        return not any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, int) and abs(value) < 2**53


@every_path
@unhurried
@given(value=good, float_=st.floats(), place=st.integers(0, 3))
def test_no_float_gets_through_wherever_it_is(path: Path, value: Any, float_: float, place: int) -> None:
    hidden: Any = {
        0: {"a": [value, float_]},
        1: {"a": {"b": float_, "c": value}},
        2: [[[[float_]]], value],
        3: (value, (float_,)),
    }[place]
    with taking(path):
        with pytest.raises(MicroJSONError, match="no float"):
            canonical(hidden)
        if math.isfinite(float_):
            for written in (orjson.dumps(hidden, option=orjson.OPT_SORT_KEYS), json.dumps(hidden).encode()):
                with pytest.raises(MicroJSONError):
                    parse_canonical(written)


def _agree(path: Path, data: bytes) -> None:
    """The oracle's verdict and value are ours, and what we take we write again just so."""
    try:
        expected = oracle_parse(data)
    except Refused:
        with taking(path), pytest.raises(MicroJSONError):
            parse_canonical(data)
        return
    with taking(path):
        got = parse_canonical(data)
        assert same(got, expected)
        assert canonical(got) == data


@every_path
@unhurried
@given(value=good, how=st.sampled_from(["spaces", "ascii", "order", "indent", "same"]))
def test_other_ways_to_write_a_value_are_refused_unless_they_are_the_same(path: Path, value: Any, how: str) -> None:
    if how == "order" and isinstance(value, dict):
        value = dict(reversed(value.items()))
    tight = (",", ":")
    written = {
        "spaces": lambda: json.dumps(value, ensure_ascii=False),
        "ascii": lambda: json.dumps(value, separators=tight),
        "order": lambda: json.dumps(value, ensure_ascii=False, separators=tight),
        "indent": lambda: json.dumps(value, ensure_ascii=False, indent=1),
        "same": lambda: rfc8785.dumps(value).decode(),
    }[how]()
    _agree(path, written.encode())


# Pieces that make nearly-right JSON far more often than random bytes do.
PIECES = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b'"b"', b'"a":', b"\\", b'"\\n"', b'"\\u0000"', b'"\\ud800"'),
    *(b"0", b"-0", b"1", b"-1", b"9007199254740991", b"9007199254740992", b"1.0", b"1e5", b"NaN", b"true", b"null"),
    *(b" ", b"\n", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", "é".encode(), "😂".encode(), b'"\\/"', b"\0", b"/**/"),
]


@every_path
@unhurried
@given(data=st.binary(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_any_bytes_get_the_oracles_verdict(path: Path, data: bytes) -> None:
    _agree(path, data)


@settings(unhurried, max_examples=400)
@given(
    value=good,
    edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_damaged_messages_are_refused_or_mean_what_they_say(value: Any, edits: list[tuple[int, int, int]]) -> None:
    data = bytearray(MicroJSON.message(MessageID.CARD_RESULT, value))
    for position, byte, kind in edits:
        at = position % (len(data) or 1)
        if kind == 0:
            data[at : at + 1] = bytes([byte])
        elif kind == 1:
            data[at : at + 1] = bytes([(data[at] if data else 0) ^ (1 << byte % 8)])
        elif kind == 2:
            del data[at]
        elif kind == 3:
            data.insert(at, byte)
        else:
            data[at:at] = data[at : at + 1 + byte % 8]
        if not data:
            return
    damaged = bytes(data)
    verdicts = [_verdict(path, damaged) for path in PATHS]
    assert all(same(verdict, verdicts[0]) for verdict in verdicts)
    try:
        oracle_parse(damaged)
    except Refused:
        assert isinstance(verdicts[0], str)


def _verdict(path: Path, data: bytes) -> Any:
    """The message these bytes are, or the error's words."""
    with taking(path):
        try:
            message = MicroJSON.decode(data)
        except MicroJSONError as error:
            return f"{error.message} at {error.where}"
        assert MicroJSON.encode(message) == data
        return message


@unhurried
@given(value=st.recursive(good | bad_leaves, lambda inner: st.lists(inner, max_size=4)))
def test_the_paths_say_the_same_when_they_refuse(value: Any) -> None:
    assert len({repr(_written(path, value)) for path in PATHS}) == 1


def _written(path: Path, value: Any) -> object:
    with taking(path):
        try:
            return canonical(value)
        except MicroJSONError as error:
            return error.message, error.where


def test_the_oracle_itself_knows_what_the_libraries_let_through() -> None:
    """A negative control: without our checks each of these would be written or read."""
    assert orjson.dumps([math.nan, uuid.UUID(int=0)]) == b'[null,"00000000-0000-0000-0000-000000000000"]'
    assert orjson.loads(b'{"a":1,"a":2}') == json.loads(b'{"a":1,"a":2}') == {"a": 2}
    wrong_order = orjson.dumps({"\ufb33": 1, "\U0001f602": 2}, option=orjson.OPT_SORT_KEYS)
    assert wrong_order != rfc8785.dumps({"\ufb33": 1, "\U0001f602": 2})
    with pytest.raises(Refused):
        oracle_parse(wrong_order)
