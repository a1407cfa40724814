"""The kernel's file calls, each doing what the walk relies on."""

from __future__ import annotations

import errno
import hashlib
import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from anvil.errors import DiskFull, EnvironmentLack, UsageError
from anvil.vault.disk import (
    CHUNK,
    _pieces,
    chmod_entry,
    copy_and_hash,
    extents,
    foreign,
    hash_file,
    open_directory,
    translated,
)
from tests.vault.support import in_namespace, needs_root, needs_unshare, python_script, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    write_tree(tmp_path, {"folder/inner/file": "x", "file": "x"})
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "root").symlink_to("/")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_directory_is_opened(parent: int) -> None:
    fd = open_directory("folder", parent)
    assert os.listdir(fd) == ["inner"]
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("name", ["link", "root", "link/inner", "..", "/", "folder/../..", "file", "nothing"])
def test_nothing_else_is(parent: int, name: str) -> None:
    with pytest.raises(OSError, match=r"symbolic|cross-device|directory") as caught:
        open_directory(name, parent)
    assert caught.value.errno in {errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.ENOENT}


@needs_root
@needs_unshare
@pytest.mark.parametrize("what", ["-t tmpfs tmpfs", '--bind "$1/other"'])
def test_a_mount_is_not_entered(tmp_path: Path, what: str) -> None:
    write_tree(tmp_path, {"folder/inner/file": "x", "other/file": "x"})
    script = python_script("""
        import errno
        from anvil.errors import EnvironmentLack
        from anvil.vault import Layers, OutputLimits, Vault
        from anvil.vault.disk import open_directory
        root = Path(sys.argv[1])
        parent = os.open(root / "folder", os.O_RDONLY)
        try:
            open_directory("inner", parent)
        except OSError as problem:
            assert problem.errno == errno.EXDEV, problem
        else:
            raise SystemExit("entered")
        os.open("inner", os.O_RDONLY, dir_fd=parent)  # the control: the ordinary call enters
        try:
            Layers(Vault(root / "vault")).collect(root / "folder", kind="tree", limits=OutputLimits(total_bytes=99))
        except EnvironmentLack:
            pass
        else:
            raise SystemExit("collected")
    """)
    in_namespace(f'mount {what} "$1/folder/inner"; {script} "$1"', tmp_path)


def test_the_mode_of_a_link_is_nobodys_business(tmp_path: Path, parent: int) -> None:
    before = (tmp_path / "folder").stat().st_mode
    chmod_entry("link", parent, 0o000)
    assert (tmp_path / "folder").stat().st_mode == before
    chmod_entry("file", parent, 0o640)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_extents_cover_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as stream:
        stream.write(b"a" * 5000)
        stream.truncate(3 * CHUNK)
        stream.seek(2 * CHUNK)
        stream.write(b"b")
    fd = os.open(path, os.O_RDONLY)
    pieces = list(extents(fd, 3 * CHUNK))
    os.close(fd)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == 3 * CHUNK
    assert all(one[1] == two[0] for one, two in pairwise(pieces))


@pytest.mark.parametrize("size", [0, 1, CHUNK + 5])
@pytest.mark.parametrize("clone", [True, False])
def test_copies_are_equal_and_hashed(tmp_path: Path, size: int, *, clone: bool) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    digest = hashlib.sha256(data).hexdigest()
    assert copy_and_hash(source, target, size, clone=clone) == digest
    assert hash_file(target, size) == digest
    assert (tmp_path / "target").read_bytes() == data
    os.close(source)
    os.close(target)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(OSError, match="shorter"):
        list(_pieces(fd, 0, 99))
    os.close(fd)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_from_other_lacks(number: int) -> None:
    assert isinstance(foreign(OSError(number, "x"), "writing"), DiskFull)
    other = foreign(OSError(errno.EIO, "x", "/file"), "writing")
    assert not isinstance(other, DiskFull)
    assert isinstance(other, EnvironmentLack)
    assert other.where == "/file"
    assert "kernel's log" in other.hint


def test_errors_of_ours_pass_the_door_unchanged() -> None:
    problem = UsageError("ours")
    with pytest.raises(UsageError) as caught, translated("writing"):
        raise problem
    assert caught.value is problem
