from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anvil.errors import EnvironmentLack, IntegrityError, SourceGone
from anvil.sources.debian import Archive, Suite
from anvil.sources.fetch import Fetcher
from anvil.sources.mirrors import Mirrors
from anvil.sources.resolve import (
    WANTED,
    Wanted,
    kernel_supported,
    read_zfs_meta,
    resolve_debian,
    resolve_package,
)
from anvil.sources.transfer import Patience

from .misbehaving_server import Mirror, serving
from .small_archive import KEYRING, NOW, SmallSuite, tarball, verify, zfs_tarball

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.model.lock import Source, SourceLock

STABLE = (Suite(archive="debian", name="trixie"), Suite(archive="debian", name="trixie-updates"))
BACKPORTS = (Suite(archive="debian", name="trixie-backports"),)
ZFS = replace(next(one for one in WANTED if one.name == "zfs"), tiers=(STABLE, BACKPORTS))
LINUX = Wanted(name="linux", package="linux", licence="GPL-2.0-only", tiers=(STABLE,))
ZLIB = Wanted(name="zlib", package="zlib", licence="Zlib", tiers=(STABLE,))


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        yield one


class World:
    """Three suites on one mirror, and what resolving them gives."""

    def __init__(self, mirror: Mirror, tmp_path: Path) -> None:
        self.stable, self.updates, self.backports = (
            SmallSuite(name=name) for name in ("trixie", "trixie-updates", "trixie-backports")
        )
        self.notes: list[str] = []
        self._mirror = mirror
        self._tmp_path = tmp_path

    def resolve(self, *wanted: Wanted) -> SourceLock:
        for suite in (self.stable, self.updates, self.backports):
            suite.publish(self._mirror.files)
        quick = Patience(silence_seconds=2, attempts=1, pause_seconds=0.01)
        get = Fetcher(Mirrors(bases={"debian": (self._mirror.base,)}), self._tmp_path / "downloads", patience=quick)
        archive = Archive(get, verify=verify, keyring=KEYRING, work=self._tmp_path / "indexes", now=NOW)
        return resolve_debian(
            archive, get, work=self._tmp_path / "tar", day="2026-11-24", wanted=wanted, note=self.notes.append
        )


@pytest.fixture
def world(mirror: Mirror, tmp_path: Path) -> World:
    return World(mirror, tmp_path)


def test_the_newest_that_is_there(world: World) -> None:
    world.stable.source("zlib", "1:1.3.dfsg+really1.3.1-1", b"one")
    world.stable.source("zlib", "1:1.10.dfsg-1", b"ten")
    world.updates.source("zlib", "1:1.11-1", b"eleven", there=False)
    world.updates.source("other", "9-1", b"other")
    lock = world.resolve(ZLIB)
    zlib = lock.sources["zlib"]
    assert (lock.profile, lock.resolved) == ("debian", "2026-11-24")
    assert zlib.version == "1.10"
    assert zlib.facts == {"debian-version": "1:1.10.dfsg-1", "debian-suite": "trixie"}
    assert zlib.files[0].path == "pool/main/z/zlib/zlib_1.10.dfsg.orig.tar.gz"
    assert zlib.files[0].size == 3


def test_a_kernel_that_this_openzfs_supports(world: World) -> None:
    world.stable.source("zfs-linux", "2.3.2-1", zfs_tarball("4.18", "6.14"), component="contrib")
    world.stable.source("linux", "6.12.107-1", b"good")
    world.stable.source("linux", "6.12.117-1", b"gone", there=False)
    world.updates.source("linux", "6.15.1-1", b"too new")
    world.stable.source("linux", "4.9.1-1", b"too old")
    lock = world.resolve(ZFS, LINUX)
    assert lock.sources["linux"].version == "6.12.107"
    assert lock.sources["zfs"].facts["linux-maximum"] == "6.14"
    assert lock.sources["zfs"].facts["linux-minimum"] == "4.18"


def test_only_unsupported_kernels_is_refused(world: World) -> None:
    world.stable.source("zfs-linux", "2.3.2-1", zfs_tarball("4.18", "6.14"), component="contrib")
    world.stable.source("linux", "6.15.1-1", b"too new")
    with pytest.raises(EnvironmentLack, match="OpenZFS") as caught:
        world.resolve(ZFS, LINUX)
    assert "6.15.1-1: OpenZFS 2.3.2 supports Linux 4.18 to 6.14" in caught.value.detail


def test_backports_only_when_the_stable_file_is_gone(world: World) -> None:
    world.backports.source("zfs-linux", "2.3.1-1~bpo13+1", zfs_tarball("4.18", "6.13"), component="contrib")
    world.backports.source("zfs-linux", "2.4.0-1~bpo13+1", zfs_tarball("4.18", "7.0"), component="contrib")
    world.stable.source("zfs-linux", "2.3.9-1", zfs_tarball("4.18", "6.14"), component="contrib", there=False)
    zfs = world.resolve(ZFS).sources["zfs"]
    assert (zfs.version, zfs.facts["debian-suite"]) == ("2.3.1", "trixie-backports")
    assert world.notes == ["zfs 2.3.1, from zfs-linux 2.3.1-1~bpo13+1 of trixie-backports"]


def test_nothing_to_be_had_is_said_with_what_was_tried(world: World) -> None:
    world.stable.source("zlib", "1.3-1", b"one", there=False)
    with pytest.raises(SourceGone) as caught:
        world.resolve(ZLIB)
    assert "1.3-1 of trixie: listed, but no mirror has its file" in caught.value.detail
    with pytest.raises(SourceGone, match="linux"):
        world.resolve(LINUX)


def test_a_native_package_has_no_upstream_tarball(world: World) -> None:
    world.stable.source("zlib", "1.3-1", b"one")
    stanzas = world.stable.stanzas["main/source/Sources"]
    stanzas[0] = stanzas[0].replace(".orig.", ".")
    with pytest.raises(IntegrityError, match="no upstream tarball"):
        world.resolve(ZLIB)


@pytest.mark.parametrize(
    ("kernel", "good"),
    [("4.18", True), ("4.17.99", False), ("6.12.107", True), ("6.14.99", True), ("6.15", False), ("7.0.1", False)],
)
def test_kernels_that_openzfs_supports(kernel: str, *, good: bool) -> None:
    assert kernel_supported(kernel, {"linux-minimum": "4.18", "linux-maximum": "6.14"}) is good


@pytest.mark.parametrize(
    "body", [b"no tarball", tarball({"META": b"Linux-Minimum: 1\n"}), tarball({"x/META": b""}), tarball({})]
)
def test_a_meta_that_says_nothing_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "zfs.tar.gz").write_bytes(body)
    with pytest.raises(IntegrityError):
        read_zfs_meta(tmp_path / "zfs.tar.gz")


# ---- one package, for a project of one's own


def package(world: World, name: str, *suites: Suite) -> Source:
    for suite in (world.stable, world.updates, world.backports):
        suite.publish(world._mirror.files)
    quick = Patience(silence_seconds=2, attempts=1, pause_seconds=0.01)
    get = Fetcher(Mirrors(bases={"debian": (world._mirror.base,)}), world._tmp_path / "downloads", patience=quick)
    archive = Archive(get, verify=verify, keyring=KEYRING, work=world._tmp_path / "indexes", now=NOW)
    return resolve_package(archive, get, name, work=world._tmp_path / "tar", suites=suites or STABLE)


def test_a_package_of_any_component_and_the_newest_that_is_there(world: World) -> None:
    world.stable.source("tool", "1.2-1", b"one", component="contrib")
    world.updates.source("tool", "1.3-1", b"two", component="contrib")
    world.updates.source("tool", "1.4-1", b"gone", component="contrib", there=False)
    found = package(world, "tool")
    assert (found.name, found.version, found.licence) == ("tool", "1.3", "NOASSERTION")
    assert found.files[0].path == "pool/contrib/t/tool/tool_1.3.orig.tar.gz"
    assert found.facts == {"debian-version": "1.3-1", "debian-suite": "trixie-updates"}


def test_a_package_that_is_debians_own_has_one_tarball(world: World) -> None:
    world.stable.source("tool", "1.2-1", b"one")
    stanza = world.stable.stanzas["main/source/Sources"][0]
    native = stanza.replace("tool_1.2.orig.tar.gz.asc", "tool_1.2.dsc2").replace(".orig.tar", ".tar")
    world.stable.stanzas["main/source/Sources"][0] = native
    world.stable.files["pool/main/t/tool/tool_1.2.tar.gz"] = b"one"
    assert package(world, "tool").files[0].name == "tool_1.2.tar.gz"
    two = native + f" {'3' * 64} 5 tool_1.2.debian.tar.xz\n"
    world.stable.stanzas["main/source/Sources"][0] = two
    assert package(world, "tool").files[0].name == "tool_1.2.tar.gz"


@pytest.mark.parametrize(
    ("asked", "hint", "said"),
    [
        ("tol", "anvil sources add tool", "no source package"),
        ("b", "anvil sources add tool", "made from the source tool"),
        ("xyzzy", "--suite", "no source package"),
    ],
)  # fmt: skip
def test_a_package_that_is_not_there_is_told_with_what_could_be_meant(
    world: World, asked: str, hint: str, said: str
) -> None:
    world.stable.source("tool", "1.2-1", b"one")
    with pytest.raises(SourceGone, match=said) as caught:
        package(world, asked)
    assert hint in caught.value.hint


def test_a_suite_that_is_asked_for(world: World) -> None:
    world.stable.source("tool", "1.2-1", b"one")
    world.backports.source("tool", "2.0-1~bpo1", b"two")
    assert package(world, "tool").version == "1.2"
    assert package(world, "tool", *BACKPORTS).version == "2.0"
