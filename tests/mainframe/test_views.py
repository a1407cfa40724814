"""Views of what was forged: the ASCII_OSS tree, the corresponding source, a tree compared with its archive."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe.oss_view import MARK
from tests.campaigns.small_deck import PROFILE, SmallDeck, Turn

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cell

MAIN = """
import sys
from pathlib import Path
from anvil.mainframe import services
vars(services)["LOCKS"] = Path(sys.argv[1])
from anvil.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass(kw_only=True)
class Forged:
    """The small deck, forged; and the command line with its locks."""

    deck: SmallDeck
    home: Path
    output: Path

    def anvil(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MAIN, str(self.deck.locks), *words]
        environment = {**os.environ, "ANVIL_HOME": str(self.home)}
        return subprocess.run(
            command, cwd=self.deck.project, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def view(self, target: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return self.anvil("vault", "export-oss", str(target), "--recipe", "small", *self.about, *words)

    @property
    def about(self) -> tuple[str, ...]:
        return ("--profile", PROFILE, "--project", str(self.deck.project))

    @property
    def tarball(self) -> Path:
        [path] = self.deck.sources.iterdir()
        return path


@pytest.fixture
def forged(tmp_path: Path, home: Path) -> Forged:
    """One turn of the small deck."""
    deck = SmallDeck(tmp_path)
    deck.write(Turn(nonce="one"))
    (deck.project / "ROADMAP.md").write_text("# Roadmap\n", encoding="utf-8")
    made = Forged(deck=deck, home=home, output=tmp_path / "out")
    done = made.anvil(*deck.words(home, made.output))
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_tree_shows_what_was_forged_and_what_from(forged: Forged, tmp_path: Path) -> None:
    target = tmp_path / "ascii_oss"
    done = forged.view(target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in target.iterdir()} == {"src", "bin", "lib", "etc", "README.md"}
    tool = target / "src" / "small"
    assert sha256(tool / "origin" / forged.tarball.name) == sha256(forged.tarball)
    assert (tool / "sovereign" / "small" / "first").read_text() == "changed\n"  # the patch is laid on
    assert sha256(target / "bin" / "program") == sha256(forged.output / "bin" / "program")
    assert os.access(target / "bin" / "program", os.X_OK)
    assert (target / "etc" / "small" / "small.patch").is_file()
    manifest = (tool / "MANIFEST.md").read_text()
    account = json.loads((forged.output / "bin" / "program.json").read_text())
    assert all(card["key"] in manifest for card in account["cards"])
    assert sha256(forged.tarball) in manifest
    assert (target / "README.md").read_text().startswith(MARK)


def test_an_export_replaces_an_earlier_one_and_nothing_else(forged: Forged, tmp_path: Path) -> None:
    target = tmp_path / "ascii_oss"
    assert forged.view(target).returncode == 0
    (target / "bin" / "stray").write_bytes(b"")
    assert forged.view(target, "--without-trees").returncode == 0
    assert not (target / "bin" / "stray").exists()
    assert list((target / "src" / "small" / "sovereign").iterdir()) == []
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("# My own folder\n")
    refused = forged.view(mine)
    assert refused.returncode == 2
    assert "holds something else" in refused.stderr
    (tmp_path / "link").symlink_to(target)
    assert forged.view(tmp_path / "link").returncode == 2
    assert [path.name for path in tmp_path.iterdir() if ".anvil-" in path.name] == []


def test_what_is_not_forged_as_it_is_now_is_not_shown(forged: Forged, tmp_path: Path) -> None:
    recipe = forged.deck.project / "recipes" / "small.py"
    recipe.write_text(recipe.read_text().replace("grep -qx changed first", "grep -q changed first"))
    done = forged.view(tmp_path / "ascii_oss")
    assert done.returncode == 1
    assert "small/build" in done.stderr
    assert "anvil forge small" in done.stderr
    assert not (tmp_path / "ascii_oss").exists()


def bundle(forged: Forged, output: Path, artifact: str = "bin/program") -> subprocess.CompletedProcess[str]:
    place = str(forged.output / artifact)
    return forged.anvil("sources", "bundle", "--for", place, "--output", str(output), *forged.about)


def test_the_bundle_has_all_that_the_artifact_was_made_from(forged: Forged, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    done = bundle(forged, first)
    assert done.returncode == 0, done.stdout + done.stderr
    assert bundle(forged, second).returncode == 0
    assert sha256(first) == sha256(second)
    assert sha256(first) in done.stdout
    with tarfile.open(first) as tar:
        tar.extractall(tmp_path / "opened", filter="data")
    top = tmp_path / "opened" / "program.source"
    assert sha256(top / "sources" / forged.tarball.name) == sha256(forged.tarball)
    for name in ("small.py", "small.patch", "program"):
        assert sha256(top / "recipes" / name) == sha256(forged.deck.project / "recipes" / name)
    assert not (top / "recipes" / "initrd").exists()  # it lies there too, and went into nothing
    account = json.loads((forged.output / "bin" / "program.json").read_text())
    cards = [json.loads(path.read_text())["id"] for path in sorted((top / "cards").glob("*.json"))]
    assert cards == [card["card"] for card in account["cards"]]
    assert (top / "locks" / f"{PROFILE}.json").is_file()
    assert (top / "locks" / "images" / "build.json").is_file()


def test_from_the_bundle_alone_the_same_artifact_is_made(forged: Forged, tmp_path: Path) -> None:
    assert bundle(forged, tmp_path / "it.tar").returncode == 0
    with tarfile.open(tmp_path / "it.tar") as tar:
        tar.extractall(tmp_path / "opened", filter="data")
    top = tmp_path / "opened" / "program.source"
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "images").symlink_to((forged.home / "images").resolve())
    output = tmp_path / "again"
    done = forged.anvil(
        "forge", "small", "--profile", PROFILE, "--project", str(top), "--from", str(top / "sources"),
        "--home", str(other), "--output", str(output),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sha256(output / "bin" / "program") == sha256(forged.output / "bin" / "program")


def test_no_bundle_for_what_the_recipes_do_not_make(forged: Forged, tmp_path: Path) -> None:
    target = tmp_path / "it.tar"
    program = forged.output / "bin" / "program"
    kept = program.read_bytes()
    program.write_bytes(kept + b"\0")
    done = bundle(forged, target)
    assert done.returncode == 1
    assert "not the file that its account speaks of" in done.stderr
    program.write_bytes(kept)
    recipe = forged.deck.project / "recipes" / "small.py"
    text = recipe.read_text()
    recipe.write_text(text.replace("chmod 755 /out/program", "chmod 0755 /out/program"))
    assert forged.anvil(*forged.deck.words(forged.home, tmp_path / "elsewhere")).returncode == 0
    done = bundle(forged, target)
    assert done.returncode == 1
    assert "small/build" in done.stderr
    recipe.write_text(text)
    shutil.move(f"{program}.json", tmp_path / "account")
    assert bundle(forged, target).returncode == 2
    assert not target.exists()
    shutil.move(tmp_path / "account", f"{program}.json")
    target.write_bytes(b"mine")
    assert bundle(forged, target).returncode == 2
    assert target.read_bytes() == b"mine"


def test_a_tree_is_compared_with_its_archive_in_a_cell(forged: Forged, tmp_path: Path) -> None:
    tree = tmp_path / "small-1.0"
    tree.mkdir()
    subprocess.run(["tar", "xf", forged.tarball, "--strip-components=1", "-C", tree], check=True, timeout=60)
    words = ("sources", "verify", "--tree", str(tree), "--profile", PROFILE, "--from", str(forged.deck.sources))
    clean = forged.anvil(*words)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert "clean: all 2 names" in clean.stdout
    (tree / "second").write_bytes(b"other")
    changed = forged.anvil(*words, "--json")
    assert changed.returncode == 1
    assert json.loads(changed.stdout)["differences"] == [
        {"kind": "changed", "path": "second", "what": "5 bytes instead of 4"}
    ]
    tree.rename(tmp_path / "unknown")
    unknown = forged.anvil(*words[:3], str(tmp_path / "unknown"), *words[4:])
    assert unknown.returncode == 2
    assert "--source: small" in unknown.stderr
