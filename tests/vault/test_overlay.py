"""What an overlay leaves, and what a comparison finds, are one and the same layer; and it comes back as it was."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anvil.vault import Layer, Layers, Vault, discard, verify
from tests.vault.support import (
    IS_ROOT,
    LIMITS,
    NOBODY,
    in_namespace,
    needs_root,
    needs_unshare,
    on_overlay,
    write_tree,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anvil.model.layer import Entry
    from anvil.vault import Collected

pytestmark = needs_unshare

BASE = """
    mkdir -p src/deep/er bin empty old/inner
    echo a >src/a; echo b >src/b; echo deep >src/deep/er/file; echo tool >bin/tool; chmod 755 bin/tool
    ln -s a src/link; ln -s nowhere dangling; echo x >old/x; echo y >old/inner/y; echo big >plain
    chmod 750 old; chmod 600 src/b
"""
SECOND = "rm -r old; echo changed >src/a; mkdir src/new; echo n >src/new/n; rm src/deep/er/file"

CHANGES = {
    "nothing": "true",
    "a new file": "echo new >new",
    "a new folder": "mkdir -p n1/n2; echo x >n1/n2/x",
    "a changed file": "echo more >>src/a",
    "a removed file": "rm src/a",
    "a removed link": "rm src/link dangling",
    "a removed folder": "rm -r src",
    "an empty folder removed": "rmdir empty",
    "file to folder": "rm src/a; mkdir src/a; echo in >src/a/in",
    "folder to file": "rm -r src/deep; echo now >src/deep",
    "folder to link": "rm -r src/deep; ln -s /etc src/deep",
    "link to folder": "rm src/link; mkdir src/link; echo x >src/link/x",
    "file to link": "rm src/a; ln -s b src/a",
    "a folder replaced by another": "rm -r src/deep; mkdir -p src/deep/er; echo o >src/deep/other",
    "a folder replaced by an equal one": "cp -a src keep; rm -r src; mkdir src; cp -a keep/. src; rm -r keep",
    "mode of a file": "chmod 755 src/a",
    "mode of a folder": "chmod 700 src/deep",
    "mode of a folder above a change": "chmod 711 src; echo x >src/deep/er/new",
    "touched": "touch src/a; touch -h src/link; touch -d 2001-01-01 bin/tool",
    "written with the same bytes": "cp src/a keep; cat keep >src/a; rm keep",
    "mode there and back": "chmod 777 src/b; chmod 600 src/b",
    "made and removed": "echo x >tmp; rm tmp; mkdir d; rmdir d",
    "renamed file": "mv src/a src/z",
    "renamed folder": "mv src lib",
    "swapped": "mv src/a keep; mv src/b src/a; mv keep src/b",
    "hard link": "ln src/a src/hard; echo more >>src/hard",
    "removed and made again": "rm src/a; echo a >src/a",
    "much at once": "rm -r src/deep bin; echo 1 >bin; mkdir -p src/deep; mkdir old2; chmod 600 plain; ln -s x l",
    "nothing left": "rm -rf ./* ",
}


def collected_base(layers: Layers, work: Path) -> Layer:
    upper, _ = on_overlay([], BASE, work)
    return layers.collect(upper, kind="changes", limits=LIMITS).layer


def by_overlay(layers: Layers, stack: Sequence[Layer], script: str, work: Path) -> tuple[Collected, Path, Path]:
    upper, shown = on_overlay(layers.lowers(stack), script, work)
    return layers.collect(upper, kind="changes", limits=LIMITS, below=stack), upper, shown


def by_copy(layers: Layers, stack: Sequence[Layer], script: str, work: Path) -> Collected:
    layers.materialise(stack, work)
    in_namespace('cd "$1"; eval "$2"', work, script)
    return layers.diff_against(stack, work, limits=LIMITS)


def shown_by(layers: Layers, stack: Sequence[Layer], work: Path) -> tuple[Entry, ...]:
    """What the kernel shows of a stack's trees."""
    _, copy = on_overlay(layers.lowers(stack), "true", work)
    return layers.collect(copy, kind="tree", limits=LIMITS).manifest.entries


def check_both_ways(layers: Layers, stack: list[Layer], script: str, tmp_path: Path) -> Layer:
    """The whole contract of a change; returns its layer."""
    left, upper, shown = by_overlay(layers, stack, script, tmp_path / "overlay")
    result = layers.collect(shown, kind="tree", limits=LIMITS).manifest
    new_stack = [left.layer, *stack]
    # our merging is the kernel's
    assert layers.merged(new_stack) == result
    # a comparison of copies finds the same layer
    assert by_copy(layers, stack, script, tmp_path / "copy").manifest_digest == left.manifest_digest
    # the adopted directory and one made from blobs both show the same as the overlay did
    adopted = layers.adopt(upper, left)
    assert not upper.exists()
    assert shown_by(layers, new_stack, tmp_path / "adopted") == result.entries
    assert not list(verify(layers.vault, layers=new_stack))
    discard(adopted.parent)
    assert layers.tree(left.manifest_digest, left.times_digest) == adopted
    assert shown_by(layers, new_stack, tmp_path / "made") == result.entries
    assert not list(verify(layers.vault, layers=new_stack))
    return left.layer


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_the_same_both_ways(layers: Layers, tmp_path: Path, name: str) -> None:
    stack = [collected_base(layers, tmp_path / "base")]
    check_both_ways(layers, stack, CHANGES[name], tmp_path)


@pytest.mark.parametrize("name", ["a new folder", "a folder replaced by another", "renamed folder", "nothing left"])
def test_every_change_over_two_layers(layers: Layers, tmp_path: Path, name: str) -> None:
    base = collected_base(layers, tmp_path / "base")
    second, *_ = by_overlay(layers, [base], SECOND, tmp_path / "second")
    check_both_ways(layers, [second.layer, base], CHANGES[name], tmp_path)


def test_what_came_and_went_in_lower_layers_stays_hidden(layers: Layers, tmp_path: Path) -> None:
    stack = [collected_base(layers, tmp_path / "base")]
    scripts = [
        "rm -r src; echo file >src",
        "rm src; mkdir src; echo f >src/f",
        "rm -r src",
        "mkdir src; echo l >src/a",
    ]
    for number, script in enumerate(scripts):
        stack.insert(0, check_both_ways(layers, stack, script, tmp_path / str(number)))
    assert layers.subtree(stack, "src").entries[0].path == "a"
    assert len(layers.subtree(stack, "src").entries) == 1


@pytest.mark.parametrize("name", ["touched", "written with the same bytes", "mode there and back", "nothing"])
def test_a_card_that_changes_nothing_leaves_the_empty_layer(layers: Layers, tmp_path: Path, name: str) -> None:
    stack = [collected_base(layers, tmp_path / "base")]
    left, *_ = by_overlay(layers, stack, CHANGES[name], tmp_path / "work")
    assert not left.manifest.entries
    assert not left.manifest.removed


def test_a_touched_file_keeps_its_new_time_for_make(layers: Layers, tmp_path: Path) -> None:
    stack = [collected_base(layers, tmp_path / "base")]
    script = "touch -d @1000000000.5 src/deep/er/file"
    for way in ("overlay", "copy"):
        if way == "overlay":
            left, *_ = by_overlay(layers, stack, script, tmp_path / way)
        else:
            left = by_copy(layers, stack, script, tmp_path / way)
        assert not left.manifest.entries
        layers.materialise([left.layer, *stack], tmp_path / f"{way}-again")
        assert (tmp_path / f"{way}-again/src/deep/er/file").stat().st_mtime_ns == 1000000000_500000000
        tree = layers.tree(left.manifest_digest, left.times_digest)
        assert (tree / "src/deep/er/file").stat().st_mtime_ns == 1000000000_500000000


def test_modes_of_folders_above_a_change_survive(layers: Layers, tmp_path: Path) -> None:
    stack = [collected_base(layers, tmp_path / "base")]
    left, *_ = by_overlay(layers, stack, "echo x >old/inner/new", tmp_path / "work")
    assert [entry.path for entry in left.manifest.entries] == ["old", "old/inner", "old/inner/new"]
    assert left.manifest.entries[0].mode == 0o750


def test_a_layer_means_the_same_over_another_tree(layers: Layers, tmp_path: Path) -> None:
    """An adopted directory must not hide what its layer's manifest does not name."""
    small, *_ = by_overlay(layers, [], "mkdir d; echo a >d/a", tmp_path / "small")
    large, *_ = by_overlay(layers, [], "mkdir d; echo a >d/a; echo b >d/b", tmp_path / "large")
    left, upper, _ = by_overlay(layers, [small.layer], "rm -r d; mkdir d; echo c >d/c", tmp_path / "work")
    layers.adopt(upper, left)
    shown = shown_by(layers, [left.layer, large.layer], tmp_path / "shown")
    assert shown == layers.merged([left.layer, large.layer]).entries
    assert [entry.path for entry in shown] == ["d", "d/b", "d/c"]


@needs_root
def test_trees_belong_to_the_cells_user(tmp_path: Path) -> None:
    layers = Layers(Vault(tmp_path / "vault", owner=NOBODY))
    work = tmp_path / "work"
    upper, _ = on_overlay([], BASE + "chmod u+s bin/tool; chmod g+s src; rm plain", work)
    left = layers.collect(upper, kind="changes", limits=LIMITS)
    adopted = layers.adopt(upper, left)
    for tree in (adopted, layers.tree(left.manifest_digest)):
        for path in (tree, *tree.rglob("*")):
            status = path.lstat()
            assert status.st_uid == NOBODY, path
            assert not status.st_mode & 0o7000 or stat.S_ISLNK(status.st_mode)
            if not stat.S_ISLNK(status.st_mode):
                assert not os.listxattr(path)
    blob = layers.vault.path(layers.lookup([left.layer], "src/a").sha256)  # type: ignore[union-attr]
    assert blob.stat().st_uid == 0


NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/f", "a/x", "new", "new/y", "d-x"])
STEP = st.one_of(
    st.builds("rm -rf {}".format, NAMES),
    st.builds("mkdir -p {} 2>/dev/null || :".format, NAMES),
    st.builds("(echo {1} >{0}) 2>/dev/null || :".format, NAMES, st.integers(0, 2)),
    st.builds("mv -T {} {} 2>/dev/null || :".format, NAMES, NAMES),
    st.builds("ln -sfn {1} {0} 2>/dev/null || :".format, NAMES, st.sampled_from(["a", "nowhere"])),
    st.builds("chmod {1} {0} 2>/dev/null || :".format, NAMES, st.sampled_from(["700", "755", "644"])),
    st.builds("touch -h {} 2>/dev/null || :".format, NAMES),
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(STEP, max_size=6), min_size=2, max_size=3))
def test_any_history_is_the_same_both_ways(tmp_path_factory: pytest.TempPathFactory, history: list[list[str]]) -> None:
    work = tmp_path_factory.mktemp("history")
    layers = Layers(Vault(work / "vault"))
    stack: list[Layer] = []
    try:
        for number, steps in enumerate(history):
            script = "\n".join(["umask 022", *steps])
            stack.insert(0, check_both_ways(layers, stack, script, work / str(number)))
    finally:
        discard(work)


def test_a_long_stack_still_fits_into_a_mount(layers: Layers, tmp_path: Path) -> None:
    stack: list[Layer] = []
    for number in range(30):
        tree = write_tree(tmp_path / f"tree{number}", {f"d/{number}": "x", "top": f"{number}"})
        stack.insert(0, layers.collect(tree, kind="tree", limits=LIMITS).layer)
        stack.insert(0, layers.collect(write_tree(tmp_path / "none", {}), kind="tree", limits=LIMITS).layer)
    lowers = layers.lowers(stack)
    assert len(lowers) <= 20
    assert shown_by(layers, stack, tmp_path / "shown") == layers.merged(stack).entries
    assert len(layers.merged(stack).entries) == 32
    assert (lowers[0] / "top").read_text(encoding="utf-8") == "29"


def test_negative_control_the_overlay_really_whites_out(tmp_path: Path) -> None:
    """Without collecting anything: the upper directory holds what these tests rest upon."""
    lower = write_tree(tmp_path / "lower", {"gone": "x", "d/a": "x"})
    upper, copy = on_overlay([lower], "rm gone; rm -r d; mkdir d", tmp_path / "work")
    status = (upper / "gone").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert os.getxattr(upper / "d", "user.overlay.opaque") == b"y"
    assert not (copy / "gone").exists()
    assert IS_ROOT or status.st_uid == os.getuid()
