"""Verifying: every flipped bit is found, and a sound vault has no findings."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from anvil.model.layer import Digest
from anvil.vault import Layer, Layers, discard, verify
from tests.vault.support import LIMITS, write_tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layer(layers: Layers, tmp_path: Path) -> Layer:
    out = write_tree(tmp_path / "out", {f"d{number % 5}/{number}": f"text {number}" for number in range(40)})
    (out / "link").symlink_to("d0/0")
    return layers.collect(out, kind="tree", limits=LIMITS).layer


def flip(path: Path, where: int) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[where // 8] ^= 1 << (where % 8)
    path.write_bytes(data)
    path.chmod(0o444)


def test_a_sound_vault_has_no_findings(layers: Layers, layer: Layer) -> None:
    layers.tree(layer.digest, layer.times)
    assert not list(verify(layers.vault, layers=[layer]))


def test_every_flipped_bit_is_found(layers: Layers, layer: Layer) -> None:
    chance = random.Random(7)
    paths = sorted(path for path in layers.vault.blobs.rglob("*") if path.is_file())
    for _ in range(60):
        path = chance.choice(paths)
        where = chance.randrange(path.stat().st_size * 8)
        flip(path, where)
        findings = list(verify(layers.vault, layers=[layer]))
        assert [finding.path for finding in findings if finding.kind == "blob"] == [path]
        assert any(finding.kind == "layer" for finding in findings)
        assert all(finding.mend for finding in findings)
        flip(path, where)
    assert not list(verify(layers.vault, layers=[layer]))


def test_what_is_missing_cut_short_or_astray_is_found(layers: Layers, layer: Layer) -> None:
    manifest = layers.manifest(layer.digest)
    file = next(entry for entry in manifest.entries if entry.type == "file")
    path = layers.vault.path(file.sha256)
    data = path.read_bytes()
    path.unlink()
    [finding] = verify(layers.vault, layers=[layer])
    assert (finding.kind, finding.subject) == ("layer", layer.digest)
    assert file.sha256 in finding.message
    path.write_bytes(data[:-1])
    assert {finding.kind for finding in verify(layers.vault, layers=[layer])} == {"blob", "layer"}
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert {finding.kind for finding in verify(layers.vault, layers=[layer])} == {"blob", "layer"}
    path.unlink()
    os.mkfifo(path)
    assert {finding.kind for finding in verify(layers.vault, layers=[layer])} == {"blob", "layer"}
    path.unlink()
    path.write_bytes(data)
    (path.parent / "stray").write_bytes(b"")
    (layers.vault.blobs / "stray").write_bytes(b"")
    assert [finding.kind for finding in verify(layers.vault, layers=[layer])] == ["stray", "stray"]


def test_a_layer_that_is_none_is_found(layers: Layers) -> None:
    no_manifest = layers.vault.put_bytes(b"not a manifest")
    [finding] = verify(layers.vault, layers=[Layer(digest=no_manifest)])
    assert finding.kind == "layer"
    [finding] = verify(layers.vault, layers=[Layer(digest=Digest("0" * 64))])
    assert "missing" in finding.message


@pytest.mark.parametrize(
    "harm",
    [
        lambda tree: (tree / "d0/0").write_text("changed"),
        lambda tree: (tree / "d0/0").chmod(0o777),
        lambda tree: (tree / "d0/0").unlink(),
        lambda tree: os.utime(tree / "d0/0", ns=(0, 0)),
        lambda tree: (tree / "d0/more").write_text("x"),
        lambda tree: (tree / "link").unlink() or (tree / "link").symlink_to("elsewhere"),
        lambda tree: os.mknod(tree / "d0/white", 0o20000, 0),
        lambda tree: os.setxattr(tree / "d0", "user.overlay.opaque", b"y"),
        lambda tree: os.setxattr(tree / "d0", "user.overlay.redirect", b"/d1"),
        lambda tree: os.mkfifo(tree / "fifo"),
        lambda tree: (tree.parent / "of").write_text("{}"),
        lambda tree: (tree.parent / "of").unlink(),
        lambda tree: tree.parent.rename(tree.parent.with_name(tree.parent.name[:8] + "0" * 32)),
        discard,
    ],
)
def test_a_cached_tree_that_differs_from_its_layer_is_found(layers: Layers, layer: Layer, harm: object) -> None:
    tree = layers.tree(layer.digest, layer.times)
    harm(tree)  # type: ignore[operator]
    [finding] = verify(layers.vault, layers=[layer])
    assert finding.kind == "tree"
    discard(finding.path)
    assert not list(verify(layers.vault, layers=[layer]))
    layers.tree(layer.digest, layer.times)
    assert not list(verify(layers.vault, layers=[layer]))
