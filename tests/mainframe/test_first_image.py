"""The way through docs/PROJECT.md: what the campaign takes from the page, and how it follows it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe import newproject
from tests.campaigns.first_image import ASKED, DOCUMENT, Block, blocks, follow, timed

if TYPE_CHECKING:
    from pathlib import Path

PAGE = DOCUMENT.read_text(encoding="utf-8")


def test_every_command_of_the_page_is_followed_and_the_first_image_is_timed() -> None:
    found = blocks(PAGE)
    assert len(found) == PAGE.count("```sh\n")
    text = "".join(block.text for block in found)
    for words in ("anvil init", "anvil plan", "anvil forge", "anvil boot", "anvil sources add", "make iso"):
        assert f"\n{words} " in f"\n{text} ".replace("make iso\n", "make iso \n"), words
    counted = found[timed(found)]
    assert counted[0].text.startswith("anvil init ")
    assert "anvil forge my-os\nanvil boot build_artifacts/anvilos-phase2.iso" in counted[-1].text
    assert not any("make iso" in block.text for block in counted)


def test_what_the_page_shows_of_the_recipe_is_in_the_recipe(tmp_path: Path) -> None:
    newproject.create(tmp_path / "my-os", "my-os")
    recipe = (tmp_path / "my-os/recipes/my-os.py").read_text(encoding="utf-8")
    [shown] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert set(filter(None, shown.splitlines())) <= set(recipe.splitlines())


def test_what_is_asked_of_the_image_is_what_the_recipe_puts_there(tmp_path: Path) -> None:
    newproject.create(tmp_path / "my-os", "my-os")
    recipe = (tmp_path / "my-os/recipes/my-os.py").read_text(encoding="utf-8")
    assert (tmp_path / "my-os/recipes/my-os/motd").read_text(encoding="utf-8") == "This is my-os, forged by Anvil.\n"
    assert "'This is my-os, forged by Anvil.'" in ASKED["file"]
    assert '"EXFAT_FS": "y"' in recipe
    assert 'os.user("ada"' in recipe
    assert '"/usr/bin/hello --serve", user="ada"' in recipe


def test_the_blocks_are_one_shells_and_end_at_the_first_failure(tmp_path: Path) -> None:
    listed = [
        Block(heading="a", text="export WORD=kept\nmkdir sub\n"),
        Block(heading="b", text='cd sub\necho "[ 1/2] done  r/card in 8:20"\necho $WORD\n'),
        Block(heading="c", text="pwd\ncat << 'END'\nset -e; $WORD\nEND\nfalse\necho unreached\n"),
        Block(heading="d", text="echo unreached\n"),
    ]
    environment = {"PATH": os.environ["PATH"]}
    found = follow(listed, tmp_path, environment, tmp_path / "log")
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert (found.exit_code, len(found.seconds), found.cards) == (1, 2, {"r/card": "8:20"})
    assert "\nkept\n" in said
    assert f"{tmp_path}/sub\nset -e; $WORD\n" in said
    assert "unreached" not in said
    whole = follow(listed[:2], tmp_path / "sub", environment, tmp_path / "log")
    assert (whole.exit_code, len(whole.seconds)) == (0, 2)


@pytest.mark.parametrize("page", ["", "## A\n\n```python\nx\n```\n"])
def test_a_page_without_commands_has_none(page: str) -> None:
    assert blocks(page) == []
