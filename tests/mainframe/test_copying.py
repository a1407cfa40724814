"""Where trees cannot be laid over each other they are copied, and every layer comes out the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe import cellwork, images
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.results import StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import MicroJSON
from anvil.model.card import Status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.cell

CHANGES = """
from anvil.recipe import Recipe
r = Recipe("changes", licence="MIT")
one = r.run("one", None, "mkdir -p a/b c; echo 1 > a/b/f; echo 2 > c/g; ln -s f a/b/l; touch a/same; chmod 700 c")
two = r.run("two", one, "rm -r c; mkdir c; echo 3 > c/h; rm a/b/l; mv a/b/f a/f; chmod 640 a/f; touch a/same")
three = r.run("three", two, "rm -r a; echo now a file > a; cp -r c d; echo out > /out/o")
r.export("all", three.work)
"""


def results(home: Path, project: Path) -> dict[str, StepResult]:
    """Forge in this process, one card after the other; what each card left."""
    settings = Settings(home=home, output=project / "out", project=project)
    with Services(settings) as services:
        architect = Architect(services)
        graph = architect.draw("changes")
        architect.push("deck", graph, architect.plan(graph))
        processor = Processor(services, report=lambda _number, _data: None, stopped=lambda: False)
        processor.run(lambda: True)
        cards = services.db.cards("deck")
        assert {card.stat for card in cards} == {Status.PUNCHED}, cards
        return {card.id: StepResult.from_data(MicroJSON.decode(card.ret)["data"]) for card in cards}


def out_of(result: StepResult) -> str:
    return result.out.digest if result.out else ""


def test_copied_trees_give_the_same_layers(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.recipe("changes", CHANGES)
    laid = results(project.home, project.folder)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "images").symlink_to((project.home / "images").resolve())
    real = images.ability
    asked = []

    def without_overlay(services: Services) -> object:
        asked.append(services)
        return replace(real(services), overlay=False)

    monkeypatch.setattr(cellwork, "ability", without_overlay)
    copied = results(other, project.folder)
    assert asked
    for name, result in laid.items():
        assert [layer.digest for layer in copied[name].stack] == [layer.digest for layer in result.stack], name
        assert out_of(copied[name]) == out_of(result), name
    assert len({layer.digest for result in laid.values() for layer in result.stack}) == 3
