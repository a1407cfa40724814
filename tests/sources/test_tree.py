"""Comparing an unpacked source with its archive: what is listed, what differs, what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from anvil.errors import EnvironmentLack, IntegrityError
from anvil.sources import listing
from anvil.sources.tree import Difference, Listed, compare, parse

FILES = {"a/b/deep": b"deep\n", "run": b"#!/bin/sh\n", "text": b"text\n"}
LISTING = Path(listing.__file__)


def archive(where: Path, *, mode: str = "w:xz", extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    """A source archive: files, one of them executable, a link, a hard link, and a folder that is not listed (a/)."""
    path = where / "pkg.tar"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"pkg-1.0/{name}")
            member.size, member.mode = len(data), 0o755 if name == "run" else 0o644
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("pkg-1.0/link")
        link.type, link.linkname = tarfile.SYMTYPE, "text"
        hard = tarfile.TarInfo("pkg-1.0/hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, "pkg-1.0/run"
        for member in (link, hard, *extra):
            tar.addfile(member)
    return path


def listed(path: Path) -> dict[str, Listed]:
    """What the program that runs in the cell says, run as it is there."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", LISTING, path], capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        raise ValueError(done.stderr.decode())
    return parse(done.stdout)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The archive, unpacked by GNU tar as a card unpacks it."""
    path = tmp_path / "pkg-1.0"
    path.mkdir()
    subprocess.run(["tar", "xf", archive(tmp_path), "--strip-components=1", "-C", path], check=True, timeout=60)
    return path


def differences(tree: Path) -> list[tuple[str, str]]:
    return [(one.kind, one.path) for one in compare(listed(tree.parent / "pkg.tar"), tree)]


def folder_becomes_link(tree: Path) -> None:
    shutil.rmtree(tree / "a")
    (tree / "a").symlink_to("/")


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w:bz2", "w:"])
def test_what_tar_unpacks_is_clean_whatever_packed_it(tmp_path: Path, mode: str) -> None:
    path = archive(tmp_path, mode=mode)
    target = tmp_path / "there"
    target.mkdir()
    subprocess.run(["tar", "xf", path, "--strip-components=1", "-C", target], check=True, timeout=60)
    found = listed(path)
    assert set(found) == {*FILES, "link", "hard", "a", "a/b"}
    assert found["hard"].executable
    assert list(compare(found, target)) == []


def test_another_umask_and_another_time_are_no_difference(tree: Path) -> None:
    (tree / "text").chmod(0o400)
    os.utime(tree / "text", (1, 1))
    assert differences(tree) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: (tree / "text").write_bytes(b"tex_\n"), [("changed", "text")]),
        (lambda tree: (tree / "text").write_bytes(b"text\n\n"), [("changed", "text")]),
        (lambda tree: (tree / "text").chmod(0o755), [("changed", "text")]),
        (lambda tree: (tree / "run").chmod(0o644), [("changed", "hard"), ("changed", "run")]),
        (lambda tree: (tree / "text").unlink(), [("missing", "text")]),
        (lambda tree: shutil.rmtree(tree / "a"), [("missing", "a")]),
        (lambda tree: (tree / "more").write_bytes(b""), [("extra", "more")]),
        (lambda tree: (tree / ".git").mkdir(), [("extra", ".git/")]),
        (lambda tree: os.mkfifo(tree / "a" / "pipe"), [("extra", "a/pipe")]),
        (lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("run")), [("changed", "link")]),
        (lambda tree: ((tree / "link").unlink(), (tree / "link").write_bytes(b"text\n")), [("changed", "link")]),
        # bytes that are the right ones, but elsewhere: a link is not followed
        (lambda tree: ((tree / "text").rename(tree / "run2"), (tree / "text").symlink_to("run2")),
         [("extra", "run2"), ("changed", "text")]),
        (folder_becomes_link, [("changed", "a")]),
        (lambda tree: ((tree / "text").unlink(), (tree / "text").mkdir()), [("changed", "text")]),
    ],
)  # fmt: skip
def test_every_change_is_told_by_its_name(tree: Path, change: object, expected: list[tuple[str, str]]) -> None:
    assert callable(change)
    change(tree)
    assert differences(tree) == expected


def test_a_tree_that_cannot_be_read_is_no_clean_one(tree: Path) -> None:
    known = listed(tree.parent / "pkg.tar")
    with pytest.raises(EnvironmentLack, match="cannot be read"):
        list(compare(known, tree / "text"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("pkg-1.0/../up", tarfile.REGTYPE), ("other/x", tarfile.REGTYPE), ("pkg-1.0/device", tarfile.CHRTYPE)],
)
def test_an_archive_that_no_source_is_like_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    with pytest.raises(ValueError, match=r"top folders|is called|neither"):
        listed(archive(tmp_path, extra=(member,)))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{}",
        b'["../x", "file", false, 1, ""]',
        b'["a//b", "file", false, 1, ""]',
        b'["x", "device", false, 1, ""]',
        b'["x", "file", 1, 1, ""]',
        b'["x", "file", false, 1, ""]\n["x", "file", false, 1, ""]',
        b'["x", "file", false, 1',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_comes_out_of_the_cell_is_believed_in_nothing(said: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse(said)


def test_an_answer_of_the_right_form_is_taken() -> None:
    assert parse(json.dumps(["a/b", "link", False, 0, "c"]).encode())["a"].kind == "dir"
    assert Difference(kind="extra", path="x").what == ""
