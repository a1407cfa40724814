"""menuconfig in the cell of a card, and the fragment that comes of it; on a small tree, and an evil one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe.images import ensure_image
from tests.cli.terminal_lab import Terminal

if TYPE_CHECKING:
    from anvil.mainframe.services import Services
    from tests.conftest import Project

pytestmark = pytest.mark.cell

RECIPE = '''"""A tree with a Kconfig."""
from anvil.recipe import Recipe, human_json

kernel = Recipe("kernel", licence="MIT")
words = kernel.write("kconfig", None, "Kconfig", "config NEW")
tree = kernel.write("makefile", words, "Makefile", """
menuconfig:
\\t@echo '#include <ncurses.h>' | gcc -E - > /dev/null && echo with-ncurses $$TERM
\\t@stty size; read -r line; $(CHANGE)
CHANGE = sed -i "s/. CONFIG_NEW is not set/CONFIG_NEW=$$line/" .config
""")
config = kernel.run("config", tree, """
printf 'CONFIG_OLD=y\\\\n# CONFIG_NEW is not set\\\\nCONFIG_HZ=250\\\\n' > .config
""")
answer = kernel.write("answer", config, "a.json", "{\\n  \\"a\\": 1\\n}\\n")
kernel.artifact("a.json", answer / "a.json", kind=human_json)
'''

FRAGMENT = "# The options that differ from those of kernel/config.\nCONFIG_NEW=y\n"


@pytest.fixture
def forged(project: Project, image_maker: Services) -> Project:
    """A project whose deck is made."""
    ensure_image(image_maker, "shell")
    make(project, RECIPE)
    return project


def make(project: Project, text: str) -> None:
    project.recipe("kernel", text)
    (project.folder / "ROADMAP.md").write_text("")
    done = project.anvil("forge", "kernel")
    assert done.returncode == 0, done.stdout + done.stderr


def at_a_terminal(project: Project, *words: str) -> Terminal:
    environment = {**os.environ, "ANVIL_HOME": str(project.home), "TERM": "no-such-terminal"}
    return Terminal(
        project.command("shell", *words), folder=project.folder, environment=environment, rows=30, columns=90
    )


def choose(terminal: Terminal, answer: str) -> None:
    terminal.expect("with-ncurses xterm-256color")
    terminal.expect("30 90")
    terminal.type(f"{answer}\r")


def test_the_difference_is_saved_beside_the_recipe_and_never_over_a_file(forged: Project) -> None:
    with at_a_terminal(forged, "kernel/config", "--menuconfig") as terminal:
        choose(terminal, "y")
        assert terminal.wait() == 0
    saved = forged.folder / "recipes" / "kernel" / "kernel.fragment"
    assert saved.read_text() == FRAGMENT
    assert 'os.kernel_fragment(os.file("kernel/kernel.fragment"))' in terminal.said
    with at_a_terminal(forged, "kernel/config", "--menuconfig") as terminal:
        choose(terminal, "m")
        assert terminal.wait() == 0
    assert saved.read_text() == FRAGMENT
    assert "CONFIG_NEW=m" in saved.with_name("kernel.fragment.1").read_text()
    assert "add its lines to those of kernel.fragment" in terminal.said
    assert os.listdir(forged.home / "cells") == []


def test_the_word_menuconfig_in_a_shell_where_the_script_has_not_run_yet(forged: Project) -> None:
    with at_a_terminal(forged, "kernel/config", "--save", "mine") as terminal:
        terminal.expect("menuconfig changes its options")
        terminal.expect("/work$ ")
        terminal.type("ls -A; touch from-before; menuconfig\r")
        terminal.expect("Kconfig")
        choose(terminal, "y")
        terminal.expect("back in the shell")
        terminal.expect("/work$ ")
        terminal.type("ls -A -m; exit\r")
        terminal.expect(".config, Kconfig, Makefile, from-before")
        assert terminal.wait() == 0
    assert (forged.folder / "mine").read_text() == FRAGMENT


def test_an_edit_by_hand_counts_and_no_edit_saves_nothing(forged: Project) -> None:
    with at_a_terminal(forged, "kernel/config", "--after", "--save", "mine") as terminal:
        terminal.expect("/work$ ")
        terminal.type("exit\r")
        assert terminal.wait() == 0
    assert "nothing to save" in terminal.said
    with at_a_terminal(forged, "kernel/config", "--after", "--save", "mine") as terminal:
        terminal.expect("/work$ ")
        terminal.type("sed -i 's/# CONFIG_NEW.*/CONFIG_NEW=y/' .config; exit\r")
        assert terminal.wait() == 0
    assert (forged.folder / "mine").read_text() == FRAGMENT


def test_a_file_that_is_there_is_refused_before_anything_is_begun(forged: Project) -> None:
    (forged.folder / "mine").write_text("precious")
    with at_a_terminal(forged, "kernel/config", "--menuconfig", "--save", "mine") as terminal:
        assert terminal.wait() == 2
    assert "mine is there already" in terminal.said
    assert (forged.folder / "mine").read_text() == "precious"


def test_a_tree_without_kconfig_has_no_menuconfig(forged: Project) -> None:
    with at_a_terminal(forged, "kernel/kconfig") as terminal:
        terminal.expect("/work$ ")
        assert "menuconfig" not in terminal.said
        terminal.type("menuconfig || exit\r")
        terminal.expect("this tree has no Kconfig")
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    "change",
    [
        "rm .config; ln -s /etc/passwd .config",
        r"printf '\\\\033]0;owned\\\\007=y\\\\n' >> .config",
        "echo 'CONFIG_A=$(touch /tmp/owned)' >> .config",
        "yes CONFIG_A=y | head -c 9000000 >> .config",
    ],
)
def test_what_a_hostile_tree_gives_as_its_configuration_is_not_saved(forged: Project, change: str) -> None:
    evil = RECIPE.replace(
        'CHANGE = sed -i "s/. CONFIG_NEW is not set/CONFIG_NEW=$$line/" .config', "CHANGE = " + change
    )
    assert evil != RECIPE
    make(forged, evil.replace("$(touch", "$$(touch"))
    with at_a_terminal(forged, "kernel/config", "--menuconfig") as terminal:
        choose(terminal, "y")
        assert terminal.wait() == 1
    assert list(forged.folder.rglob("*.fragment*")) == []
    assert "\x1b]0;owned" not in terminal.said


def test_a_script_that_gives_no_configuration_is_told(project: Project, image_maker: Services) -> None:
    ensure_image(image_maker, "shell")
    project.recipe("kernel", RECIPE.replace("printf 'CONFIG_OLD", "frobnicate\nprintf 'CONFIG_OLD"))
    (project.folder / "ROADMAP.md").write_text("")
    assert project.anvil("forge", "kernel").returncode == 1
    with at_a_terminal(project, "kernel/config", "--menuconfig") as terminal:
        assert terminal.wait() == 1
    assert "kernel/config gives no .config" in terminal.said
    assert "frobnicate: command not found" in terminal.said
