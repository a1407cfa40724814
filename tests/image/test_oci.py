"""The OCI archive and the container's wheels: same bytes for the same tree, and nothing that no reader would take."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.errors import EnvironmentLack, HashMismatch, IntegrityError, RecipeError
from anvil.image import oci, wheel
from tests.image import oci_reader

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = oci.Config(name="small", entrypoint=("/bin/x",), env={"B": "2", "A": "1"}, folders=("/opt/a/code",))


def tree(top: Path, *, late: bool = False) -> Path:
    """A small root, its files made in another order with ``late``."""
    top.mkdir()
    (top / "usr").mkdir()
    steps: list[Callable[[], object]] = [
        lambda: (top / "usr" / "tool").write_bytes(b"#!"),
        lambda: (top / "bin").symlink_to("usr"),
        lambda: (top / ("long-" * 30)).write_text("a name that a plain tar has no room for"),
        lambda: (top / "é").write_text("not ASCII"),
    ]
    for step in reversed(steps) if late else steps:
        step()
    (top / "usr" / "tool").chmod(0o755)
    os.utime(top / "usr", (1, 1 + late))
    return top


def contents(top: Path, more: Path) -> oci.Contents:
    return oci.Contents(rootfs=top, trees={"/opt/a/more": more})


@pytest.fixture
def more(tmp_path: Path) -> Path:
    folder = tmp_path / "more"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "m.py").write_text("x = 1\n")
    return folder


def test_the_archive_says_what_the_tree_is_and_what_to_run(tmp_path: Path, more: Path) -> None:
    path = tmp_path / "a.tar"
    digest = oci.export(contents(tree(tmp_path / "root"), more), CONFIG, path)
    found = oci_reader.read(path)
    assert (found.manifest, found.reference) == (f"sha256:{digest}", "small:latest")
    assert found.config["config"]["Env"] == ["A=1", "B=2"]
    assert found.config["config"]["Entrypoint"] == ["/bin/x"]
    assert set(found.entries) == {
        "bin", "long-" * 30, "opt", "opt/a", "opt/a/code", "opt/a/more", "opt/a/more/pkg", "opt/a/more/pkg/m.py",
        "usr", "usr/tool", "é",
    }  # fmt: skip
    assert found.entries["usr/tool"].mode == 0o755
    assert found.entries["bin"].linkname == "usr"
    assert found.contents["opt/a/more/pkg/m.py"] == b"x = 1\n"
    assert {(e.uid, e.gid, e.uname, e.mtime) for e in found.entries.values()} == {(0, 0, "", oci.EPOCH)}
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_same_tree_gives_the_same_bytes_and_another_one_others(tmp_path: Path, more: Path) -> None:
    one, two, three = tmp_path / "1.tar", tmp_path / "2.tar", tmp_path / "3.tar"
    oci.export(contents(tree(tmp_path / "one"), more), CONFIG, one)
    other = tree(tmp_path / "two", late=True)
    oci.export(contents(other, more), CONFIG, two)
    assert one.read_bytes() == two.read_bytes()
    (other / "usr" / "tool").chmod(0o644)
    oci.export(contents(other, more), CONFIG, three)
    assert one.read_bytes() != three.read_bytes()


def test_the_strict_reader_sees_a_changed_byte_and_a_blob_too_many(tmp_path: Path, more: Path) -> None:
    path = tmp_path / "a.tar"
    oci.export(contents(tree(tmp_path / "root"), more), CONFIG, path)
    whole = path.read_bytes()
    assert whole.count(b'"amd64"') == 1
    path.write_bytes(whole.replace(b'"amd64"', b'"arm64"'))
    with pytest.raises(ValueError, match="digest"):
        oci_reader.read(path)
    path.write_bytes(whole)
    with tarfile.open(path, "a:") as archive:
        entry = tarfile.TarInfo("blobs/sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(ValueError, match="nothing refers"):
        oci_reader.read(path)


def test_skopeo_takes_it_and_finds_the_same_digest(tmp_path: Path, more: Path) -> None:
    tool = shutil.which("skopeo")
    if tool is None:
        pytest.skip("skopeo is not installed: only the tests' own strict reader has judged the archive")
    path = tmp_path / "a.tar"
    digest = oci.export(contents(tree(tmp_path / "root"), more), CONFIG, path)
    words = [tool, "inspect", "--format", "{{.Digest}}", f"oci-archive:{path}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"sha256:{digest}"


def test_an_archive_that_cannot_be_written_leaves_nothing(tmp_path: Path, more: Path) -> None:
    root = tree(tmp_path / "root")
    with pytest.raises(EnvironmentLack):
        oci.export(contents(root, more), CONFIG, tmp_path / "nowhere" / "a.tar")
    assert not (tmp_path / "nowhere").exists()


def made_wheel(path: Path, members: dict[str, bytes], *, kind: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            archive.writestr(info, data)
    return path


def test_a_wheel_is_unpacked_with_plain_modes_and_times(tmp_path: Path) -> None:
    members = {"pkg/": b"", "pkg/a.py": b"1", "pkg-1.dist-info/RECORD": b""}
    path = made_wheel(tmp_path / "a.whl", members, kind=0o100777)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "pkg/"
    out = tmp_path / "out"
    out.mkdir()
    wheel.unpack(path, out)
    found = out / "pkg" / "a.py"
    assert (found.read_bytes(), found.stat().st_mode & 0o777, found.stat().st_mtime) == (b"1", 0o644, wheel.EPOCH)


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "a//b", "a b", "a/./b", "a\nb"])
def test_a_wheel_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    path = made_wheel(tmp_path / "a.whl", {name: b"1"})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError, match="no member like"):
        wheel.unpack(path, out)
    assert sorted(tmp_path.iterdir()) == [path, out]


def test_a_wheel_with_a_link_or_no_zip_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no member like"):
        wheel.unpack(made_wheel(tmp_path / "a.whl", {"a": b"/etc"}, kind=0o120777), tmp_path)
    (tmp_path / "b.whl").write_bytes(b"PK no")
    with pytest.raises(IntegrityError, match="no wheel"):
        wheel.unpack(tmp_path / "b.whl", tmp_path)


def test_only_the_pinned_wheel_is_taken(tmp_path: Path) -> None:
    [locked] = wheel.read_lock()
    (tmp_path / locked.name).write_bytes(b"other")
    with pytest.raises(HashMismatch):
        wheel.verified(locked, tmp_path / locked.name)
    (tmp_path / "lock.json").write_text('{"wheels": [{"name": "../a.whl", "sha256": "0", "size": 1, "why": ""}]}')
    with pytest.raises(RecipeError):
        wheel.read_lock(tmp_path / "lock.json")


def test_the_wheel_is_one_that_the_requirements_pin_too() -> None:
    pinned = (Path(__file__).parents[2] / "requirements" / "core.lock").read_text(encoding="utf-8")
    for each in wheel.read_lock():
        assert f"sha256:{each.sha256}" in pinned
