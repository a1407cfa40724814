"""``anvil doctor`` and ``anvil vault verify``: what is damaged or left over is told, mended where it can be, and made
again by the next forge."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe import leftovers, mending
from anvil.mainframe.evaluation import place_language
from anvil.mainframe.liveness import Worker
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.model.layer import Digest
from anvil.vault import Vault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

RECIPE = '''from anvil.recipe import Recipe, human_json
r = Recipe("facts", licence="MIT")
made = r.write("text", None, "facts.json", """{
  "a": 1
}
""")
more = r.run("more", made, "cp facts.json /out/")
r.artifact("facts.json", more.out / "facts.json", kind=human_json)
'''


@pytest.fixture
def forged(project: Project) -> Project:
    """A project that was forged once."""
    project.recipe("facts", RECIPE)
    project.environment["ANVIL_MIRROR_DEBIAN"] = "http://127.0.0.1:1/debian"
    done = project.forge("facts")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def blob_of(project: Project, data: bytes) -> Path:
    return Vault(project.home / "vault").path(Digest(hashlib.sha256(data).hexdigest()))


def is_made_again(project: Project) -> str:
    (project.output / "facts.json").unlink(missing_ok=True)
    done = project.forge("facts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.output / "facts.json").read_bytes() == FACTS
    assert project.anvil("vault", "verify").returncode == 0
    assert project.anvil("doctor").returncode == 0
    return done.stdout


FACTS = b'{\n  "a": 1\n}\n'


@pytest.mark.cell
def test_a_home_that_is_well_is_told_so(forged: Project) -> None:
    well = forged.anvil("doctor")
    assert well.returncode == 0, well.stdout + well.stderr
    assert "LACK" not in well.stdout
    mended = forged.anvil("doctor", "--mend")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "every byte that is kept is right" in mended.stdout
    assert "0 cards run" in forged.forge("facts").stdout


@pytest.mark.cell
def test_a_blob_that_is_gone_is_told_and_its_cards_run_again(forged: Project) -> None:
    blob_of(forged, FACTS).unlink()
    ill = forged.anvil("doctor")
    assert ill.returncode == 3
    assert "LACK  vault" in ill.stdout
    assert "anvil doctor --mend" in ill.stdout
    assert forged.anvil("doctor").returncode == 3  # nothing was mended without being asked for
    mended = forged.anvil("doctor", "--mend")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "run   facts/text" in is_made_again(forged)


@pytest.mark.cell
@pytest.mark.parametrize("command", [("vault", "verify", "--mend"), ("doctor", "--mend")])
def test_a_flipped_bit_is_mended(forged: Project, command: tuple[str, ...]) -> None:
    blob = blob_of(forged, FACTS)
    blob.chmod(0o600)
    blob.write_bytes(b'{\n  "a": 3\n}\n')
    told = forged.anvil("vault", "verify")
    assert told.returncode == 1
    assert blob.name in told.stdout
    assert "anvil vault verify --mend" in told.stdout
    forged.anvil(*command)
    assert not blob.exists()
    assert "run   facts/text" in is_made_again(forged)


@pytest.mark.cell
def test_a_flipped_bit_is_never_released(forged: Project) -> None:
    """The tree and the blob that an artifact comes from are damaged alike: it is refused, and mended by command."""
    blob = blob_of(forged, FACTS)
    blob.chmod(0o600)
    blob.write_bytes(b'{\n  "a": 3\n}\n')
    (forged.output / "facts.json").unlink()
    refused = forged.forge("facts")
    assert refused.returncode == 1
    assert "anvil vault verify --mend" in refused.stdout + refused.stderr
    assert not (forged.output / "facts.json").exists()
    assert forged.forge("facts", "--force", "facts/more").returncode == 1
    assert not (forged.output / "facts.json").exists()
    forged.anvil("vault", "verify", "--mend")
    is_made_again(forged)


@pytest.mark.cell
def test_a_card_does_not_see_a_flipped_bit_of_a_cached_tree(forged: Project) -> None:
    trees = [path for path in (forged.home / "vault" / "trees").glob("*/t/facts.json") if path.read_bytes() == FACTS]
    assert trees
    for path in trees:
        before = path.stat()
        path.write_bytes(b'{\n  "a": 3\n}\n')
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    forged.recipe("facts", RECIPE.replace("cp facts", "echo again; cp facts"))
    done = forged.forge("facts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run   facts/more" in done.stdout
    assert "kept  facts/artifact:facts.json" in done.stdout  # the same bytes came out
    told = forged.anvil("vault", "verify")
    assert told.returncode == 1  # the damaged trees are told of, and stay until somebody mends
    assert "tree" in told.stdout
    assert forged.anvil("vault", "verify", "--mend").returncode == 1
    is_made_again(forged)


@pytest.mark.cell
def test_what_killed_processes_left_is_told_and_taken_away(forged: Project) -> None:
    with Services(Settings(home=forged.home, output=forged.output)) as services:
        services.db.begin_forge("killed", deck="killed", recipe="facts", machine='{"worker":"nobody"}')
        arrived = services.vault.put_bytes(b"a source")
    left = [forged.home / "cells" / "dead-0001", forged.home / "downloads" / f"{arrived}.part"]
    left[0].mkdir()
    left[1].write_bytes(b"a source")
    (forged.home / "downloads" / f"{'0' * 64}.part").write_bytes(b"half of another")
    ill = forged.anvil("doctor")
    assert ill.returncode == 3
    assert "forges that were killed: 1" in ill.stdout
    assert "folders and files: 2" in ill.stdout
    assert "killed" in forged.anvil("status").stdout
    assert forged.anvil("doctor", "--mend").returncode == 0
    assert not any(path.exists() for path in left)
    assert (forged.home / "downloads" / f"{'0' * 64}.part").exists()  # the next fetch goes on with it
    assert forged.anvil("doctor").returncode == 0


@pytest.mark.cell
def test_a_broken_ledger_cannot_be_mended_and_doctor_says_what_to_do(forged: Project) -> None:
    connection = sqlite3.connect(forged.home / "cortex.db")
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute("UPDATE events SET body = '{}' WHERE seq = 3")
    connection.commit()
    connection.close()
    for words in ((), ("--mend",)):
        ill = forged.anvil("doctor", *words)
        assert ill.returncode == 3
        assert "LACK  cortex" in ill.stdout
        assert "restore a copy of cortex.db, or begin another with --home DIR" in ill.stdout
        assert "Traceback" not in ill.stderr


@pytest.mark.cell
def test_a_cortex_that_is_none_is_told(forged: Project) -> None:
    for name in ("cortex.db", "cortex.db-wal", "cortex.db-shm"):
        (forged.home / name).unlink(missing_ok=True)
    (forged.home / "cortex.db").write_bytes(b"rubbish " * 1000)
    ill = forged.anvil("doctor", "--mend")
    assert ill.returncode == 3
    assert "not a cortex" in ill.stdout
    assert "mend:" in ill.stdout
    assert "Traceback" not in ill.stderr


# --- without cells -------------------------------------------------------------------------------------------


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(home=tmp_path / "home", output=tmp_path / "out"))


def image(services: Services, text: str = "as made") -> Path:
    """What looks like a finished base image."""
    from anvil.image.tidy import tree_digest

    folder = services.home.images / ("1" * 64)
    (folder / "rootfs" / "etc").mkdir(parents=True)
    (folder / "rootfs" / "etc" / "file").write_text(text, encoding="utf-8")
    tree = tree_digest(folder / "rootfs")
    (folder / "image.json").write_text(f'{{"digest": "{"1" * 64}", "tree": "{tree}"}}', encoding="utf-8")
    return folder


def test_a_whole_image_is_not_touched(services: Services) -> None:
    image(services)
    assert not list(mending.images(services))


@pytest.mark.parametrize("harm", ["changed", "added", "stamp", "unstamped"])
def test_an_altered_image_is_taken_away(services: Services, harm: str) -> None:
    folder = image(services)
    if harm == "changed":
        (folder / "rootfs" / "etc" / "file").write_text("as  made", encoding="utf-8")
    elif harm == "added":
        (folder / "rootfs" / "more").write_text("", encoding="utf-8")
    elif harm == "stamp":
        (folder / "image.json").write_text("{}", encoding="utf-8")
    else:
        (folder / "image.json").unlink()
    [damage] = mending.images(services)
    assert str(folder) in damage.message
    damage.mend()
    assert not folder.exists()
    assert not list(mending.images(services))


def test_an_image_is_not_taken_from_under_a_living_forge(services: Services) -> None:
    folder = image(services)
    (folder / "image.json").unlink()
    other = Worker(services.home.workers)
    [damage] = mending.images(services)
    with pytest.raises(Exception, match="a forge is running"):
        damage.mend()
    assert folder.exists()
    other.close()
    damage.mend()
    assert not folder.exists()


def test_an_image_half_made_is_taken_away_unless_it_is_being_made(services: Services) -> None:
    import fcntl

    half = services.home.images / f"tmp-{'2' * 64}"
    half.mkdir()
    lock = os.open(services.home.images / f"{'2' * 64}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert not list(mending.left_behind(services))
    os.close(lock)
    [damage] = mending.left_behind(services)
    assert "half made" in damage.message
    damage.mend()
    assert not half.exists()


def test_a_folder_of_another_user_or_that_cannot_be_written_is_named(services: Services) -> None:
    assert "can be written" in mending.folders(services)
    if os.geteuid() != 0:
        services.home.logs.chmod(0o500)
    else:
        os.chown(services.home.logs, 65534, 65534)
    with pytest.raises(Exception, match=r"belongs to uid 65534|Permission") as caught:
        mending.folders(services)
    assert getattr(caught.value, "where", "") == str(services.home.logs)
    assert getattr(caught.value, "hint", "").startswith(("as root: chown", "chmod"))
    if os.geteuid() != 0:
        services.home.logs.chmod(0o700)


def test_a_torn_copy_of_the_language_is_made_again(services: Services) -> None:
    place = place_language(services.home.language)
    module = place / "anvil" / "recipe" / "language.py"
    whole = module.read_bytes()
    module.write_bytes(whole[:1000])  # as a power cut may leave it
    assert place_language(services.home.language) == place
    assert module.read_bytes() == whole
    assert [path.name for path in services.home.language.iterdir()] == [place.name]
    begun = services.home.language / "tmp-begun"
    begun.mkdir()
    assert not leftovers.torn_copies(services)
    os.utime(begun, (0, 0))
    leftovers.sweep(services)
    assert not begun.exists()
