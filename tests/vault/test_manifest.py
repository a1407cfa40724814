"""Manifests: the same bytes every time, and nothing else is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil.errors import IntegrityError
from anvil.microjson.codec import canonical
from anvil.model.layer import Digest, Entry, Manifest
from anvil.vault.manifest import (
    MAX_DEPTH,
    Times,
    check_manifest,
    link_entry,
    manifest_from_bytes,
    manifest_to_bytes,
    name_problem,
    parent_of,
    times_from_bytes,
    times_to_bytes,
)
from anvil.vault.merge import Index, View, change, merged

SHA = Digest("ab" * 32)
OTHER = Digest("cd" * 32)


def file(path: str, mode: int = 0o644, sha: Digest = SHA) -> Entry:
    return Entry(path=path, type="file", mode=mode, size=5, sha256=sha)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path=path, type="dir", mode=mode)


def test_the_bytes_are_fixed() -> None:
    manifest = Manifest(entries=(folder("usr"), file("usr/a"), link_entry("usr/b", "../é")), removed=("usr/old",))
    text = (
        f'{{"entries":[["usr","d",493],["usr/a","f",420,5,"{SHA}"],["usr/b","l","../é"]],'
        '"format":1,"removed":["usr/old"]}'
    )
    assert manifest_to_bytes(manifest) == text.encode()
    assert manifest_from_bytes(text.encode()) == manifest


ROW = ["a", "f", 420, 5, SHA]
BAD_ENTRIES = {
    "unsorted": [["b", "d", 493], ["a", "d", 493]],
    "doubled": [["a", "d", 493], ["a", "d", 493]],
    "absolute": [["/a", "d", 493]],
    "empty": [["", "d", 493]],
    "dot": [[".", "d", 493]],
    "up": [["..", "d", 493]],
    "up within": [["a", "d", 493], ["a/..", "d", 493]],
    "trailing slash": [["a/", "d", 493]],
    "double slash": [["a", "d", 493], ["a//b", "d", 493]],
    "newline": [["a\nb", "d", 493]],
    "control": [["a\x1bb", "d", 493]],
    "C1 control": [["a\x9bb", "d", 493]],
    "nul": [["a\x00b", "d", 493]],
    "long name": [["a" * 256, "d", 493]],
    "child of a file": [ROW, ["a/b", "d", 493]],
    "child of a link": [["a", "l", "b"], ["a/b", "d", 493]],
    "folder not listed": [["a/b", "d", 493]],
    "set-uid": [["a", "f", 0o4755, 5, SHA]],
    "negative mode": [["a", "d", -1]],
    "mode true": [["a", "d", True]],
    "negative size": [["a", "f", 420, -5, SHA]],
    "size text": [["a", "f", 420, "5", SHA]],
    "no digest": [["a", "f", 420, 5, ""]],
    "upper-case digest": [["a", "f", 420, 5, SHA.upper()]],
    "path for a digest": [["a", "f", 420, 5, "../" * 21 + "x"]],
    "digest number": [["a", "f", 420, 5, 7]],
    "too long": [[*ROW, 1]],
    "too short": [ROW[:3]],
    "device": [["a", "c", 0, 0]],
    "empty target": [["a", "l", ""]],
    "target with nul": [["a", "l", "x\x00y"]],
    "target number": [["a", "l", 7]],
    "path number": [[7, "d", 493]],
    "not a list": ["a"],
    "nothing": [[]],
}


def encoded(entries: object, removed: object = (), **more: object) -> bytes:
    return canonical({"entries": entries, "format": 1, "removed": list(removed), **more})  # type: ignore[call-overload]


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_malformed_entries_are_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="refused"):
        manifest_from_bytes(encoded(BAD_ENTRIES[name]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"entries":[],"entries":[],"format":1,"removed":[]}',
        b'{"format":1,"entries":[],"removed":[]}',
        b' {"entries":[],"format":1,"removed":[]}',
        b'{"entries":[],"format":1,"removed":[]}\n',
        b'{"entries":{},"format":1,"removed":[]}',
        b'{"entries":[["a","d",4.93e2]],"format":1,"removed":[]}',
        encoded([], extra=1),
        encoded([], removed=["b", "a"]),
        encoded([], removed=["a", "a"]),
        encoded([], removed=["../a"]),
        encoded([], removed=[7]),
        encoded([], removed=["a/b"]),
        encoded([ROW], removed=["a"]),
        encoded([ROW], removed=["a/b"]),
        canonical({"entries": [], "format": 2, "removed": []}),
    ],
)
def test_malformed_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        manifest_from_bytes(data)


def test_depth_is_limited() -> None:
    deep = [folder("/".join("a" * count)) for count in range(1, MAX_DEPTH + 1)]
    manifest = Manifest(entries=tuple(deep))
    assert manifest_from_bytes(manifest_to_bytes(manifest)) == manifest
    deeper = Manifest(entries=(*deep, folder("/".join("a" * (MAX_DEPTH + 1)))))
    with pytest.raises(IntegrityError, match="deep"):
        manifest_from_bytes(manifest_to_bytes(deeper))


def test_a_folder_may_replace_the_one_below() -> None:
    manifest = Manifest(entries=(folder("d"), file("d/new")), removed=("d",))
    check_manifest(manifest)
    below = Index(Manifest(entries=(folder("d"), file("d/old"), file("keep"))))
    assert [entry.path for entry in merged([Index(manifest), below]).entries] == ["d", "d/new", "keep"]


MANIFEST = Manifest(entries=(folder("d"), file("d/a")))


def test_times_come_back() -> None:
    times = Times(mtimes=(-1, 1_700_000_000_123_456_789), touched=((file("t"), 5),))
    assert times_from_bytes(times_to_bytes(times), MANIFEST) == times


@pytest.mark.parametrize(
    ("mtimes", "touched"),
    [
        ([[0, 0]], []),
        ([[0, 0]] * 3, []),
        ([[0, 0], [0, 1_000_000_000]], []),
        ([[0, 0], [0, -1]], []),
        ([[0, 0], [0]], []),
        ([[0, 0], 0], []),
        ([[0, 0], [0, "0"]], []),
        ([[0, 0], [0, 0]], [[0, 0, "d/a", "f", 420, 5, SHA]]),
        ([[0, 0], [0, 0]], [[0, 0, "d/a/b", "f", 420, 5, SHA]]),
        ([[0, 0], [0, 0]], [[0, 0, "no/b", "f", 420, 5, SHA]]),
        ([[0, 0], [0, 0]], [[0, 0, "../b", "f", 420, 5, SHA]]),
        ([[0, 0], [0, 0]], [[0, 0, "z", "d", 493], [0, 0, "y", "d", 493]]),
        ([[0, 0], [0, 0]], [[0, 0, "z"]]),
        ([[0, 0], [0, 0]], [7]),
    ],
)
def test_malformed_times_are_refused(mtimes: object, touched: object) -> None:
    data = canonical({"format": 1, "mtimes": mtimes, "touched": touched})
    with pytest.raises(IntegrityError):
        times_from_bytes(data, MANIFEST)


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "with space", "-rf", "$(x)", "\N{SNOWMAN}", "..."])
def test_odd_names_are_fine(name: str) -> None:
    assert not name_problem(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "\x7f", "\x80", "a" * 256, "é" * 128, "\udcff"])
def test_bad_names_are_not(name: str) -> None:
    assert name_problem(name)


# --- merging: against the plainest definition ---------------------------------------------------------------------

PATHS = st.sampled_from(["a", "a/b", "a/b/c", "a/d", "a-b", "e", "e/f"])
ENTRIES = st.builds(
    lambda path, kind, mode, sha: {
        "file": file(path, mode, sha),
        "dir": folder(path, mode),
        "link": link_entry(path, "x"),
    }[kind],
    PATHS,
    st.sampled_from(["file", "dir", "dir", "link"]),
    st.sampled_from([0o644, 0o755]),
    st.sampled_from([SHA, OTHER]),
)


def whole(entries: list[Entry]) -> dict[str, Entry]:
    """The entries that can be in one tree."""
    tree: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        above = parent_of(entry.path)
        if not above or (above in tree and tree[above].type == "dir"):
            tree[entry.path] = entry
    return tree


def apply(below: dict[str, Entry], manifest: Manifest) -> dict[str, Entry]:
    """A change applied the plain way."""
    tree = dict(below)

    def take_away(path: str) -> None:
        for other in [other for other in tree if other == path or other.startswith(path + "/")]:
            del tree[other]

    for path in manifest.removed:
        take_away(path)
    for entry in manifest.entries:
        if entry.type != "dir" or (entry.path in tree and tree[entry.path].type != "dir"):
            take_away(entry.path)
        tree[entry.path] = entry
    return tree


TREES = st.lists(ENTRIES, max_size=8).map(whole)


@given(st.lists(TREES, min_size=1, max_size=4))
def test_merging_is_applying_one_change_after_the_other(trees: list[dict[str, Entry]]) -> None:
    stack: list[Index] = []
    shown: dict[str, Entry] = {}
    for tree in trees:
        view = View(stack)
        changed = change(view, tree.values(), removed=(), replaced=("",))
        check_manifest(changed.manifest)
        assert manifest_from_bytes(manifest_to_bytes(changed.manifest)) == changed.manifest
        assert apply(shown, changed.manifest) == tree
        stack.insert(0, Index(changed.manifest))
        shown = tree
        assert {entry.path: entry for entry in merged(stack).entries} == tree
        for path in ["a", "a/b", "a/b/c", "a/d", "a-b", "e", "e/f", "nowhere/at/all"]:
            assert View(stack).lookup(path) == tree.get(path)
            below = {entry.path for entry in View(stack).below(path)}
            assert below == {other for other in tree if other.startswith(path + "/")}


@given(TREES, TREES)
def test_a_change_has_one_form_however_it_was_made(before: dict[str, Entry], after: dict[str, Entry]) -> None:
    below = View([Index(Manifest(entries=tuple(before[path] for path in sorted(before))))])
    whole_way = change(below, after.values(), removed=(), replaced=("",))
    # by hand: every vanished path covered, every folder opaque or not, everything copied up or only what is needed
    vanished = [path for path in before if path not in after]
    top = [path for path in vanished if not parent_of(path) or parent_of(path) in after]
    covered = [path for path in top if not parent_of(path) or after[parent_of(path)].type == "dir"]
    opaque = [path for path, entry in after.items() if entry.type == "dir"]
    assert change(below, after.values(), removed=covered, replaced=()).manifest == whole_way.manifest
    assert change(below, after.values(), removed=covered, replaced=opaque).manifest == whole_way.manifest
    needed = {entry.path for entry in whole_way.manifest.entries}
    lean = [entry for path, entry in after.items() if path in needed]
    assert change(below, lean, removed=covered, replaced=()).manifest == whole_way.manifest
    assert change(below, before.values(), removed=(), replaced=()).manifest == Manifest(entries=())
