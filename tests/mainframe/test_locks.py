"""Locks: what is pinned is shown and fetched, and made anew from a signed archive, with gpgv and apt in real cells."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cli.main import main
from anvil.errors import EnvironmentLack, IntegrityError, Interrupted, SourceGone
from anvil.image.wanted import wanted_names
from anvil.mainframe import locks
from anvil.mainframe.chain import Watch
from anvil.mainframe.gpgv import Gpgv, find_keyring, read_text
from anvil.mainframe.images import ensure_image
from anvil.mainframe.lockdiff import compare
from anvil.mainframe.locks import Proposal, Wish, propose, write
from anvil.mainframe.services import LOCKS, Services
from anvil.mainframe.settings import Settings
from anvil.model.lock import ImageLock, Package, PinnedFile, Source, SourceLock
from anvil.sources import lockfile
from anvil.sources.debian import Suite
from tests.mainframe.small_signer import Signer
from tests.sources.misbehaving_server import Mirror, pin, serving
from tests.sources.small_archive import SmallSuite, zfs_tarball

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.image.build import Image
    from tests.conftest import Project

NOW = datetime.now(UTC)
SOURCES = ("busybox", "dropbear", "libtirpc", "musl", "openssl", "util-linux", "zlib")


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(1)


@pytest.fixture(scope="module")
def stranger() -> Signer:
    return Signer(2)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        yield one


@pytest.fixture
def keyring(signer: Signer, tmp_path: Path) -> Path:
    path = tmp_path / "keyring.gpg"
    path.write_bytes(signer.keyring)
    return path


class World:
    """The archive that Anvil knows, small: every suite, every source and every package that images want."""

    def __init__(self, mirror: Mirror, signer: Signer) -> None:
        self.mirror, self.signer = mirror, signer
        self.suites = {name: SmallSuite(name=name, forms=(".xz",)) for name in ("trixie", "trixie-updates")}
        self.security = SmallSuite(name="trixie-security", forms=(".xz",))
        for suite in (*self.suites.values(), self.security):
            suite.date, suite.valid_until = NOW - timedelta(days=1), NOW + timedelta(days=6)
        stable = self.suites["trixie"]
        stable.source("zfs-linux", "2.3.2-1", zfs_tarball("4.18", "6.14"), component="contrib")
        stable.source("linux", "6.12.107-1", b"a kernel")
        for name in SOURCES:
            stable.source(name, "1:1.5-1", f"source of {name}".encode())
        self.package(stable, "base", "1", essential=True)
        wanted = {name for image in wanted_names() for name in self._wanted(image)}
        for name in sorted(wanted):
            self.package(stable, name, "1")

    @staticmethod
    def _wanted(image: str) -> list[str]:
        from anvil.image.wanted import read_wanted

        return list(read_wanted(image).packages)

    def package(self, suite: SmallSuite, name: str, version: str, *, essential: bool = False) -> None:
        """List a package, and have it."""
        body = f"{name} {version}".encode()
        path = f"pool/main/{name}_{version}_amd64.deb"
        suite.stanzas.setdefault("main/binary-amd64/Packages", []).append(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: {path}\nSize: {len(body)}\n"
            + ("Essential: yes\n" if essential else "")
            + f"SHA256: {hashlib.sha256(body).hexdigest()}\n"
        )
        suite.files[path] = body

    def publish(self) -> None:
        """Sign what there is, and serve it."""
        for suite in (*self.suites.values(), self.security):
            suite.files[f"dists/{suite.name}/InRelease"] = self.signer.clear_sign(suite.release())
            before = "/debian-security/" if suite is self.security else ""
            self.mirror.files.update({before + path: body for path, body in suite.files.items()})

    @property
    def environment(self) -> dict[str, str]:
        """Which mirrors there are: these, and none that this machine may know."""
        return {
            "ANVIL_MIRROR_DEBIAN": self.mirror.base,
            "ANVIL_MIRROR_DEBIAN_SECURITY": self.mirror.base + "-security",
        }

    @property
    def mirrors(self) -> dict[str, str]:
        return {"debian": self.mirror.base, "debian-security": self.mirror.base + "-security"}


@pytest.fixture
def world(mirror: Mirror, signer: Signer) -> World:
    return World(mirror, signer)


@pytest.fixture(scope="session")
def lock_image(image_maker: Services) -> Image:
    """The image with gpgv and apt."""
    return ensure_image(image_maker, "lock")


# ---- the signature, by gpgv in a cell


@pytest.fixture
def gpgv(lock_image: Image, tmp_path: Path) -> Gpgv:
    folder = tmp_path / "work"
    folder.mkdir()
    return Gpgv(rootfs=lock_image.rootfs, folder=folder, settings=Settings(home=tmp_path, output=tmp_path))


TEXT = b"Suite: stable\nCodename: trixie\nSHA256:\n aa 1 bb\n"


@pytest.mark.cell
def test_gpgv_hands_back_what_a_known_key_has_signed(gpgv: Gpgv, signer: Signer) -> None:
    notes: list[str] = []
    gpgv.note = notes.append
    assert gpgv(signer.clear_sign(TEXT), signer.keyring) == TEXT
    assert notes == [f"trixie is signed by {signer.fingerprint[-16:]}"]


@pytest.mark.cell
def test_gpgv_refuses_a_changed_text_a_strange_key_and_nonsense(gpgv: Gpgv, signer: Signer, stranger: Signer) -> None:
    signed = signer.clear_sign(TEXT)
    with pytest.raises(IntegrityError, match="is bad"):
        gpgv(signed.replace(b" aa 1", b" ab 1"), signer.keyring)
    with pytest.raises(IntegrityError, match="no key of the keyring") as caught:
        gpgv(signed, stranger.keyring)
    assert "NO_PUBKEY" in caught.value.detail
    with pytest.raises(IntegrityError):
        gpgv(b"no signed text at all\n", signer.keyring)
    with pytest.raises(IntegrityError):
        gpgv(signed, b"no keyring at all")


@pytest.mark.cell
def test_stopping_while_a_signature_is_checked(gpgv: Gpgv, signer: Signer) -> None:
    gpgv.cancel = lambda: True
    with pytest.raises(Interrupted):
        gpgv(signer.clear_sign(TEXT), signer.keyring)


def test_what_a_cell_leaves_is_read_as_a_strangers(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "missing"):
        with pytest.raises(IntegrityError):
            read_text(tmp_path / name)
    assert read_text(tmp_path / "secret") == b"the host's"


def test_which_keyring_is_trusted(tmp_path: Path) -> None:
    given, host, rootfs = tmp_path / "given", tmp_path / "host", tmp_path / "rootfs"
    image = rootfs / "usr/share/keyrings/debian-archive-keyring.gpg"
    image.parent.mkdir(parents=True)
    with pytest.raises(EnvironmentLack, match="no keyring"):
        find_keyring(None, rootfs, host=host)
    image.write_bytes(b"image")
    assert find_keyring(None, rootfs, host=host) == b"image"
    host.write_bytes(b"host")
    assert find_keyring(None, rootfs, host=host) == b"host"
    given.write_bytes(b"given")
    assert find_keyring(given, rootfs, host=host) == b"given"
    with pytest.raises(EnvironmentLack):
        find_keyring(tmp_path / "nowhere", rootfs, host=host)


# ---- update, through the command line


def traps(folder: Path) -> tuple[Path, Path]:
    """A folder of programs that tell on whoever runs them on the host, and where they tell it."""
    folder.mkdir()
    told = folder / "told"
    for name in ("gpgv", "gpg", "sqv", "apt-get", "bash", "dpkg"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {told}\nexit 1\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder, told


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
def test_update_writes_every_lock_and_runs_nothing_on_the_host(
    project: Project, world: World, keyring: Path, signer: Signer
) -> None:
    world.package(world.security, "gpgv", "2")
    world.suites["trixie"].source("linux", "6.12.117-1", b"a kernel that is gone", there=False)
    world.suites["trixie-updates"].source("linux", "6.15.1-1", b"a kernel too new")
    world.publish()
    into = project.folder / "into"
    trapped, told = traps(project.folder / "traps")
    project.environment = {**world.environment, "PATH": f"{trapped}:{os.environ['PATH']}"}
    done = project.anvil("sources", "update", "--into", str(into), "--keyring", str(keyring))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not told.exists()
    assert f"trixie-security is signed by {signer.fingerprint[-16:]}" in done.stdout
    assert "linux 6.12.107, from linux 6.12.107-1 of trixie" in done.stdout
    assert "zlib 1.3.1 -> 1.5" in done.stdout
    debian, seed = (lockfile.read_source_lock(into / f"{name}.json") for name in ("debian", "seed"))
    assert debian.resolved == f"{NOW:%Y-%m-%d}"
    assert debian.sources["zfs"].facts["linux-maximum"] == "6.14"
    assert seed.sources["zlib"] == debian.sources["zlib"]
    assert seed.sources["linux"].version == "6.6.14"
    assert {path.stem for path in (into / "images").iterdir()} == set(wanted_names())
    lock = lockfile.read_image_lock(into / "images" / "lock.json")
    packages = {package.name: package for package in lock.packages}
    assert (packages["gpgv"].version, packages["gpgv"].file.archive) == ("2", "debian-security")
    assert packages["base"].version == "1"
    assert not list((project.home / "cells").iterdir())


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
def test_update_check_says_what_would_change_and_an_expired_archive_is_refused(
    project: Project, world: World, keyring: Path
) -> None:
    before = {path: path.read_bytes() for path in LOCKS.rglob("*.json")}
    words = ("sources", "update", "--check", "--sources", "--keyring", str(keyring))
    project.environment = world.environment
    world.publish()
    done = project.anvil(*words, "--json")
    assert done.returncode == 1, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["written"] == []
    assert [lock["name"] for lock in told["locks"]] == ["debian", "seed"]
    assert any(line.startswith("openssl 3.") and line.endswith("-> 1.5") for line in told["locks"][0]["changes"])
    world.security.valid_until = NOW - timedelta(hours=1)
    world.publish()
    done = project.anvil(*words)
    assert done.returncode == 1
    assert "expired" in done.stderr
    assert "--allow-expired" in done.stderr
    assert project.anvil(*words, "--allow-expired").returncode == 1
    assert {path: path.read_bytes() for path in LOCKS.rglob("*.json")} == before


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
def test_a_forged_index_makes_no_lock(project: Project, world: World, keyring: Path, stranger: Signer) -> None:
    world.publish()
    path = "/debian-security/dists/trixie-security/InRelease"
    world.mirror.files[path] = stranger.clear_sign(world.security.release())
    into = project.folder / "into"
    project.environment = world.environment
    done = project.anvil("sources", "update", "--into", str(into), "--keyring", str(keyring))
    assert done.returncode == 1
    assert "no key of the keyring has signed" in done.stderr
    assert "next:" in done.stderr
    assert not into.exists()


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
def test_the_same_archive_the_next_day_changes_nothing(
    home: Path, world: World, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish()
    mine = tmp_path / "locks"
    mine.mkdir()
    (mine / "images").symlink_to(LOCKS / "images")
    (mine / "seed.json").write_bytes((LOCKS / "seed.json").read_bytes())
    (mine / "debian.json").write_text("not a lock: it is made anew", encoding="utf-8")
    point_at(mine, monkeypatch)
    wish = Wish(images=False, keyring=keyring)
    with Services(Settings(home=home, output=tmp_path / "out", mirrors=world.mirrors)) as services:
        first = propose(services, wish, Watch(), now=NOW)
        assert first[0].changes == ("made for the first time: 9 entries",)
        assert len(write(first, mine, unchanged=False)) == 2
        bytes_before = (mine / "debian.json").read_bytes()
        # what the vault keeps is not fetched again: the tarball that the facts are read from
        zfs = first[0].lock.sources["zfs"].files[0] if isinstance(first[0].lock, SourceLock) else None
        assert zfs is not None
        services.vault.put_bytes(world.mirror.files[zfs.path])
        world.mirror.asked.clear()
        again = propose(services, wish, Watch(), now=NOW + timedelta(days=1))
        assert [proposal.changes for proposal in again] == [(), ()]
        assert ("GET", zfs.path, "") not in world.mirror.asked
        assert write(again, mine, unchanged=False) == ()
    assert (mine / "debian.json").read_bytes() == bytes_before


def point_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take these locks for the checkout's own."""
    monkeypatch.setattr("anvil.mainframe.services.LOCKS", folder)
    for module in ("chain", "locks", "pinning"):
        monkeypatch.setattr(f"anvil.mainframe.{module}.LOCKS", folder)


def test_when_the_image_that_makes_locks_is_gone_itself(tmp_path: Path, mirror: Mirror) -> None:
    settings = Settings(
        home=tmp_path / "home", output=tmp_path, mirrors={"debian": mirror.base, "debian-security": mirror.base}
    )
    with Services(settings) as services, pytest.raises(SourceGone, match="in which locks are made") as caught:
        propose(services, Wish(), Watch(), now=NOW)
    assert "anvil sources fetch --from DIR" in caught.value.hint
    assert caught.value.exit_code == 3


def test_an_installed_anvil_has_no_locks_of_its_own_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locks.own_folder() == LOCKS
    point_at(tmp_path / "site-packages/anvil/sources/locks", monkeypatch)
    with pytest.raises(EnvironmentLack) as caught:
        locks.own_folder()
    assert "--into DIR" in caught.value.hint


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentLack):
        write((Proposal(name="small", lock=SMALL, changes=("x",)),), tmp_path / "file", unchanged=False)


# ---- where a package is, and what a change is called


def test_a_package_in_two_archives_is_taken_where_it_answers() -> None:
    old = pin("pool/updates/x_1_amd64.deb", b"x", archive="debian-security")
    new = replace(old, archive="debian", path="pool/x_1_amd64.deb")
    stanza = {"package": "x", "filename": old.path, "sha256": old.sha256, "size": "1"}
    lock = image_lock(Package(name="x", version="1", architecture="amd64", file=new))

    def place(last: PinnedFile | None, *there: PinnedFile) -> PinnedFile | None:
        places = locks._Places(lambda file: file in there, {last.sha256: last} if last else {})
        list(places.noting("debian-security", [stanza]))
        return places.settle(lock).packages[0].file if places.answer(new) else None

    assert place(None, old, new) == new
    assert place(old, old, new) == old
    assert place(old, new) == new
    assert place(None, old) == old
    assert place(old) is None


FILE = pin("pool/z/zlib_1.orig.tar.gz", b"one")
ZLIB = Source(name="zlib", version="1", licence="Zlib", files=(FILE,), facts={"debian-suite": "trixie"})
SMALL = SourceLock(profile="debian", resolved="2026-01-02", sources={"zlib": ZLIB})


def with_zlib(**changed: Any) -> SourceLock:
    return replace(SMALL, sources={"zlib": replace(ZLIB, **changed)})


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (SMALL, ()),
        (replace(SMALL, resolved="2027-01-01"), ()),
        (with_zlib(version="2"), ("zlib 1 -> 2",)),
        (with_zlib(files=(replace(FILE, sha256="0" * 64),)), ("zlib 1: another file of the same version",)),
        (with_zlib(files=(replace(FILE, path="pool/new"),)), ("zlib 1: the same file at debian pool/new",)),
        (with_zlib(facts={"debian-suite": "sid"}), ("zlib 1: debian-suite trixie -> sid",)),
        (with_zlib(facts={}), ("zlib 1: debian-suite trixie -> none",)),
        (with_zlib(licence="MIT"), ("zlib 1: licence Zlib -> MIT",)),
        (replace(SMALL, sources={}), ("zlib 1: not needed any more",)),
        (replace(SMALL, sources={"musl": replace(ZLIB, name="musl"), "zlib": ZLIB}), ("musl 1: new",)),
    ],
)
def test_what_a_change_of_a_source_lock_is_called(new: SourceLock, said: tuple[str, ...]) -> None:
    assert compare(SMALL, new) == said
    assert compare(None, new) == (f"made for the first time: {len(new.sources)} entries",)


def image_lock(*packages: Package) -> ImageLock:
    return ImageLock(name="small", resolved="2026-01-02", architecture="amd64", packages=packages)


def test_the_order_of_an_images_packages_is_a_change() -> None:
    one, two = (Package(name=name, version="1", architecture="amd64", file=FILE) for name in ("one", "two"))
    assert compare(image_lock(one, two), image_lock(one, two)) == ()
    assert compare(image_lock(one, two), image_lock(two, one)) == ("its packages are set up in another order",)
    assert compare(image_lock(one), image_lock(one, replace(two, version="3"))) == ("two 3: new",)


def test_images_are_made_of_signed_suites_only() -> None:
    assert all(isinstance(suite, Suite) and suite.archive.startswith("debian") for suite in locks.IMAGE_SUITES)


# ---- list and fetch, on small locks


@pytest.fixture
def small(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, with small locks in the place of Anvil's; the mirror has their files."""
    folder, home = tmp_path / "locks", tmp_path / "home"
    zlib = replace(ZLIB, files=(mirror.add("pool/zlib_1.tar.gz", b"zlib" * 1000),))
    odd = replace(ZLIB, name="odd", files=(mirror.add("pool/odd_1.tar.gz", b"odd", size=0),), facts={})
    lockfile.write_source_lock(replace(SMALL, sources={"zlib": zlib, "odd": odd}), folder / "debian.json")
    deb = mirror.add("pool/base_1_amd64.deb", b"a package")
    package = Package(name="base", version="1", architecture="amd64", file=deb)
    lockfile.write_image_lock(image_lock(package), folder / "images" / "small.json")
    point_at(folder, monkeypatch)
    monkeypatch.setenv("ANVIL_HOME", str(home))
    monkeypatch.setenv("ANVIL_MIRROR_DEBIAN", mirror.base)
    monkeypatch.setenv("ANVIL_MIRROR_DEBIAN_SECURITY", mirror.base)
    return home


@pytest.mark.usefixtures("small")
def test_list_fetch_and_list_again(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "list"]) == 0
    said = capsys.readouterr().out
    assert "zlib    1        4.0 kB  no        zlib_1.tar.gz  Zlib" in said
    assert "odd     1        ?       no" in said
    assert "small       1         9 B   0 of 1" in said
    assert main(["sources", "fetch"]) == 0
    said = capsys.readouterr().out
    assert "fetching 3 of 3 files" in said
    assert "all 3 files are in the vault, 3 of them new" in said
    mirror.files.clear()
    mirror.asked.clear()
    assert main(["sources", "fetch", "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"profile": "debian", "files": 3, "fetched": []}
    assert mirror.asked == []
    assert main(["sources", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["resolved"] == "2026-01-02"
    assert [file["in_vault"] for source in told["sources"] for file in source["files"]] == [True, True]
    assert told["sources"][1]["facts"] == {"debian-suite": "trixie"}
    assert told["images"] == [{"name": "small", "packages": 1, "bytes": 9, "missing": 0}]


@pytest.mark.usefixtures("small")
def test_fetch_from_a_folder_without_a_network(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sources", "fetch", "--offline"]) == 3
    assert "--from DIR" in capsys.readouterr().err
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, body in mirror.files.items():
        (folder / path.rpartition("/")[2]).write_bytes(body)
    assert main(["sources", "fetch", "--offline", "--from", str(folder)]) == 0
    assert mirror.asked == []


@pytest.mark.parametrize(
    ("fault", "code", "said"), [("404", 3, "anvil sources update"), ("wrong", 1, "not the pinned")]
)
def test_fetch_tells_what_is_gone_or_wrong_and_keeps_the_rest(
    small: Path, mirror: Mirror, fault: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.always["pool/base_1_amd64.deb"] = fault
    assert main(["sources", "fetch"]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "base_1_amd64.deb" in told
    del mirror.always["pool/base_1_amd64.deb"]
    assert main(["sources", "fetch"]) == 0
    assert not list((small / "downloads").glob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_fetch_takes_less_than_two_seconds(tmp_path: Path, mirror: Mirror, number: signal.Signals) -> None:
    for lock in (LOCKS / "images").glob("*.json"):
        for file in lockfile.files(lockfile.read_image_lock(lock)):
            mirror.always[file.path] = "hang"
    environment = {
        **os.environ,
        "ANVIL_HOME": str(tmp_path / "home"),
        "ANVIL_MIRROR_DEBIAN": mirror.base,
        "ANVIL_MIRROR_DEBIAN_SECURITY": mirror.base,
    }
    command = [sys.executable, "-m", "anvil.cli.main", "sources", "fetch"]
    fetch = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert fetch.stdout is not None
    assert fetch.stdout.readline().startswith("  fetching ")
    time.sleep(0.5)
    asked = time.monotonic()
    fetch.send_signal(number)
    _, said = fetch.communicate(timeout=10)
    assert time.monotonic() - asked < 2
    assert fetch.returncode == 130
    assert "run the same command to go on" in said


# ---- words


@pytest.mark.parametrize(
    "words",
    [
        [], ["nonsense"], ["update", "--check", "--into", "x"], ["fetch", "--from", "/nowhere/at/all"],
        ["update", "--keyring", "/nowhere/at/all"], ["list", "--check"],
    ],
)  # fmt: skip
@pytest.mark.usefixtures("small")
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("action", ["list", "fetch", "update"])
def test_every_action_explains_itself_with_an_example(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sources", action, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  anvil sources {action}" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_a_profile_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "list", "--profile", "none"]) == 1
    assert "profiles: debian" in capsys.readouterr().err
