"""Comparing two makings, the pure part: manifests row by row, and where two files begin to differ."""

from __future__ import annotations

import io
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil.mainframe.check_compare import MOST_SHOWN, _line, _lines, _rows, first_difference
from anvil.model.layer import Digest, Entry, Manifest

ONE, TWO = Digest("1" * 64), Digest("2" * 64)


def file(path: str, digest: Digest = ONE, mode: int = 0o644, size: int = 3) -> Entry:
    return Entry(path=path, type="file", mode=mode, size=size, sha256=digest)


def link(target: str) -> Entry:
    return Entry(path="a", type="link", target=target)


def rows(ours: list[Entry], theirs: list[Entry], *, removed: tuple[str, ...] = ()) -> list[tuple[str, str, str, str]]:
    one, two = Manifest(entries=tuple(ours)), Manifest(entries=tuple(theirs), removed=removed)
    return [(d.path[-1], d.what, d.first, d.second) for d in _rows("a/b", "work", (), one, two)]


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ([file("a")], [file("a")], []),
        ([file("a")], [file("a", TWO)], [("a", "bytes", ONE, TWO)]),
        ([file("a")], [file("a", mode=0o755)], [("a", "mode", "644", "755")]),
        ([file("a")], [file("b")], [("a", "only first", "file", ""), ("b", "only second", "file", "")]),
        ([file("a")], [Entry(path="a", type="dir", mode=0o755)], [("a", "type", "file", "dir")]),
        ([link("x")], [link("y")], [("a", "target", "x", "y")]),
        ([file("a"), file("b", TWO)], [file("a"), file("b")], [("b", "bytes", TWO, ONE)]),
    ],
)  # fmt: skip
def test_every_kind_of_row(ours: list[Entry], theirs: list[Entry], told: list[tuple[str, str, str, str]]) -> None:
    assert rows(ours, theirs) == told


def test_a_name_that_was_removed_in_one_making_alone_differs() -> None:
    assert rows([], [], removed=("gone",)) == [("gone", "only second", "link", "")]


def test_members_of_a_container_are_named_as_in_it() -> None:
    one, two = Manifest(entries=(file("members/a"),)), Manifest(entries=(file("members/a", TWO),))
    [found] = _rows("a/b", "out", ("x.tar",), one, two)
    assert found.path == ("x.tar", "a")
    assert found.as_data()["path"] == ["x.tar", "a"]


BLOCKS = st.binary(max_size=40).map(lambda data: data * 1000)


@settings(deadline=None)  # how quick it is depends on the machine
@given(BLOCKS, BLOCKS, BLOCKS)
def test_the_first_difference_is_found(same: bytes, ours: bytes, theirs: bytes) -> None:
    one, two = same + ours, same + theirs
    expected = next((at for at, (a, b) in enumerate(zip_longest(one, two)) if a != b), -1)
    assert first_difference(io.BytesIO(one), io.BytesIO(two)) == expected


def test_the_first_difference_is_found_behind_a_block() -> None:
    block = bytes(1 << 20)
    assert first_difference(io.BytesIO(block + b"a"), io.BytesIO(block + b"b")) == 1 << 20
    assert first_difference(io.BytesIO(block), io.BytesIO(block + b"b")) == 1 << 20
    assert first_difference(io.BytesIO(block), io.BytesIO(block)) == -1


def test_a_line_is_shown_where_there_is_text_alone() -> None:
    text = b"first\nsecond line\nthird\n"
    assert _line(io.BytesIO(text), 8) == "second line"
    assert _line(io.BytesIO(b"\0" + text), 8) == ""
    assert _line(io.BytesIO(b"\xff" + text), 1) == ""
    assert _line(io.BytesIO(b"x" * 1000), 500) == "x" * 200


def test_the_listings_of_two_images_are_compared_by_path() -> None:
    ours = ["'usr/a b' 100644 0 11", "'usr/c' 100644 0 22", '"it\'s" 120777 0 a b c', "'same' 40755 0 /"]
    theirs = ["'usr/a b' 100755 0 11", '"it\'s" 120777 0 a b d', "'same' 40755 0 /"]
    found = [(d.path, d.what, d.first, d.second) for d in _lines("images/x", ours, theirs)]
    assert sorted(found) == [
        (("it's",), "entry", "120777 0 a b c", "120777 0 a b d"),
        (("usr/a b",), "entry", "100644 0 11", "100755 0 11"),
        (("usr/c",), "entry", "100644 0 22", ""),
    ]
    many = [f"'{number}' 100644 0 x" for number in range(MOST_SHOWN + 7)]
    *_, last = _lines("images/x", many, [])
    assert (last.what, last.first) == ("more", "7")
