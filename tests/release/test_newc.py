"""The reader of newc archives: every byte that differs from a sound archive is either judged or refused."""

from __future__ import annotations

import contextlib
import io
import random
from typing import TYPE_CHECKING

import pytest

from anvil.release.newc import extract

if TYPE_CHECKING:
    from pathlib import Path


def entry(name: str, data: bytes = b"", mode: int = 0o100644) -> bytes:
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


END = entry("TRAILER!!!")
SOUND = entry(".", mode=0o40755) + entry("./a", b"12345") + entry("./l", b"a", 0o120777) + END


def test_every_file_is_written_and_no_link_is_made(tmp_path: Path) -> None:
    extract(io.BytesIO(SOUND + bytes(100)), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"12345"}


def test_no_prefix_of_an_archive_is_one(tmp_path: Path) -> None:
    for length in range(len(SOUND)):
        folder = tmp_path / str(length)
        folder.mkdir()
        with pytest.raises(ValueError, match=r"header|name|middle|between"):
            extract(io.BytesIO(SOUND[:length]), folder)


def test_a_damaged_archive_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    dice = random.Random(7)
    for number in range(500):
        data = bytearray(SOUND)
        data[dice.randrange(len(data))] = dice.randrange(256)
        folder = tmp_path / str(number) / "members"
        folder.mkdir(parents=True)
        with contextlib.suppress(ValueError, OSError):
            extract(io.BytesIO(data), folder)
        assert [path.name for path in folder.parent.iterdir()] == ["members"]


@pytest.mark.parametrize("name", ["", "/", "..", "a/..", "../a", "/a", "a//b", "a/./b", "a/", "././a", "./"])
def test_a_name_that_is_no_plain_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"path|too short"):
        extract(io.BytesIO(entry(name, b"x") + END), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_and_the_other_way_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"exist|directory"):
        extract(io.BytesIO(entry("a", b"x") + entry("a/b", b"y") + END), tmp_path)
    with pytest.raises(OSError, match=r"exist|directory"):
        extract(io.BytesIO(entry("c/b", b"y") + entry("c", b"x") + END), tmp_path)
