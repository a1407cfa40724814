"""Layers as directories and back, and the questions a stack answers."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil.errors import IntegrityError, OutputForbidden, UsageError
from anvil.model.layer import Digest, Entry, Manifest
from anvil.vault import Layer, Layers, Vault, discard, verify
from anvil.vault import layers as layers_module
from anvil.vault.compare import difference
from anvil.vault.manifest import FIXED_TIME_NS, parent_of
from tests.vault.support import LIMITS, write_tree

if TYPE_CHECKING:
    from pathlib import Path

NAME = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1, max_size=12
).filter(lambda name: name not in {".", ".."} and not any(127 <= ord(letter) < 160 for letter in name))
WHAT = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=40), st.sampled_from([0o644, 0o755, 0o600, 0o444, 0])),
    st.tuples(st.just("dir"), st.just(b""), st.sampled_from([0o755, 0o700, 0o555, 0])),
    st.tuples(st.just("link"), NAME.map(str.encode), st.just(0)),
)
RandomTree = dict[str, tuple[str, bytes, int]]
TREE = st.dictionaries(st.lists(NAME, min_size=1, max_size=4).map("/".join), WHAT, max_size=12)


def lay_out(root: Path, tree: RandomTree) -> None:
    """Write what of a random tree can be written; modes last, so that closed folders can be filled."""
    root.mkdir()
    modes: dict[str, int] = {}
    for path, (kind, data, mode) in sorted(tree.items()):
        target = root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                with open(target, "xb") as stream:
                    stream.write(data)
            elif kind == "dir":
                target.mkdir()
            else:
                target.symlink_to(os.fsdecode(data))
        except OSError:
            continue
        if kind != "link":
            modes[path] = mode
    for number, path in enumerate(sorted(modes, reverse=True)):
        (root / path).chmod(modes[path])
        os.utime(root / path, ns=(number, 1_000_000_007 * number - 5))


@settings(max_examples=25, deadline=None)
@given(tree=TREE)
def test_any_tree_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, tree: RandomTree) -> None:
    work = tmp_path_factory.mktemp("tree")
    layers = Layers(Vault(work / "vault"))
    lay_out(work / "out", tree)
    left = layers.collect(work / "out", kind="tree", limits=LIMITS)
    assert left.files == len(left.manifest.entries)
    made = layers.tree(left.manifest_digest, left.times_digest)
    again = layers.collect(made, kind="tree", limits=LIMITS)
    assert again.manifest == left.manifest
    assert again.layer == left.layer
    layers.materialise([left.layer], work / "copy")
    assert layers.collect(work / "copy", kind="tree", limits=LIMITS).layer == left.layer
    assert not layers.diff_against([left.layer], work / "copy", limits=LIMITS).manifest.entries
    assert not list(verify(layers.vault, layers=[left.layer]))
    discard(work)


@pytest.fixture
def stack(layers: Layers, tmp_path: Path) -> list[Layer]:
    """Two layers: a tree, and a change to it."""
    base = write_tree(tmp_path / "base", {"bin/tool": "#!", "share/a": "one", "share/deep/b": "two", "gone": "x"})
    (base / "bin/tool").chmod(0o755)
    (base / "link").symlink_to("share/a")
    first = layers.collect(base, kind="tree", limits=LIMITS)
    layers.materialise([first.layer], tmp_path / "copy")
    (tmp_path / "copy/gone").unlink()
    (tmp_path / "copy/share/a").write_text("changed", encoding="utf-8")
    second = layers.diff_against([first.layer], tmp_path / "copy", limits=LIMITS)
    return [second.layer, first.layer]


def test_lookup(layers: Layers, stack: list[Layer]) -> None:
    changed = layers.lookup(stack, "share/a")
    assert changed is not None
    assert changed.sha256 == hashlib.sha256(b"changed").hexdigest()
    assert layers.lookup(stack, "gone") is None
    assert layers.lookup(stack[1:], "gone") is not None
    assert layers.lookup(stack, "link/x") is None
    assert layers.lookup(stack, "share/") == Entry(path="share", type="dir", mode=0o755)
    assert layers.lookup(stack, "") == layers.lookup(stack, ".") == Entry(path="", type="dir", mode=0o755)
    assert layers.lookup((), "a") is None


def test_subtree_and_merged(layers: Layers, stack: list[Layer]) -> None:
    assert [entry.path for entry in layers.subtree(stack, "share").entries] == ["a", "deep", "deep/b"]
    assert layers.subtree(stack, "") == layers.merged(stack)
    with pytest.raises(OutputForbidden, match="not a folder"):
        layers.subtree(stack, "bin/tool")


def test_what_is_not_there_is_told_with_what_is(layers: Layers, stack: list[Layer]) -> None:
    with pytest.raises(OutputForbidden, match="no 'share/deep/c'") as caught:
        layers.export(stack, "share/deep/c", layers.vault.root / "x")
    assert "share/deep/b" in caught.value.hint


def test_a_reference_depends_on_what_is_read_and_on_nothing_else(layers: Layers, stack: list[Layer]) -> None:
    digest = layers.reference_digest
    paths = ["share/a", "share", "bin/tool", "link", "", "share/deep"]
    assert len({digest(stack, path) for path in paths}) == len(paths)
    assert digest(stack, "share/a") != digest(stack[1:], "share/a")
    assert digest(stack, "share") != digest(stack[1:], "share")
    # what is elsewhere in the tree, the name of the folder, the times and how many layers there are do not matter
    assert digest(stack, "bin/tool") == digest(stack[1:], "bin/tool")
    assert digest(stack, "share/deep") == digest([layers.store(layers.subtree(stack, "share/deep"))], "")
    assert digest(stack, "") == digest([layers.flattened(stack)], "")
    # of a file's mode only whether it may be run
    tool = layers.lookup(stack, "bin/tool")
    assert tool is not None

    def alone(mode: int) -> Digest:
        return digest([layers.store(Manifest(entries=(replace(tool, path="t", mode=mode),)))], "t")

    assert alone(0o755) == alone(0o700) == digest(stack, "bin/tool")
    assert alone(0o644) != alone(0o755)


def test_export(layers: Layers, stack: list[Layer], tmp_path: Path) -> None:
    dest = tmp_path / "tool"
    dest.write_text("older", encoding="utf-8")
    layers.export(stack, "bin/tool", dest)
    assert dest.read_text(encoding="utf-8") == "#!"
    assert dest.stat().st_mode & 0o777 == 0o755
    assert dest.stat().st_mtime_ns == FIXED_TIME_NS
    layers.export(stack, "share", tmp_path / "share")
    assert (tmp_path / "share/a").read_text(encoding="utf-8") == "changed"
    with pytest.raises(UsageError, match="already"):
        layers.export(stack, "share", tmp_path / "share")
    layers.export(stack, "", tmp_path / "all")
    assert sorted(os.listdir(tmp_path / "all")) == ["bin", "link", "share"]
    assert os.readlink(tmp_path / "all/link") == "share/a"


def test_an_export_that_fails_leaves_what_was_there(layers: Layers, stack: list[Layer], tmp_path: Path) -> None:
    entry = layers.lookup(stack, "share/a")
    assert entry is not None
    layers.vault.path(entry.sha256).unlink()
    dest = tmp_path / "out" / "a"
    dest.parent.mkdir()
    dest.write_text("older", encoding="utf-8")
    with pytest.raises(IntegrityError, match="missing"):
        layers.export(stack, "share/a", dest)
    assert os.listdir(dest.parent) == ["a"]
    assert dest.read_text(encoding="utf-8") == "older"
    with pytest.raises(IntegrityError, match="missing"):
        layers.export(stack, "share", dest.parent / "folder")
    assert os.listdir(dest.parent) == ["a"]


def test_present(layers: Layers, stack: list[Layer]) -> None:
    plain = layers.present(stack, "share/a")
    assert plain.read_text(encoding="utf-8") == "changed"
    tool = layers.present(stack, "bin/tool")
    assert tool.read_text(encoding="utf-8") == "#!"
    assert tool.stat().st_mode & 0o777 == 0o755
    folder = layers.present(stack, "share")
    assert sorted(os.listdir(folder)) == ["a", "deep"]
    assert layers.present(stack[1:], "") == layers.tree(stack[1].digest, stack[1].times)
    entry = layers.lookup(stack, "share/a")
    assert entry is not None
    blob = layers.vault.path(entry.sha256)
    blob.chmod(0o600)
    blob.write_text("chAnged", encoding="utf-8")
    with pytest.raises(IntegrityError, match="damaged"):
        layers.present(stack, "share/a")


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_damaged_or_missing_blob_is_never_planted(layers: Layers, tmp_path: Path, size: int) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_bytes(bytes(size))
    left = layers.collect(tmp_path / "out", kind="tree", limits=LIMITS)
    blob = layers.vault.path(left.manifest.entries[0].sha256)
    blob.chmod(0o600)
    with open(blob, "r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"\x01")
    with pytest.raises(IntegrityError, match="damaged"):
        layers.tree(left.manifest_digest, left.times_digest)
    blob.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        layers.tree(left.manifest_digest, left.times_digest)
    assert not os.listdir(layers.vault.trees)
    assert not os.listdir(layers.vault.tmp)
    # and it heals: the card that is run again brings the bytes
    Layers(Vault(layers.vault.root)).collect(tmp_path / "out", kind="tree", limits=LIMITS)
    assert (layers.tree(left.manifest_digest, left.times_digest) / "file").read_bytes() == bytes(size)


def test_a_damaged_manifest_is_never_believed(layers: Layers, stack: list[Layer]) -> None:
    path = layers.vault.path(stack[0].digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"share/a", b"share/b"))
    fresh = Layers(layers.vault)
    with pytest.raises(IntegrityError, match="damaged"):
        fresh.lookup(stack, "share/a")


def test_store_refuses_a_manifest_that_nobody_could_read(layers: Layers) -> None:
    with pytest.raises(IntegrityError, match="refused"):
        layers.store(Manifest(entries=(Entry(path="../x", type="dir"),)))


def test_adopting_twice_and_adopting_what_is_there(layers: Layers, tmp_path: Path) -> None:
    paths = []
    for number in range(2):
        out = write_tree(tmp_path / f"out{number}", {"a": "x"})
        os.utime(out / "a", ns=(0, 0))
        left = layers.collect(out, kind="tree", limits=LIMITS)
        paths.append(layers.adopt(out, left))
        assert not out.exists()
    assert paths[0] == paths[1]
    assert (paths[0] / "a").read_text(encoding="utf-8") == "x"


def test_several_layers_of_a_card_in_one_batch(layers: Layers, tmp_path: Path) -> None:
    one, two = (write_tree(tmp_path / name, {name: name}) for name in ("one", "two"))
    with layers.vault.batch() as batch:
        log = batch.put_bytes(b"log")
        kept = [layers.collect(root, kind="tree", limits=LIMITS, batch=batch) for root in (one, two)]
        assert not layers.vault.has(log)
    assert all(layers.vault.has(left.manifest_digest) for left in kept)
    assert not list(verify(layers.vault, layers=[left.layer for left in kept]))


def test_a_tree_of_an_earlier_start_of_the_machine_is_not_trusted(
    layers: Layers, stack: list[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = layers.tree(stack[1].digest, stack[1].times)
    (before / "gone").write_bytes(b"")  # what a power cut leaves of bytes that were never synced
    assert layers.tree(stack[1].digest, stack[1].times) == before
    monkeypatch.setattr(layers_module, "boot_id", lambda: "the next one")
    after = Layers(layers.vault).tree(stack[1].digest, stack[1].times)
    assert after != before
    assert (after / "gone").read_text(encoding="utf-8") == "x"
    layers.vault.settle()
    assert not before.exists()
    assert not os.listdir(layers.vault.tmp)


def test_closure_names_every_blob(layers: Layers, stack: list[Layer]) -> None:
    for layer in stack:
        needed = layers.closure(layer)
        assert {layer.digest, layer.times} < needed
        assert all(layers.vault.has(digest) for digest in needed)
    assert Digest(hashlib.sha256(b"changed").hexdigest()) in layers.closure(stack[0])


def big(layers: Layers, tmp_path: Path) -> Layer:
    tree = write_tree(tmp_path / "big", {f"{number % 50}/{number}": f"{number}" for number in range(600)})
    return layers.collect(tree, kind="tree", limits=LIMITS).layer


def test_making_one_tree_in_several_processes(layers: Layers, tmp_path: Path) -> None:
    layer = big(layers, tmp_path)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                made = Layers(Vault(layers.vault.root)).tree(layer.digest, layer.times)
                os._exit(0 if (made / "7/557").read_text(encoding="utf-8") == "557" else 1)
            finally:
                os._exit(2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(os.listdir(layers.vault.trees)) == 1
    assert not os.listdir(layers.vault.tmp)


@pytest.mark.parametrize("wait", [0.01, 0.05, 0.15])
def test_an_interrupted_making_leaves_nothing(layers: Layers, tmp_path: Path, wait: float) -> None:
    layer = big(layers, tmp_path)
    child = os.fork()
    if child == 0:
        try:
            mine = Layers(Vault(layers.vault.root))
            while True:
                discard(mine.tree(layer.digest, layer.times).parent)
        finally:
            os._exit(1)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    again = Layers(Vault(layers.vault.root))
    again.vault.settle()
    assert not os.listdir(layers.vault.tmp)
    for home in again.vault.trees.iterdir():
        discard(home)  # the kill may have met the test's own discard
    made = again.tree(layer.digest, layer.times)
    assert again.collect(made, kind="tree", limits=LIMITS).layer == layer


def test_what_is_thrown_away_is_gone_at_once_and_deleted_soon(layers: Layers, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "old", {f"{number}": "" for number in range(100)})
    assert layers.vault.settle(0)
    layers.vault.throw_away(tree)
    layers.vault.throw_away(tree)
    assert not tree.exists()
    assert layers.vault.settle(60)
    assert not os.listdir(layers.vault.tmp)
    assert "anvil-attic" in {thread.name for thread in threading.enumerate()}


def test_paths_of_a_manifest_are_below_its_folders() -> None:
    assert [parent_of(path) for path in ("a", "a/b", "a/b/c")] == ["", "a", "a/b"]


def test_a_damaged_tree_is_made_again_for_a_process_that_has_not_seen_it(layers: Layers, stack: list[Layer]) -> None:
    tree = layers.lowers(stack)[0]
    path = next(path for path in tree.rglob("*") if path.is_file() and path.stat().st_size)
    right, before = path.read_bytes(), path.stat()
    path.write_bytes(bytes([right[0] ^ 1]) + right[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    inode = tree.stat().st_ino
    assert layers.lowers(stack)[0].stat().st_ino == inode  # who made it trusts it
    other = Layers(layers.vault)
    assert other.lowers(stack)[0] == tree
    assert path.read_bytes() == right
    assert tree.stat().st_ino != inode
    [aside] = [path for path in layers.vault.trees.iterdir() if "damaged" in path.name]
    assert (aside / "t").stat().st_ino == inode  # a cell may still be running on it
    assert [finding.path for finding in verify(layers.vault, layers=stack)] == [aside]


def test_a_tree_that_another_made_again_meanwhile_is_not_put_aside(
    layers: Layers, stack: list[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = layers.tree(stack[0].digest, stack[0].times)
    (tree / "share/a").chmod(0o600)
    found: list[str] = []
    made: list[int] = []

    def slow(*all_of_it: Any) -> str:
        if found:
            return difference(*all_of_it)
        # while one compares, another puts the damaged tree aside, makes it again, and begins on it
        found.append(difference(*all_of_it))
        Layers(layers.vault).tree(stack[0].digest, stack[0].times)
        made.append(tree.stat().st_ino)
        return found[0]

    monkeypatch.setattr(layers_module, "difference", slow)
    assert Layers(layers.vault).tree(stack[0].digest, stack[0].times) == tree
    assert "share/a" in found[0]
    assert [tree.stat().st_ino] == made
    assert len([path for path in layers.vault.trees.iterdir() if "damaged" in path.name]) == 1


def test_trees_of_an_earlier_start_go_whatever_their_labels_say(
    layers: Layers, stack: list[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tree in layers.lowers(stack):
        (tree.parent / "of").write_bytes(b"")  # as a power cut leaves it: nothing of a tree is synced
    monkeypatch.setattr("anvil.vault.layers.boot_id", lambda: "another")
    Layers(layers.vault)
    assert not list(layers.vault.trees.iterdir())
