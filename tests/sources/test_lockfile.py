from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import anvil.sources
from anvil.errors import RecipeError
from anvil.model.lock import ImageLock, Package, PinnedFile, Source, SourceLock
from anvil.sources import lockfile
from anvil.sources.resolve import kernel_supported, with_libraries_of

LOCKS = Path(anvil.sources.__file__).parent / "locks"
SHA = "0123456789abcdef" * 4
FILE = PinnedFile(
    name="zlib_1.3.orig.tar.gz", sha256=SHA, size=7, archive="debian", path="pool/z/zlib_1.3.orig.tar.gz"
)
LOCK = SourceLock(
    profile="debian",
    resolved="2026-11-24",
    sources={"zlib": Source(name="zlib", version="1.3", licence="Zlib", files=(FILE,), facts={"a": "b"})},
)
IMAGE = ImageLock(
    name="build",
    resolved="2026-11-24",
    architecture="amd64",
    packages=(
        Package(name="libc6", version="2.41-12", architecture="amd64", file=FILE),
        Package(name="bash", version="5.2-3+b1", architecture="amd64", file=replace(FILE, sha256=SHA[::-1])),
    ),
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "locks/debian.json"
    lockfile.write_source_lock(LOCK, path)
    return path


def test_a_source_lock_comes_back_and_its_bytes_are_stable(written: Path) -> None:
    assert lockfile.read_source_lock(written) == LOCK
    first = written.read_bytes()
    lockfile.write_source_lock(lockfile.read_source_lock(written), written)
    assert written.read_bytes() == first
    assert first.startswith(b'{\n  "format": 1,\n  "kind": "source-lock"')
    assert first.endswith(b"}\n")
    assert [path.name for path in written.parent.iterdir()] == ["debian.json"]


def test_an_image_lock_comes_back_in_its_order(tmp_path: Path) -> None:
    lockfile.write_image_lock(IMAGE, tmp_path / "build.json")
    assert lockfile.read_image_lock(tmp_path / "build.json") == IMAGE
    assert [one.sha256 for one in lockfile.files(IMAGE)] == [SHA, SHA[::-1]]


def test_an_unknown_size_is_null(tmp_path: Path) -> None:
    file = PinnedFile(name="linux.tar.xz", sha256=SHA, size=0, url="https://example.org/linux.tar.xz")
    lock = replace(LOCK, sources={"linux": replace(LOCK.sources["zlib"], name="linux", files=(file,))})
    lockfile.write_source_lock(lock, tmp_path / "seed.json")
    assert json.loads((tmp_path / "seed.json").read_text())["sources"]["linux"]["files"][0]["size"] is None
    assert lockfile.read_source_lock(tmp_path / "seed.json") == lock


def test_the_digest_is_of_what_is_in_it() -> None:
    base = lockfile.digest(LOCK)
    source = LOCK.sources["zlib"]

    def of(changed: Source) -> str:
        return lockfile.digest(replace(LOCK, sources={"zlib": changed}))

    assert lockfile.digest(replace(LOCK, resolved="2027-01-01", profile="mine")) == base
    assert of(replace(source, files=(replace(FILE, path="pool/elsewhere", archive="debian-security"),))) == base
    assert of(replace(source, files=(replace(FILE, sha256=SHA[::-1]),))) != base
    assert of(replace(source, version="1.4")) != base
    assert of(replace(source, facts={})) != base
    assert of(replace(source, licence="MIT")) != base
    image = lockfile.digest(IMAGE)
    assert lockfile.digest(replace(IMAGE, resolved="2027-01-01", name="other")) == image
    assert lockfile.digest(replace(IMAGE, packages=IMAGE.packages[::-1])) != image
    assert lockfile.digest(replace(IMAGE, architecture="arm64")) != image


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda lock: lock.pop("profile"), "profile: is missing"),
        (lambda lock: lock.update(extra=1), "extra: is not a field"),
        (lambda lock: lock.update(kind="image-lock"), "kind"),
        (lambda lock: lock.update(format=2), "format"),
        (lambda lock: lock.update(resolved="today"), "resolved"),
        (lambda lock: lock.update(sources=[]), "sources"),
        (lambda lock: lock["sources"].update({"../x": {}}), "sources.../x"),
        (lambda lock: lock["sources"]["zlib"].update(files=[]), "sources.zlib.files"),
        (lambda lock: lock["sources"]["zlib"].update(version=1.3), "sources.zlib.version"),
        (lambda lock: lock["sources"]["zlib"].update(licence=""), "sources.zlib.licence"),
        (lambda lock: lock["sources"]["zlib"].update(facts={"a": 1}), "sources.zlib.facts.a"),
        (lambda lock: lock["sources"]["zlib"].update(facts={"A b": "1"}), "sources.zlib.facts.A b"),
        (lambda lock: lock["sources"]["zlib"]["files"].append("x"), "sources.zlib.files[1]"),
    ],
)
def test_a_wrong_lock_is_refused_by_field(written: Path, change: Change, field: str) -> None:
    data = json.loads(written.read_text())
    change(data)
    written.write_text(json.dumps(data))
    with pytest.raises(RecipeError) as caught:
        lockfile.read_source_lock(written)
    assert field in caught.value.message
    assert caught.value.where == str(written)
    assert "anvil sources update" in caught.value.hint


@pytest.mark.parametrize(
    "file",
    [
        {"sha256": SHA[:-1]},
        {"sha256": SHA.upper()},
        {"size": 0},
        {"size": -1},
        {"size": True},
        {"size": 1.0},
        {"size": "7"},
        {"name": "../x"},
        {"name": ".hidden"},
        {"name": "a/b"},
        {"name": "a\n"},
        {"path": "/etc/passwd"},
        {"path": "pool/../../x"},
        {"path": "pool//x"},
        {"path": "pool/x\\y"},
        {"path": "pool/./x"},
        {"archive": "De bian"},
        {"archive": ""},
        {"url": "https://example.org/x"},
        {"archive": None, "path": None},
        {"archive": None, "path": None, "url": "file:///etc/passwd"},
        {"archive": None, "path": None, "url": "ftp://example.org/x"},
        {"archive": None, "path": None, "url": "https://user:word@example.org/x"},
        {"archive": None, "path": None, "url": "https:///x"},
        {"archive": None, "path": None, "url": "https://[x/"},
        {"extra": 1},
    ],
)
def test_a_wrong_file_is_refused(written: Path, file: dict[str, Any]) -> None:
    data = json.loads(written.read_text())
    pinned = data["sources"]["zlib"]["files"][0]
    pinned.update(file)
    data["sources"]["zlib"]["files"][0] = {key: value for key, value in pinned.items() if value is not None}
    written.write_text(json.dumps(data))
    with pytest.raises(RecipeError, match=r"files\[0\]"):
        lockfile.read_source_lock(written)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"a":1,"a":2}', '{"a":NaN}', "[" * 100_000])
def test_what_is_no_json_object_is_refused(written: Path, text: str) -> None:
    written.write_text(text, encoding="latin-1")
    with pytest.raises(RecipeError):
        lockfile.read_source_lock(written)


def test_no_lock_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no lock") as caught:
        lockfile.read_source_lock(tmp_path / "none.json")
    assert "anvil sources update" in caught.value.hint
    with pytest.raises(RecipeError):
        lockfile.read_source_lock(tmp_path)


NAMES = st.sampled_from(["kind", "format", "sources", "profile", "resolved", "packages"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["source-lock", "image-lock"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=8)


@given(VALUES)
def test_any_json_is_a_lock_or_refused(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    for read in (lockfile.read_source_lock, lockfile.read_image_lock):
        with pytest.raises(RecipeError):
            read(path)


@pytest.mark.parametrize("profile", ["debian", "seed"])
def test_the_committed_locks(profile: str, tmp_path: Path) -> None:
    path = LOCKS / f"{profile}.json"
    lock = lockfile.read_source_lock(path)
    assert lock.profile == profile
    lockfile.write_source_lock(lock, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert {"linux", "zfs", "busybox", "util-linux", "zlib", "openssl", "libtirpc", "musl"} <= set(lock.sources)
    assert kernel_supported(lock.sources["linux"].version, lock.sources["zfs"].facts)


def test_the_seed_lock_pins_upstreams_files_and_shares_the_libraries() -> None:
    seed = lockfile.read_source_lock(LOCKS / "seed.json")
    pinned = {name: (source.version, source.files[0].sha256[:8]) for name, source in seed.sources.items()}
    assert pinned["linux"] == ("6.6.14", "fbe96b2d")
    assert pinned["zfs"] == ("2.2.2", "76bc0547")
    assert pinned["busybox"] == ("1.36.1", "b8cc24c9")
    assert pinned["postgresql"] == ("16.1", "ce3c4d85")
    assert with_libraries_of(seed, lockfile.read_source_lock(LOCKS / "debian.json")) == seed
