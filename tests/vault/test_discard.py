"""Deleting: everything, quickly, and nothing else."""

from __future__ import annotations

import os
import resource
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from anvil.errors import EnvironmentLack
from anvil.vault import discard
from tests.vault.support import as_user, in_namespace, needs_root, needs_unshare, python_script, write_tree

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_not_there_is_gone_already(tmp_path: Path) -> None:
    discard(tmp_path / "nothing")
    discard(tmp_path / "no/where")


def test_files_links_and_trees(tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"keep": "x"})
    tree = write_tree(tmp_path / "tree", {"a/b/c": "x", "a/d": "y"})
    (tree / "out").symlink_to(outside)
    (tree / "a/up").symlink_to("..")
    os.mkfifo(tree / "fifo")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "file").write_bytes(b"")
    for name in ("tree", "link", "file"):
        discard(tmp_path / name)
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == ["keep"]


def test_a_users_closed_folders(open_path: Path) -> None:
    def act() -> None:
        tree = write_tree(open_path / "tree", {"a/b/c": "x", "read-only/x": "", "e/f": ""})
        for name, mode in {"a/b": 0, "a": 0o100, "read-only": 0o555, "e": 0o300}.items():
            (tree / name).chmod(mode)
        tree.chmod(0o500)
        discard(tree)
        assert not tree.exists()

    as_user(act)


@pytest.mark.parametrize("as_whom", [as_user, lambda act: act()], ids=["user", "self"])
def test_a_tree_deeper_than_a_process_has_descriptors(open_path: Path, as_whom: object) -> None:
    def act() -> None:
        os.mkdir(open_path / "deep")
        here = os.open(open_path / "deep", os.O_RDONLY)
        for _ in range(400):
            os.mkdir("d", dir_fd=here)
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))  # other tests in this process have theirs
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, hard))
        try:
            discard(open_path / "deep")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not os.listdir(open_path)

    as_whom(act)  # type: ignore[operator]


@needs_root
@needs_unshare
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_is_never_crossed(tmp_path: Path, kind: str) -> None:
    """A cache that deleted a bind mount of /usr is why; the same file system is no reason to enter either."""
    write_tree(tmp_path, {"outside/keep": "x", "tree/a/mounted/under": "x", "tree/b/c": "x"})
    mount = (
        'mount -t tmpfs tmpfs "$1/tree/a/mounted"'
        if kind == "tmpfs"
        else 'mount --bind "$1/outside" "$1/tree/a/mounted"'
    )
    script = python_script("""
        from anvil.errors import EnvironmentLack
        from anvil.vault import discard
        root = Path(sys.argv[1])
        (root / "tree/a/mounted/keep").write_text("y")
        try:
            discard(root / "tree")
        except EnvironmentLack:
            pass
        else:
            raise SystemExit("it says it is gone")
        assert (root / "tree/a/mounted/keep").read_text() == "y"
    """)
    in_namespace(f'{mount}; {script} "$1"', tmp_path)
    assert (tmp_path / "outside/keep").read_text(encoding="utf-8") == ("x" if kind == "tmpfs" else "y")


def test_what_another_deletes_meanwhile_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection and a forge may both take old logs away at once."""
    tree = write_tree(
        tmp_path / "tree", {f"{folder}/{part}/{file}": "" for folder in "abc" for part in "xy" for file in "12"}
    )
    real, count = os.unlink, 0

    def unlink(name: str, *, dir_fd: int) -> None:
        nonlocal count
        count += 1
        if count == 2:  # after the tree itself has shown to be a directory: another is quicker with all of it
            shutil.rmtree(tree)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    discard(tree)
    assert count >= 2
    assert not tree.exists()


def test_the_error_names_the_tree(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLack, match="deleting a tree") as caught:
        discard(tmp_path / ("x" * 300))
    assert caught.value.where


def test_it_is_quick(tmp_path: Path) -> None:
    tree = tmp_path / "many"
    for number in range(40):
        (tree / str(number)).mkdir(parents=True)
        for inner in range(100):
            (tree / str(number) / str(inner)).touch()
    started = time.process_time()
    discard(tree)
    # 4,000 files: the aim is 85,000 in two seconds, of which the file system takes its own part
    assert time.process_time() - started < 1
