"""The gate opens what is a container, judges every member, and believes no name."""

from __future__ import annotations

import gzip
import hashlib
import io
from typing import TYPE_CHECKING

import pytest

from anvil.errors import OutputForbidden
from anvil.release.gate import DEPTH_LIMIT, File, Gate
from tests.release.test_judge import bzimage, elf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anvil.release.judge import Container


def file(name: str, data: bytes) -> File:
    return File(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data), open=lambda: io.BytesIO(data))


class Boxes:
    """An opener: which members a container has is looked up by its digest."""

    def __init__(self) -> None:
        self._members: dict[str, list[File]] = {}
        self.opened: list[str] = []

    def pack(self, name: str, *members: File) -> File:
        """A container that holds these."""
        box = file(name, gzip.compress(f"{name}{len(self._members)}".encode(), mtime=0))
        self._members[box.sha256] = list(members)
        return box

    def __call__(self, container: Container, box: File) -> Iterable[File]:
        assert container == "gzip"
        self.opened.append(box.name)
        return self._members[box.sha256]


PROGRAM = file("program", elf())
SOURCE = file("main.c", b"int main(void) { return 0; }\n")


def test_an_image_of_binaries_passes_and_is_counted() -> None:
    boxes = Boxes()
    box = boxes.pack("outer", PROGRAM, boxes.pack("inner", PROGRAM, file("bzImage", bzimage())))
    report = Gate(opener=boxes).admit(box, "archive")
    assert report.members == {"archive": 1, "elf-static": 2, "kernel-image": 1}
    assert boxes.opened == ["outer", "inner"]


def test_one_bad_member_however_deep_is_named() -> None:
    boxes = Boxes()
    box = boxes.pack("outer", PROGRAM, boxes.pack("inner", SOURCE))
    with pytest.raises(OutputForbidden, match=r"main\.c"):
        Gate(opener=boxes).admit(box, "archive")


def test_the_claim_must_be_true() -> None:
    with pytest.raises(OutputForbidden, match="not the kernel-image"):
        Gate(opener=Boxes()).admit(PROGRAM, "kernel-image")


def test_a_declared_text_may_lie_inside_but_is_no_artifact() -> None:
    boxes = Boxes()
    gate = Gate(opener=boxes, declared=frozenset({SOURCE.sha256}))
    assert gate.admit(boxes.pack("outer", SOURCE), "archive").members == {"text": 1}
    with pytest.raises(OutputForbidden):
        gate.admit(SOURCE, "text")


def test_what_has_passed_already_is_not_opened_again() -> None:
    boxes = Boxes()
    inner = boxes.pack("inner", SOURCE)
    gate = Gate(opener=boxes, released={inner.sha256: "disk-image"})
    assert gate.admit(boxes.pack("outer", inner), "archive").members == {"disk-image": 1}
    assert boxes.opened == ["outer"]


def test_archives_in_archives_end_somewhere() -> None:
    boxes = Boxes()
    box = boxes.pack("innermost", PROGRAM)
    for number in range(DEPTH_LIMIT):
        box = boxes.pack(f"box{number}", box)
    with pytest.raises(OutputForbidden, match="deep"):
        Gate(opener=boxes).admit(box, "archive")


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anvil.release.gate.MEMBER_LIMIT", 2)
    boxes = Boxes()
    assert Gate(opener=boxes).admit(boxes.pack("two", PROGRAM, PROGRAM), "archive")
    with pytest.raises(OutputForbidden, match="more than 2"):
        Gate(opener=boxes).admit(boxes.pack("three", PROGRAM, PROGRAM, PROGRAM), "archive")
