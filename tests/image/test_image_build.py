"""A lock becomes an image once, whole or not at all, and always the same."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import stat
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from anvil.errors import CardJam, DiskFull, EnvironmentLack, HashMismatch, IntegrityError, Interrupted, SourceGone
from anvil.image import build
from anvil.image.build import Bootstrap, Image, Maker, ensure_image, find_image, image_digest
from anvil.image.tidy import tree_digest, tree_lines
from tests.image.forged_debs import BASE, TOOL, Member, Shelf, deb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(kw_only=True)
class FakeCell:
    """Does to the tree what set-up scripts do, and what they should not."""

    act: Callable[[Path], None] = lambda _root: None
    code: int = 0
    said: str = "bootstrap done\n"
    asked: list[Bootstrap] = field(default_factory=list)

    def __call__(self, asked: Bootstrap) -> int:
        self.asked.append(asked)
        asked.log.write_text(self.said)
        self.act(asked.rootfs)
        return self.code


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "debs").mkdir()
    shelf = Shelf(folder=tmp_path / "debs")
    shelf.add("base", BASE)
    shelf.add("tool", TOOL)
    return shelf


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "images"
    for folder, names, _ in os.walk(tmp_path):
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                os.chmod(os.path.join(folder, name), 0o755)


def make(shelf: Shelf, images: Path, cell: FakeCell | None = None) -> Image:
    return ensure_image(shelf.lock(), images, Maker(debs=shelf.path, run_cell=cell or FakeCell()))


def left(images: Path) -> list[str]:
    """What lies in the images' folder beside lock files."""
    return sorted(name for name in os.listdir(images) if not name.endswith(".lock"))


def test_the_image_is_made_once(shelf: Shelf, images: Path) -> None:
    cell = FakeCell()
    lock = shelf.lock()
    assert find_image(lock, images) is None
    image = make(shelf, images, cell)
    assert image.rootfs == images / image_digest(lock) / "rootfs"
    assert left(images) == [image.digest]
    assert find_image(lock, images) == image

    def refuse(_file: object) -> Path:
        raise AssertionError("nothing is to be read for an image that is there")

    assert ensure_image(lock, images, Maker(debs=refuse, run_cell=cell)) == image
    assert len(cell.asked) == 1
    stamp = json.loads((images / image.digest / "image.json").read_text())
    assert stamp["packages"] == {"base": "1", "tool": "1"}
    assert stamp["tree"] == image.tree == tree_digest(image.rootfs)


def test_what_is_in_the_tree(shelf: Shelf, images: Path) -> None:
    root = make(shelf, images).rootfs
    for name in ("in", "out", "work", "tmp", "run", "proc", "dev"):
        assert os.listdir(root / name) == []
    assert "anvil:x:1000:1000:" in (root / "etc/passwd").read_text()
    assert (root / "etc/passwd").read_text().startswith("root:")
    assert (root / "etc/machine-id").read_bytes() == b""
    assert os.listdir(root / "usr/share/doc") == []
    assert os.listdir(root / "var/lib/dpkg") == []
    assert not (root / "usr/sbin/policy-rc.d").exists()
    assert os.path.samefile(root / "usr/bin/tool", root / "usr/bin/tool-again")
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) in (0o755, 0o644), path


def test_the_scripts_find_a_database_and_run_in_the_locks_order(shelf: Shelf, images: Path) -> None:
    seen: dict[str, str] = {}

    def look(root: Path) -> None:
        info = root / "var/lib/dpkg/info"
        seen["files"] = " ".join(sorted(os.listdir(info)))
        seen["list"] = (info / "tool:amd64.list").read_text()
        seen["status"] = (root / "var/lib/dpkg/status").read_text()
        assert os.access(info / "base.postinst", os.X_OK)
        assert os.access(root / "var/lib/anvil-bootstrap/chown", os.X_OK)

    cell = FakeCell(act=look)
    make(shelf, images, cell)
    assert seen["files"] == "base.list base.postinst format tool:amd64.list tool:amd64.preinst tool:amd64.templates"
    assert seen["list"] == "/.\n/bin\n/bin/tool\n/usr/bin/tool-again\n"
    assert "Package: tool\nStatus: install ok installed\nVersion: 1\n" in seen["status"]
    assert "Description: a tool\n of two lines\n" in seen["status"]
    runs = [line for line in cell.asked[0].script.splitlines() if line.startswith("run ")]
    assert runs == ["run tool amd64 tool:amd64 preinst install", "run base amd64 base postinst configure"]


def messy(root: Path) -> None:
    """Leave what a hostile or careless script may leave, different each time."""
    (root / "etc/made").write_text("made")
    (root / "var/log").mkdir(exist_ok=True)
    (root / "var/log/alternatives.log").write_text(time.ctime())
    (root / "etc/shadow").write_text(f"root:*:{time.time_ns()}")
    (root / "usr/bin/suid").write_bytes(b"")
    os.chmod(root / "usr/bin/suid", 0o6711)
    os.mkfifo(root / "usr/bin/pipe")
    (root / "etc/link").symlink_to("/proc/self/environ")
    (root / "srv").mkdir()
    (root / "srv/sealed").mkdir()
    (root / "srv/sealed/x").write_text("x")
    os.chmod(root / "srv/sealed", 0)


def test_equal_locks_give_equal_bytes(shelf: Shelf, images: Path, tmp_path: Path) -> None:
    first = make(shelf, images, FakeCell(act=messy))
    time.sleep(1.1)
    old = os.umask(0o077)
    try:
        second = make(shelf, tmp_path / "again", FakeCell(act=messy))
    finally:
        os.umask(old)
    assert list(tree_lines(first.rootfs)) == list(tree_lines(second.rootfs))
    assert first.tree == second.tree
    assert (first.rootfs / "etc/made").exists()
    assert stat.S_IMODE((first.rootfs / "usr/bin/suid").stat().st_mode) == 0o755
    assert not os.path.lexists(first.rootfs / "usr/bin/pipe")
    assert os.listdir(first.rootfs / "srv") == []
    assert not (first.rootfs / "etc/shadow").exists()


def test_the_digest_is_of_what_matters(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = shelf.lock()
    assert image_digest(replace(lock, resolved="1999-01-01")) == image_digest(lock)
    assert image_digest(replace(lock, packages=lock.packages[::-1])) != image_digest(lock)
    before = image_digest(lock)
    monkeypatch.setattr(build, "CONTRACT", build.CONTRACT + 1)
    assert image_digest(lock) != before


def test_a_missing_and_a_changed_package(shelf: Shelf, images: Path) -> None:
    path = shelf.path(shelf.packages[1].file)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\0")
    with pytest.raises(HashMismatch, match=r"tool_1_amd64\.deb is not the pinned one"):
        make(shelf, images)
    path.unlink()
    with pytest.raises(SourceGone, match=r"tool_1_amd64\.deb is not here") as caught:
        make(shelf, images)
    assert caught.value.exit_code == 3
    assert left(images) == []
    path.write_bytes(good)
    make(shelf, images)


def test_a_hostile_package_leaves_nothing(shelf: Shelf, images: Path) -> None:
    shelf.add("evil", deb(Member(name="../../evil")))
    with pytest.raises(IntegrityError, match=r"'\.\.'") as caught:
        make(shelf, images)
    assert caught.value.where == "evil_1_amd64.deb"
    assert left(images) == []


@pytest.mark.parametrize("cell", [FakeCell(code=1, said="awk: not found\n"), FakeCell(said="it stopped early\n")])
def test_a_script_that_fails_jams(shelf: Shelf, images: Path, cell: FakeCell) -> None:
    with pytest.raises(CardJam, match="script failed") as caught:
        make(shelf, images, cell)
    assert caught.value.detail == cell.said.strip()
    assert left(images) == []


def refuse_room(_root: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def refuse_entry(_root: Path) -> None:
    raise OSError(errno.EACCES, "Permission denied")


def test_foreign_errors_are_translated(shelf: Shelf, images: Path) -> None:
    with pytest.raises(DiskFull, match="no room"):
        make(shelf, images, FakeCell(act=refuse_room))
    with pytest.raises(EnvironmentLack, match="Permission denied"):
        make(shelf, images, FakeCell(act=refuse_entry))
    assert left(images) == []


def test_a_full_disk_is_not_blamed_on_the_script(shelf: Shelf, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FLOOR", 1 << 62)
    with pytest.raises(DiskFull):
        make(shelf, images, FakeCell(code=1))


@pytest.mark.parametrize("after", range(6))
def test_cancel_leaves_nothing(shelf: Shelf, images: Path, after: int) -> None:
    asked = iter([*[False] * after, *[True] * 99])
    maker = Maker(debs=shelf.path, run_cell=FakeCell(), cancel=lambda: next(asked))
    with pytest.raises(Interrupted):
        ensure_image(shelf.lock(), images, maker)
    assert left(images) == []


def test_an_interrupt_leaves_nothing(shelf: Shelf, images: Path) -> None:
    def interrupt(root: Path) -> None:
        messy(root)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(shelf, images, FakeCell(act=interrupt))
    assert left(images) == []


def _make_and_hang(shelf: Shelf, images: Path, reached: int) -> None:
    def hang(_root: Path) -> None:
        os.write(reached, b"x")
        time.sleep(60)

    make(shelf, images, FakeCell(act=hang))


def test_a_killed_maker_leaves_no_half_image(shelf: Shelf, images: Path) -> None:
    reader, writer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_make_and_hang, args=(shelf, images, writer))
    process.start()
    assert os.read(reader, 1) == b"x"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    os.close(reader)
    os.close(writer)
    assert find_image(shelf.lock(), images) is None
    assert left(images) == [f"tmp-{image_digest(shelf.lock())}"]
    image = make(shelf, images)
    assert left(images) == [image.digest]


def test_a_second_maker_waits_for_the_first(shelf: Shelf, images: Path) -> None:
    waits, go = threading.Event(), threading.Event()

    def wait(_root: Path) -> None:
        go.set()
        assert waits.wait(20)

    cell = FakeCell(act=wait)
    made: list[Image] = []
    first = threading.Thread(target=lambda: made.append(make(shelf, images, cell)))
    first.start()
    assert go.wait(20)

    def progress(stage: str, _done: int, _of: int) -> None:
        if stage == "wait":
            waits.set()

    second = FakeCell()
    made.append(ensure_image(shelf.lock(), images, Maker(debs=shelf.path, run_cell=second, progress=progress)))
    first.join()
    assert waits.is_set()
    assert made[0] == made[1]
    assert second.asked == []


def test_damage_to_a_finished_image_is_made_again(shelf: Shelf, images: Path) -> None:
    image = make(shelf, images)
    (images / image.digest / "image.json").write_text("{")
    assert find_image(shelf.lock(), images) is None
    assert make(shelf, images) == image


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_as_root_the_scripts_uid_owns_the_tree_only_while_they_run(shelf: Shelf, images: Path) -> None:
    owners: list[int] = []
    cell = FakeCell(act=lambda root: owners.extend(path.lstat().st_uid for path in [root, *root.rglob("*")]))
    image = ensure_image(shelf.lock(), images, Maker(debs=shelf.path, run_cell=cell, cell_uid=54321))
    assert set(owners) == {54321}
    assert {path.lstat().st_uid for path in [image.rootfs, *image.rootfs.rglob("*")]} == {0}
