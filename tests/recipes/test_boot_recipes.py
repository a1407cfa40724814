"""The recipes from compiled pieces to the medium, as text: what depends on what, and the files they bring along."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil.recipe.deck import references
from anvil.recipe.evaluate import evaluate_closure

if TYPE_CHECKING:
    from collections.abc import Iterator

MONOLITH = Path(__file__).parents[2] / "src" / "anvil" / "recipes" / "monolith"
OURS = ("initramfs", "rootfs", "iso")
COMPILED = {
    "busybox": ("bin/busybox",),
    "zfs": ("bin/zpool", "bin/zfs", "sbin/mount.zfs"),
    "kernel": ("bzImage", "forging-bzImage"),
}
STUB = """
from anvil.recipe import Recipe, elf_static
r = Recipe({name!r}, licence="MIT")
made = r.run("make", None, "true")
for path in {paths!r}:
    r.artifact(path, made.out / path, kind=elf_static)
"""


def decks() -> dict[str, dict[str, Any]]:
    """The decks of our recipes, and of stand-ins for what they use."""
    recipes = {name: (MONOLITH / f"{name}.py").read_text() for name in OURS}
    recipes |= {name: STUB.format(name=name, paths=paths) for name, paths in COMPILED.items()}
    answer = evaluate_closure({"profile": "test", "sources": {}, "recipes": recipes, "wanted": ["iso"]})
    assert "error" not in answer, answer
    found: dict[str, dict[str, Any]] = answer["decks"]
    return found


def deck_of(recipe: str) -> dict[str, Any]:
    """One recipe's deck."""
    return decks()[recipe]


def steps() -> dict[str, dict[str, Any]]:
    """Every step of our recipes, by "recipe/step"."""
    found = decks()
    return {f"{name}/{step['name']}": step for name in OURS for step in found[name]["steps"]}


def inputs_with(kind: str) -> Iterator[tuple[str, Any]]:
    for name, step in steps().items():
        yield from ((name, ref[kind]) for ref in step["inputs"].values() if kind in ref)


def files_of(recipe: str) -> list[Path]:
    return sorted(path for path in (MONOLITH / recipe).rglob("*") if path.is_file() and path.suffix != ".pyc")


def test_every_file_beside_a_recipe_is_an_input_of_a_step() -> None:
    there = {str(path.relative_to(MONOLITH)) for recipe in OURS for path in files_of(recipe)}
    # these two are taken in where something is added: see test_extended_recipes
    assert {path for _, path in inputs_with("file")} == there - {"rootfs/lay.sh", "rootfs/anvil-service"}


def test_a_changed_line_of_the_root_touches_the_root_alone() -> None:
    shared = {"rootfs/hostid", "rootfs/forge-init"}
    takers = {name for name, path in inputs_with("file") if path.startswith("rootfs/") and path not in shared}
    assert takers == {"rootfs/root"}


def test_the_kernel_and_the_menu_do_not_touch_the_pools_contents() -> None:
    users = {name for name, used in inputs_with("use") if used[0] == "kernel"}
    assert users == {"rootfs/pool", "iso/iso"}
    assert steps()["iso/grub"]["inputs"].keys() == {"embedded"}


def test_the_pool_is_forged_on_a_disk_of_500_mb_without_a_compiler() -> None:
    pool = steps()["rootfs/pool"]
    assert (pool["op"], pool["image"]) == ("forge", "machine")
    assert pool["extra"]["disks"] == [["rootfs.img", 500 * 1024 * 1024]]
    assert pool["extra"]["done"] in (MONOLITH / "rootfs" / "forge-init").read_text()


def test_the_pool_is_forged_by_the_twin_and_read_and_shipped_by_the_kernel_itself() -> None:
    pool = steps()["rootfs/pool"]
    assert pool["inputs"]["kernel"]["use"] == ["kernel", "forging-bzImage"]
    assert steps()["iso/iso"]["inputs"]["kernel"]["use"] == ["kernel", "bzImage"]
    assert deck_of("rootfs")["artifacts"]["rootfs.img"]["opener"]["kernel"]["use"] == ["kernel", "bzImage"]
    everywhere = [
        ref for name in OURS for ref in references(deck_of(name)) if ref.get("use") == ["kernel", "forging-bzImage"]
    ]
    assert len(everywhere) == 1


def test_nothing_is_left_to_chance_or_time_where_the_pool_is_forged() -> None:
    extra = steps()["rootfs/pool"]["extra"]
    assert extra["deterministic"] is True
    words = extra["append"].split()
    assert {"forge_time=$SOURCE_DATE_EPOCH", "spl.spl_forge_seed=$SEED", "zfs.zfs_txg_timeout=3600"} <= set(words)
    script = (MONOLITH / "rootfs" / "forge-init").read_text()
    mounted = script[script.index("step mount") : script.index("step unmount")]
    assert "\nsync" not in mounted
    assert script.index("step export") < script.index("step copy")


def test_the_forge_sees_both_firmwares_and_both_attachments_boot() -> None:
    boots = [step["extra"] for step in steps().values() if step["op"] == "boot"]
    assert {boot["firmware"] for boot in boots} == {"bios", "uefi"}
    assert {boot["attach"] for boot in boots} == {"cdrom", "disk"}
    assert {boot["expect"] for boot in boots} == {"ANVILOS READY"}
    assert 'tell "ANVILOS READY' in (MONOLITH / "rootfs" / "anvil-ready").read_text()


def test_the_host_id_is_the_same_wherever_a_pool_is_made_or_imported() -> None:
    assert {name for name, path in inputs_with("file") if path == "rootfs/hostid"} == {
        "initramfs/pack",
        "rootfs/root",
        "rootfs/forge-initrd",
    }
    assert len((MONOLITH / "rootfs" / "hostid").read_bytes()) == 4


def test_what_init_starts_is_there() -> None:
    script = steps()["rootfs/root"]["script"]
    inittab = (MONOLITH / "rootfs" / "inittab").read_text()
    programs = re.findall(r":(/[\w./-]+)", inittab)
    assert programs
    for program in programs:
        assert f" {program[1:]}\n" in script + "\n" or program in {"/sbin/init", "/sbin/reboot"}, program


SCRIPTS = [path for recipe in OURS for path in files_of(recipe) if path.read_bytes().startswith(b"#!/bin/sh\n")]


def test_there_are_scripts() -> None:
    assert {path.name for path in SCRIPTS} >= {"init", "rcS", "forge-init", "anvil-ready", "anvil-net"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(MONOLITH)))
def test_scripts_pass_shellcheck(script: Path) -> None:
    tool = Path(sys.executable).with_name("shellcheck")
    found = str(tool) if tool.exists() else shutil.which("shellcheck")
    assert found is not None, "shellcheck is not installed: make setup-dev"
    checked = subprocess.run([found, "--shell=sh", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


MIB = 1 << 20


@settings(deadline=None)  # each example starts a process
@given(st.sets(st.integers(0, 11)), st.integers(1, 12 * MIB))
def test_the_map_names_what_holds_data(tmp_path_factory: pytest.TempPathFactory, full: set[int], size: int) -> None:
    image = tmp_path_factory.getbasetemp() / "map.img"
    with open(image, "wb") as file:
        file.truncate(size)
        for number in full:
            if number * MIB < size:
                file.seek(number * MIB)
                file.write(b"x")
    told = subprocess.run(
        [sys.executable, MONOLITH / "iso" / "map.py", image], capture_output=True, text=True, check=True
    ).stdout
    extents = [tuple(map(int, row.split())) for row in told.splitlines()]
    covered = {number for first, count in extents for number in range(first, first + count)}
    assert covered == {number for number in full if number * MIB < size}
    assert all(first + count < after for (first, count), (after, _) in pairwise(extents))
