"""The profile ``seed``: everything but its upstream servers, which may be out of reach.

Its real lock is read and its plan made. What is fetched and made from it is tried with a lock of the same shape, whose
tarballs the test makes, from a mirror on the loopback that has them under the upstream's own paths.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from anvil.mainframe.services import LOCKS
from anvil.model.layer import Digest
from anvil.sources import lockfile
from tests.sources.misbehaving_server import Mirror, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Project

UPSTREAM = ("busybox", "linux", "postgresql", "zfs")
UNPACK = """
from anvil.recipe import Recipe

r = Recipe("unpacked", licence="MIT")
linux, zfs = r.source("linux"), r.source("zfs")
r.require(linux.version == "6.6.14" and zfs.facts["linux-maximum"] == "6.6", "this is not the profile seed")
for name in ("busybox", "linux", "postgresql", "zfs"):
    source = r.source(name)
    tree = r.unpack(source)
    tree.check(f"is-{name}", f"grep -qx '{name} {source.version}' NAME")
"""

# The command line with another folder of locks: an installed Anvil has only its own.
WITH_LOCKS = """
import sys
from pathlib import Path
from anvil.mainframe import services
services.LOCKS = Path(sys.argv.pop(1))
from anvil.cli.main import main
sys.exit(main())
"""


def archive(name: str, version: str, ending: str) -> bytes:
    """A tarball of the form that upstream's has: one folder, named by the version."""
    out = io.BytesIO()
    kind: Any = {"xz": "w:xz", "gz": "w:gz", "bz2": "w:bz2"}[ending]
    with tarfile.open(fileobj=out, mode=kind) as packed:
        body = f"{name} {version}\n".encode()
        member = tarfile.TarInfo(f"{name}-{version}/NAME")
        member.size = len(body)
        packed.addfile(member, io.BytesIO(body))
    return out.getvalue()


def below(url: str) -> str:
    """Where the mirror has an upstream address."""
    parts = urlsplit(url)
    return f"/up/{parts.netloc}{parts.path}"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        yield one


@pytest.fixture
def like_seed(mirror: Mirror, tmp_path: Path) -> Path:
    """A folder of locks in which ``seed`` is as it is, but for the bytes that the test has itself."""
    folder = tmp_path / "locks"
    folder.mkdir()
    (folder / "images").symlink_to(LOCKS / "images")
    seed = lockfile.read_source_lock(LOCKS / "seed.json")
    sources = dict(seed.sources)
    for name in UPSTREAM:
        [file] = sources[name].files
        body = archive(name, sources[name].version, file.url.rpartition(".")[2])
        mirror.files[below(file.url)] = body
        digest = hashlib.sha256(body).hexdigest()
        sources[name] = replace(sources[name], files=(replace(file, sha256=Digest(digest)),))
    lockfile.write_source_lock(replace(seed, sources=sources), folder / "seed.json")
    return folder


class Seed:
    """A project that is forged with the profile, and what it was told of mirrors."""

    def __init__(self, project: Project, locks: Path, mirror: Mirror) -> None:
        self.project, self.locks = project, locks
        address = mirror.base.removesuffix("/debian")
        self.environment = {
            **os.environ,
            "ANVIL_HOME": str(project.home),
            "ANVIL_MIRROR_DEBIAN": mirror.base,
            "ANVIL_MIRROR_DEBIAN_SECURITY": mirror.base,
            "ANVIL_MIRROR_UPSTREAM": f"{address}/up",
        }

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITH_LOCKS, str(self.locks), *words, "--profile", "seed"]
        return subprocess.run(
            command, cwd=self.project.folder, env={**self.environment, **environment}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip


@pytest.fixture
def seed(project: Project, like_seed: Path, mirror: Mirror) -> Seed:
    (project.folder / "ROADMAP.md").touch()
    project.recipe("unpacked", UNPACK)
    return Seed(project, like_seed, mirror)


# ---- the real lock


def test_its_lock_has_the_seeds_own_versions() -> None:
    lock = lockfile.read_source_lock(LOCKS / "seed.json")
    pinned = {name: (lock.sources[name].version, lock.sources[name].files[0].sha256[:8]) for name in UPSTREAM}
    assert pinned == {
        "busybox": ("1.36.1", "b8cc24c9"),
        "linux": ("6.6.14", "fbe96b2d"),
        "postgresql": ("16.1", "ce3c4d85"),
        "zfs": ("2.2.2", "76bc0547"),
    }
    # whatever a recipe of Anvil's own takes from one profile the other has too
    assert lock.sources.keys() >= lockfile.read_source_lock(LOCKS / "debian.json").sources.keys()


@pytest.mark.cell
def test_its_plan_is_made_without_a_network(project: Project, mirror: Mirror) -> None:
    project.environment = dict.fromkeys(("ANVIL_MIRROR_DEBIAN", "ANVIL_MIRROR_UPSTREAM"), mirror.base)
    planned = project.anvil("plan", "iso", "--profile", "seed")
    assert planned.returncode == 0, planned.stderr
    assert mirror.asked == []
    for card in ("linux", "unpack-linux", "config-zfs", "artifact:anvilos-phase2.iso"):
        assert f" {card} " in planned.stdout, card


@pytest.mark.cell
def test_bytes_that_are_not_the_seeds_are_refused_under_its_own_names(project: Project, mirror: Mirror) -> None:
    """The real pins, and a mirror that has something else under the upstream's paths."""
    lock = lockfile.read_source_lock(LOCKS / "seed.json")
    project.recipe("unpacked", UNPACK)
    for name in UPSTREAM:
        mirror.files[below(lock.sources[name].files[0].url)] = b"something else"
    address = mirror.base.removesuffix("/debian")
    project.environment = {"ANVIL_MIRROR_UPSTREAM": f"{address}/up"}
    forged = project.forge("unpacked", "--profile", "seed")
    assert forged.returncode == 1
    assert "what was served is not the pinned file" in forged.stdout + forged.stderr
    assert not list((project.home / "downloads").glob("*.part"))


# ---- a lock of the same shape


@pytest.mark.cell
def test_every_upstream_archive_is_fetched_from_a_mirror_and_unpacked(seed: Seed, mirror: Mirror) -> None:
    forged = seed("forge", "unpacked")
    assert forged.returncode == 0, forged.stderr
    asked = {path for _, path, _ in mirror.asked}
    assert asked == {path for path in mirror.files if path.startswith("/up/")}
    assert len(asked) == len(UPSTREAM)
    mirror.files.clear()
    again = seed("forge", "unpacked", "--offline")
    assert again.returncode == 0, again.stderr
    assert "0 cards run" in again.stdout


@pytest.mark.cell
@pytest.mark.parametrize("layout", ["side by side", "as on the mirror"])
def test_a_folder_has_them_where_no_server_can_be_reached(
    seed: Seed, mirror: Mirror, tmp_path: Path, layout: str
) -> None:
    given = tmp_path / "given"
    for path, body in mirror.files.items():
        place = given / (path.rpartition("/")[2] if layout == "side by side" else path.removeprefix("/up/"))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    mirror.files.clear()
    lacking = seed("forge", "unpacked", "--offline")
    assert lacking.returncode == 3
    assert "--from DIR" in lacking.stderr + lacking.stdout
    forged = seed("forge", "unpacked", "--offline", "--from", str(given))
    assert forged.returncode == 0, forged.stderr
    assert mirror.asked == []


@pytest.mark.cell
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("404", 3, "no mirror has"), ("500", 3, "no mirror answers"), ("wrong", 1, "not the pinned file")],
)
def test_a_mirror_that_fails_is_told_and_what_came_is_kept(
    seed: Seed, mirror: Mirror, fault: str, code: int, said: str
) -> None:
    bad = next(path for path in mirror.files if "linux-6.6.14" in path)
    mirror.always[bad] = fault
    forged = seed("forge", "unpacked")
    told = forged.stdout + forged.stderr
    assert (forged.returncode, said in told, "linux-6.6.14.tar.xz" in told) == (code, True, True), told
    assert f"127.0.0.1:{urlsplit(mirror.base).port}/up/cdn.kernel.org/" in told
    del mirror.always[bad]
    mirror.asked.clear()
    assert seed("forge", "unpacked").returncode == 0
    assert "GET" in {method for method, path, _ in mirror.asked if path == bad}


def test_its_sources_are_listed_and_shown_where_they_come_from(seed: Seed) -> None:
    listed = seed("sources", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    sources = {one["name"]: one for one in json.loads(listed.stdout)["sources"]}
    assert sources["linux"]["files"][0]["from"].endswith("/linux-6.6.14.tar.xz")
    assert sources["zlib"]["files"][0]["from"].startswith("debian pool/main/z/zlib/")
