"""A project's own sources: pinned along signatures, explained where names meet, and fetched by the forge."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cli.main import main
from anvil.errors import AnvilError
from anvil.mainframe import pinning
from anvil.mainframe.chain import Trust, Watch
from anvil.mainframe.images import ensure_image
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.sources import lockfile
from tests.mainframe.small_signer import Signer
from tests.mainframe.test_locks import NOW, World
from tests.sources.misbehaving_server import Mirror, serving
from tests.sources.small_archive import tarball

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.image.build import Image
    from anvil.model.lock import SourceLock
    from tests.conftest import Project

TOOL = tarball({"tool.c": b"int main(void) { return 0; }\n"}, top="tool-1.2")
NAME = "tool-1.2.tar.gz"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(1)


@pytest.fixture(scope="module")
def stranger() -> Signer:
    return Signer(2)


@pytest.fixture(scope="session")
def lock_image(image_maker: Services) -> Image:
    """The image with gpgv."""
    return ensure_image(image_maker, "lock")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        one.files[f"/dl/{NAME}"] = TOOL
        yield one


@pytest.fixture
def url(mirror: Mirror) -> str:
    return f"{mirror.base.removesuffix('/debian')}/dl/{NAME}"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that one is in, with an empty home."""
    folder = tmp_path / "mine"
    (folder / "recipes").mkdir(parents=True)
    (folder / "ROADMAP.md").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ANVIL_HOME", str(tmp_path / "home"))
    for name in ("DEBIAN", "DEBIAN_SECURITY", "UPSTREAM"):
        monkeypatch.delenv(f"ANVIL_MIRROR_{name}", raising=False)
    return folder


def add(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What ``sources add`` tells machines."""
    assert main(["sources", "add", *words, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


# ---- addresses


def test_an_address_is_pinned_by_its_digest_and_told_what_that_is_worth(
    mine: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sources", "add", url]) == 0
    said = capsys.readouterr().out
    digest = hashlib.sha256(TOOL).hexdigest()
    assert f"tool 1.2 is pinned in {mine / 'sources.json'}" in said
    assert f"sha256 {digest}" in said
    assert "NOT verified  a signature: none lies beside tool-1.2.tar.gz" in said
    assert "NOT verified  the way: it came over plain http" in said
    assert "NOT verified  its licence" in said
    assert "\n  verified" not in said
    source = lockfile.read_source_lock(mine / "sources.json").sources["tool"]
    assert (source.version, source.licence, source.facts) == ("1.2", "NOASSERTION", {"trust": "first-use"})
    assert [(file.url, file.sha256, file.size) for file in source.files] == [(url, digest, len(TOOL))]


@pytest.mark.usefixtures("mine")
def test_a_signature_that_nobody_could_check_is_told(
    mirror: Mirror,
    url: str,
    signer: Signer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror.files[f"/dl/{NAME}.sig"] = signer.detached(TOOL)
    told = add(capsys, url, "--licence", "MIT")
    assert told["licence"] == "MIT"
    assert told["not_verified"][0].startswith(
        "the signature tool-1.2.tar.gz.sig that lies beside it: no key was given"
    )


@pytest.mark.usefixtures("mine")
def test_a_digest_that_was_given_decides(mine: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "add", url, "--sha256", "0" * 64]) == 1
    told = capsys.readouterr().err
    assert "is not the file whose sha256 was given" in told
    assert hashlib.sha256(TOOL).hexdigest() in told
    assert not (mine / "sources.json").exists()
    told_again = add(capsys, url, "--sha256", hashlib.sha256(TOOL).hexdigest().upper())
    assert told_again["facts"] == {"trust": "given"}


@pytest.mark.usefixtures("mine")
def test_what_does_not_come_pins_nothing(mine: Path, mirror: Mirror, url: str, tmp_path: Path) -> None:
    mirror.always[f"/dl/{NAME}"] = "404"
    assert main(["sources", "add", url]) == 3
    assert main(["sources", "add", url, "--offline"]) == 3
    assert not (mine / "sources.json").exists()
    assert not list((tmp_path / "home" / "cells").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["https://example.org/main.tar.gz"], "--name NAME --version VERSION"),
        (["ftp://example.org/x-1.tar.gz"], "is not the address of a file"),
        (["./x-1.tar.gz"], "is not the address of a file"),
        (["https://example.org/x-1.tar.gz", "--name", "A b"], "cannot be called 'A b'"),
        (["https://example.org/x-1.tar.gz", "--suite", "sid"], "in no suite of an archive"),
        (["https://example.org/x-1.tar.gz", "--sha256", "12"], "64 hex digits"),
        (["https://example.org/x-1.tar.gz", "--key", "/nowhere"], "there is no such file"),
        (["lua5.4", "--sha256", "0" * 64], "is a package"),
        (["Not a Name"], "cannot be called 'Not a Name'"),
        (["https://example.org/busybox-1.tar.gz"], "Anvil has a source called busybox itself"),
        (["https://example.org/postgresql-1.tar.gz"], "in profile seed"),
        (["zlib"], "say --replace if that is meant"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_words_that_cannot_be_are_told_before_anything_is_fetched(
    mine: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sources", "add", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (mine / "sources.json").exists()


def test_outside_of_a_project_nothing_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANVIL_HOME", str(tmp_path / "home"))
    assert main(["sources", "add", "lua5.4"]) == 2
    assert "anvil init DIR makes one" in capsys.readouterr().err
    assert main(["sources", "remove", "lua5.4"]) == 2


def test_a_name_that_is_taken(mine: Path, mirror: Mirror, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    add(capsys, url)
    assert main(["sources", "add", url]) == 2
    assert "the project pins tool 1.2 already" in capsys.readouterr().err
    newer = tarball({"tool.c": b"int main(void) { return 1; }\n"}, top="tool-1.3")
    mirror.files["/dl/tool-1.3.tar.gz"] = newer
    add(capsys, url.replace("1.2", "1.3"), "--replace")
    assert lockfile.read_source_lock(mine / "sources.json").sources["tool"].version == "1.3"
    add(capsys, url, "--name", "tool-old")
    assert list(lockfile.read_source_lock(mine / "sources.json").sources) == ["tool", "tool-old"]


def test_in_the_place_of_anvils_own_only_when_it_is_said(
    mine: Path, mirror: Mirror, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.files["/dl/zlib-9.tar.gz"] = TOOL
    address = url.replace(NAME, "zlib-9.tar.gz")
    assert main(["sources", "add", address]) == 2
    capsys.readouterr()
    add(capsys, address, "--replace")
    assert main(["sources", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["sources"]}
    assert (listed["zlib"]["version"], listed["zlib"]["pinned_by"]) == ("9", "project")
    assert listed["musl"]["pinned_by"] == "profile"
    # a lock in which that was not said, as one that was made for an older Anvil may be
    text = (mine / "sources.json").read_text(encoding="utf-8")
    (mine / "sources.json").write_text(text.replace('"replaces": [\n    "zlib"\n  ],', ""), encoding="utf-8")
    assert main(["sources", "list"]) == 1
    told = capsys.readouterr().err
    assert "'zlib' is in the project's lock (9) and in profile debian" in told
    assert "--replace" in told
    # and it can be mended by the command that the message names
    assert main(["sources", "remove", "zlib"]) == 0


def test_list_shows_what_the_project_pins_and_remove_takes_it_out(
    mine: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add(capsys, url, "--licence", "MIT")
    assert main(["sources", "list"]) == 0
    said = capsys.readouterr().out
    assert f"pinned by the project {mine}" in said
    row = next(line for line in said.splitlines() if line.startswith("  tool "))
    assert row.split() == [
        "tool",
        "1.2",
        str(len(TOOL)),
        "B",
        "yes",
        NAME,
        "MIT",
        *["nothing", "but", "what", "came", "first"],
    ]
    assert main(["sources", "remove", "tool"]) == 0
    assert lockfile.read_source_lock(mine / "sources.json").sources == {}
    assert main(["sources", "remove", "tool"]) == 2
    assert "it pins: none" in capsys.readouterr().err
    assert main(["sources", "remove", "zlib"]) == 2
    assert "(it is the profile's)" in capsys.readouterr().err


def test_a_file_of_this_machine_is_copied_into_the_project(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_bytes(TOOL)
    told = add(capsys, (tmp_path / NAME).as_uri())
    assert told["from"] == f"project: sources/{NAME}"
    assert (mine / "sources" / NAME).read_bytes() == TOOL
    (tmp_path / NAME).write_bytes(b"another")
    assert main(["sources", "add", (tmp_path / NAME).as_uri(), "--name", "other"]) == 2
    assert "is another file" in capsys.readouterr().err
    assert (mine / "sources" / NAME).read_bytes() == TOOL
    # it needs no network and no mirror, in any home
    assert main(["sources", "list", "--home", str(tmp_path / "other")]) == 0
    settings = Settings(home=tmp_path / "other", output=tmp_path, project=mine, offline=True)
    with Services(settings) as services:
        services.fetch_into_vault(services.sources.sources["tool"].files, lambda _: None, lambda: False)
        assert services.vault.has(services.sources.sources["tool"].files[0].sha256)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "nonsense"])
def test_a_strangers_lock_that_is_none(
    mine: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = mine / "sources.json"
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "link":
        lock.symlink_to(tmp_path)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.write_text('{"kind": "source-lock"}', encoding="utf-8")
    assert main(["sources", "list"]) == 1
    assert str(lock) in capsys.readouterr().err


# ---- fetching it


@pytest.mark.usefixtures("mine")
def test_the_fetcher_has_it_from_its_address_a_mirror_a_folder_or_not_at_all(
    mirror: Mirror, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(capsys, url)

    def fetched(home: str, **more: Any) -> bool:
        settings = Settings(home=tmp_path / home, output=tmp_path, project=tmp_path / "mine", **more)
        with Services(settings) as services:
            pinned = services.sources.sources["tool"].files
            try:
                services.fetch_into_vault(pinned, lambda _: None, lambda: False)
            except AnvilError as error:
                return NAME not in str(error)
            return True

    assert fetched("one")
    assert not fetched("two", offline=True)
    given = tmp_path / "given"
    given.mkdir()
    (given / NAME).write_bytes(TOOL)
    assert fetched("two", offline=True, from_dir=given)
    host = mirror.base.removesuffix("/debian").removeprefix("http://")
    mirror.files = {f"/up/{host}/dl/{NAME}": TOOL}
    assert not fetched("three")
    assert fetched("three", mirrors={"upstream": f"http://{host}/up"})
    mirror.files = {f"/up/{host}/dl/{NAME}": b"another"}
    assert not fetched("four", mirrors={"upstream": f"http://{host}/up"})


@pytest.mark.cell
def test_a_recipe_is_made_from_what_the_project_pins(project: Project, url: str, build_image: object) -> None:
    (project.folder / "ROADMAP.md").touch()
    (project.folder / "deep").mkdir()
    added = project.anvil("sources", "add", url, "--licence", "MIT")
    assert added.returncode == 0, added.stderr
    project.recipe(
        "tool",
        'from anvil.recipe import Recipe, elf_static\nr = Recipe("tool", licence="MIT")\n'
        'tree = r.unpack(r.source("tool"))\n'
        'made = r.run("build", tree, "musl-gcc -static -o tool tool.c && ./tool")\n'
        'r.artifact("bin/tool", made / "tool", kind=elf_static)\n',
    )
    forged = project.anvil("forge", "tool", "--offline")
    assert forged.returncode == 0, forged.stderr
    account = json.loads((project.output / "bin/tool.json").read_text(encoding="utf-8"))
    assert [(one["name"], one["version"], one["licence"]) for one in account["sources"]] == [("tool", "1.2", "MIT")]
    taken = project.anvil("sources", "remove", "tool")
    assert taken.returncode == 0
    forged = project.anvil("forge", "tool")
    assert forged.returncode == 1
    assert "no source is called 'tool'" in forged.stderr


# ---- signatures, by gpgv in a cell


@pytest.fixture
def keyfile(signer: Signer, tmp_path: Path) -> Path:
    path = tmp_path / "author.asc"
    path.write_bytes(signer.armoured)
    return path


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
@pytest.mark.parametrize("packed", [True, False], ids=["beside-the-archive", "over-what-was-packed"])
def test_a_signature_is_checked_with_the_key_that_was_given(
    project: Project,
    mirror: Mirror,
    url: str,
    signer: Signer,
    keyfile: Path,
    *,
    packed: bool,
) -> None:
    (project.folder / "ROADMAP.md").touch()
    tar = b"a tar" * 5000
    body = lzma.compress(tar)
    mirror.files["/dl/signed-2.tar.xz"] = body
    mirror.files["/dl/signed-2.tar.xz.sig" if packed else "/dl/signed-2.tar.sign"] = signer.detached(
        body if packed else tar
    )
    done = project.anvil("sources", "add", url.replace(NAME, "signed-2.tar.xz"), "--key", str(keyfile), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["facts"] == {"trust": "signature", "signed-by": signer.fingerprint}
    assert f"was made by {signer.fingerprint}" in told["verified"][0]
    assert "whether that key is the author's" in told["not_verified"][0]


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
@pytest.mark.parametrize("wrong", ["changed", "stranger", "none", "trailing", "no-key"])
def test_what_is_not_signed_by_that_key_pins_nothing(
    project: Project, mirror: Mirror, url: str, signer: Signer, stranger: Signer, keyfile: Path, wrong: str,
) -> None:  # fmt: skip
    (project.folder / "ROADMAP.md").touch()
    tar = b"a tar" * 5000
    body = lzma.compress(tar)
    by = stranger if wrong == "stranger" else signer
    signature = by.detached(tar + b"!" if wrong == "changed" else tar)
    mirror.files["/dl/signed-2.tar.xz"] = body + (b"more behind it" if wrong == "trailing" else b"")
    if wrong != "none":
        mirror.files["/dl/signed-2.tar.sign"] = signature
    if wrong == "no-key":
        keyfile.write_text("no key", encoding="utf-8")
    done = project.anvil("sources", "add", url.replace(NAME, "signed-2.tar.xz"), "--key", str(keyfile))
    assert done.returncode == 1, done.stdout
    said = {
        "changed": "a signature of signed-2.tar.xz is bad",
        "stranger": "no key of the keyring has signed signed-2.tar.xz",
        "none": "no signature lies beside signed-2.tar.xz",
        "trailing": "cannot be unpacked",
        "no-key": "holds no public key",
    }
    assert said[wrong] in done.stderr
    assert not (project.folder / "sources.json").exists()
    assert not list((project.home / "cells").iterdir())


# ---- packages


@pytest.fixture
def archive(project: Project, mirror: Mirror, signer: Signer, tmp_path: Path) -> World:
    """The small archive, and a project that knows its mirror and its keys."""
    world = World(mirror, signer)
    (project.folder / "ROADMAP.md").touch()
    project.environment = world.environment
    (tmp_path / "archive.gpg").write_bytes(signer.keyring)
    return world


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
def test_a_package_is_pinned_along_the_archives_signatures(
    project: Project,
    archive: World,
    tmp_path: Path,
    signer: Signer,
) -> None:
    archive.suites["trixie"].source("tool", "1.2-3", TOOL, component="contrib")
    archive.suites["trixie"].source("tool", "1.9-1", b"gone", component="contrib", there=False)
    archive.publish()
    words = ("sources", "add", "tool", "--keyring", str(tmp_path / "archive.gpg"))
    done = project.anvil(*words, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["version"], told["licence"]) == ("1.2", "NOASSERTION")
    assert told["facts"] == {"debian-suite": "trixie", "debian-version": "1.2-3", "trust": "archive"}
    assert told["from"] == "debian: pool/contrib/t/tool/tool_1.2.orig.tar.gz"
    assert "InRelease of trixie is signed" in told["verified"][0]
    again = project.anvil(*words, "--replace", "--licence", "MIT")
    assert again.returncode == 0, again.stderr
    assert f"trixie is signed by {signer.fingerprint[-16:]}" in again.stdout
    assert project.anvil("sources", "fetch", "--offline").returncode == 3  # the images and the others are not there
    archive.mirror.files.clear()
    project.recipe(
        "r", 'from anvil.recipe import Recipe\nr = Recipe("r", licence="MIT")\nr.unpack(r.source("tool"))\n'
    )
    assert project.anvil("forge", "r").returncode == 0


@pytest.mark.cell
@pytest.mark.usefixtures("lock_image")
def test_a_package_that_is_not_there_or_not_signed(
    project: Project,
    archive: World,
    tmp_path: Path,
    stranger: Signer,
) -> None:
    archive.suites["trixie"].source("tool", "1.2-3", TOOL)
    archive.publish()
    words = ("--keyring", str(tmp_path / "archive.gpg"))
    done = project.anvil("sources", "add", "tol", *words)
    assert done.returncode == 3
    assert "no source package is called 'tol'" in done.stderr
    assert "anvil sources add tool" in done.stderr
    done = project.anvil("sources", "add", "b", *words)  # every source of the small archive makes packages a and b
    assert "it is made from the source" in done.stderr
    done = project.anvil("sources", "add", "tool", "--suite", "sid", *words)
    assert done.returncode == 3
    (tmp_path / "archive.gpg").write_bytes(stranger.keyring)
    done = project.anvil("sources", "add", "tool", *words)
    assert done.returncode == 1
    assert "no key of the keyring has signed the InRelease file" in done.stderr
    assert not (project.folder / "sources.json").exists()


def test_those_that_pin_at_once_lose_nothing(mine: Path, url: str, mirror: Mirror) -> None:
    running = []
    for number in range(5):
        mirror.files[f"/dl/one{number}-1.tar.gz"] = TOOL
        command = [sys.executable, "-m", "anvil.cli.main", "sources", "add", url.replace("tool-1.2", f"one{number}-1")]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in running] == [0] * 5
    assert len(lockfile.read_source_lock(mine / "sources.json").sources) == 5


@pytest.mark.parametrize("alone", [True, False], ids=["as it is", "without its lock"])
def test_what_one_reads_nobody_else_writes_over_before_it_has_written(
    mine: Path, url: str, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """Both read before either writes, if they can: then one is lost, which is the control."""
    meeting, real = threading.Barrier(2), pinning._read

    def read(path: Path) -> SourceLock | None:
        found = real(path)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(1)
        return found

    def pin(number: int) -> None:
        wish = pinning.Wish(what=url.replace("tool-1.2", f"one{number}-1"), trust=Trust())
        with Services(Settings(home=tmp_path / "home", output=tmp_path, project=mine)) as services:
            pinning.pin(services, wish, Watch(), now=NOW)

    monkeypatch.setattr(pinning, "_read", read)
    if not alone:
        monkeypatch.setattr(pinning, "_alone", nullcontext)
    for number in range(2):
        mirror.files[f"/dl/one{number}-1.tar.gz"] = TOOL
    with ThreadPoolExecutor(2) as both:
        list(both.map(pin, range(2)))
    assert len(lockfile.read_source_lock(mine / "sources.json").sources) == (2 if alone else 1)
