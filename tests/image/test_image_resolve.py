"""From wanted packages to a lock, with a solver that may misbehave; and the locks that are committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import anvil.sources
from anvil.errors import IntegrityError, RecipeError, SourceGone
from anvil.image.resolve import Pin, Universe, parse_simulation, resolve, solve_script
from anvil.image.wanted import Wanted, read_wanted, wanted_names
from anvil.model.lock import PinnedFile
from anvil.sources import lockfile

LOCKS = Path(anvil.sources.__file__).parent / "locks/images"
HOSTS = ("debian.org", "pypi.org", "npmjs", "crates.io", "golang.org")


def stanza(name: str, version: str = "1", **more: str) -> dict[str, str]:
    return {
        "package": name,
        "version": version,
        "architecture": "amd64",
        "filename": f"pool/main/{name}_{version}_amd64.deb",
        "size": "10",
        "sha256": "0" * 63 + "1",
        "description": "long\n and\n winding",
        **more,
    }


def said(*pins: Pin) -> str:
    noise = "Reading package lists...\nInst ignored (1 Debian:13/stable [amd64])\n"
    return noise + "".join(f"Conf {name} ({version} Debian:13/stable [{arch}])\n" for name, version, arch in pins)


@pytest.fixture
def universe(tmp_path: Path) -> Universe:
    main = [stanza("base", essential="yes"), stanza("tool"), stanza("tool", "2"), stanza("lib", depends="base (>= 1)")]
    security = [stanza("lib", "1+deb13u1")]
    return Universe(tmp_path / "universe", [("debian", main), ("debian-security", security)])


WANTED = Wanted(name="small", packages={"tool": "to try"})


class NewestFirst:
    """A solver that takes the newest tool its index lists, and notes what it was asked."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def __call__(self, script: str, folders: tuple[Path, ...]) -> str:
        self.scripts.append(script)
        text = (folders[0] / "Packages").read_text()
        version = "2" if "Version: 2\n" in text else "1"
        return said(("base", "1", "amd64"), ("lib", "1+deb13u1", "amd64"), ("tool", version, "amd64"))


def test_the_lock_has_the_plans_order_and_the_indexes_files(universe: Universe) -> None:
    solver = NewestFirst()
    lock = resolve(WANTED, universe, solver=solver, today="2026-01-02")
    assert [(each.name, each.version) for each in lock.packages] == [
        ("base", "1"),
        ("lib", "1+deb13u1"),
        ("tool", "2"),
    ]
    assert lock.packages[1].file.archive == "debian-security"
    assert lock.packages[2].file == PinnedFile(
        name="tool_2_amd64.deb", sha256="0" * 63 + "1", size=10, archive="debian", path="pool/main/tool_2_amd64.deb"
    )
    assert solver.scripts[0].rstrip().endswith("apt-get -s install base tool")


def test_a_file_that_is_gone_is_solved_around(universe: Universe) -> None:
    lock = resolve(
        WANTED, universe, solver=NewestFirst(), today="2026-01-02", answers=lambda file: "tool_2" not in file.name
    )
    assert lock.packages[2].version == "1"
    assert lock.packages[2].file.name == "tool_1_amd64.deb"


def test_when_everything_is_gone(universe: Universe) -> None:
    with pytest.raises((SourceGone, IntegrityError)):
        resolve(WANTED, universe, solver=NewestFirst(), today="2026-01-02", answers=lambda _file: False)


def test_a_package_that_no_index_has(universe: Universe) -> None:
    with pytest.raises(RecipeError, match="nonesuch"):
        resolve(Wanted(name="x", packages={"nonesuch": "?"}), universe, solver=NewestFirst(), today="2026-01-02")


@pytest.mark.parametrize("text", ["", "E: no\n", said(("a", "1", "amd64"), ("a", "1", "amd64"))])
def test_a_plan_that_cannot_be_read(text: str) -> None:
    with pytest.raises(IntegrityError, match="plan"):
        parse_simulation(text)


def test_a_plan_from_nowhere(universe: Universe) -> None:
    with pytest.raises(IntegrityError, match="no index has"):
        resolve(WANTED, universe, solver=lambda _s, _f: said(("evil", "1", "amd64")), today="2026-01-02")


def test_what_the_solver_is_given(universe: Universe) -> None:
    text = (universe.folders[0] / "Packages").read_text()
    assert "Essential: yes\n" in text
    assert "Depends: base (>= 1)\n" in text
    assert "winding" not in text
    script = solve_script(["b", "a"], indexes=2)
    assert "file:/in/index-1 ./" in script
    assert script.rstrip().endswith("install a b")


def test_an_index_that_points_out_of_its_archive(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        Universe(tmp_path / "u", [("debian", [stanza("a", filename="../../etc/passwd")])])


# ---- what is committed


@pytest.mark.parametrize("name", wanted_names())
def test_every_wanted_list_has_its_lock(name: str) -> None:
    lock = lockfile.read_image_lock(LOCKS / f"{name}.json")
    names = {package.name for package in lock.packages}
    assert lock.name == name
    assert read_wanted(name).packages.keys() <= names
    assert {"base-files", "bash", "bubblewrap", "coreutils", "dpkg", "libc6"} <= names
    text = (LOCKS / f"{name}.json").read_text()
    assert not any(host in text for host in HOSTS)


def test_there_is_no_lock_without_a_list() -> None:
    names = {"build", "container", "eval", "lock", "machine", "shell"}
    assert {path.stem for path in LOCKS.glob("*.json")} == set(wanted_names()) == names


def test_the_shell_image_is_the_build_image_and_more() -> None:
    """menuconfig asks the compiler, so it is the very one that cards have."""
    build, shell = (read_wanted(name).packages for name in ("build", "shell"))
    assert shell.keys() - build.keys() == {"less", "libncurses-dev", "nano"}
    assert build.items() <= shell.items()
    locked = [
        {package.name: package.version for package in lockfile.read_image_lock(LOCKS / f"{name}.json").packages}
        for name in ("build", "shell")
    ]
    assert locked[0].keys() <= locked[1].keys()
    for name in ("gcc-14", "binutils", "make", "flex", "bison", "libelf-dev", "bash"):
        assert locked[0][name] == locked[1][name]


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"kind": "wanted", "packages": {}}, {"kind": "wanted", "packages": {"a b": "x"}},
     {"kind": "wanted", "packages": {"ab": ""}}, {"kind": "lock", "packages": {"ab": "x"}}],
)  # fmt: skip
def test_a_list_that_is_none(tmp_path: Path, data: object) -> None:
    (tmp_path / "x.json").write_text(json.dumps(data) if data is not None else "{")
    with pytest.raises(RecipeError):
        read_wanted("x", tmp_path)
