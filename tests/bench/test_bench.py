"""The bench itself: its sums, its comparisons, and small runs of the parts that start cells."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from bench.__main__ import PARTS, RESULTS, SHORT
from bench.part import Rounds, Scale, summary

from bench import bare, compare, homes, kernel, machine, show, trivial

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.image.build import Image


def result(ours: list[float], *, cpu: str = "a cpu", cards: int = 10) -> dict[str, Any]:
    rounds = Rounds(taken={"anvil": ours, "ninja": [1.0] * len(ours)})
    facts = {
        "cards": cards,
        "figures": rounds.figures(),
        "ratios": {"anvil / ninja": rounds.ratio("anvil", "ninja")},
        "lacks": {"doit": "not installed"},
    }
    about = {"cpu": cpu, "cores": 2, "kernel": "6", "python": "3", "commit": "c" * 40, "date": "today"}
    return {"machine": about, "scale": {"cards": cards}, "parts": {"trivial": facts}}


class TestSums:
    def test_a_summary_keeps_every_value(self) -> None:
        assert summary([3.0, 1.0, 2.000001], "s") == {
            "unit": "s", "median": 2.0, "min": 1.0, "max": 3.0, "values": [3.0, 1.0, 2.0],
        }  # fmt: skip

    def test_ratios_are_taken_round_by_round(self) -> None:
        rounds = Rounds(taken={"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 4.0], "once": [4.0]})
        assert rounds.ratio("a", "b")["values"] == [2.0, 3.0, 1.0]
        assert rounds.ratio("a", "once")["values"] == [0.5]
        assert rounds.difference("a", "b", per=0.5, unit="ms")["values"] == [0.5, 10.0, 0.0]

    def test_facts_are_shown_with_their_spread_and_what_lacks(self) -> None:
        text = show.text(result([2.0, 4.0])["parts"]["trivial"])
        assert "cards 10" in text
        assert "3 s    (2 to 4)" in text
        assert "without doit: not installed" in text


class TestComparing:
    def test_a_change_is_a_ratio_of_ratios(self) -> None:
        text = compare.text(result([4.0, 4.2]), result([2.0, 2.1]))
        halved = [line for line in text.splitlines() if line.endswith("x 0.50")]
        assert [line.split()[0:2] for line in halved] == [["anvil", "4.1"], ["anvil", "/"]]

    def test_spreads_that_overlap_are_said_to(self) -> None:
        assert "(the spreads overlap)" in compare.text(result([4.0, 2.0]), result([3.0, 3.0]))

    def test_times_of_two_machines_are_not_compared(self) -> None:
        text = compare.text(result([4.0]), result([2.0], cpu="another"))
        assert "not the same machine (cpu): only ratios are compared" in text
        assert text.count("x 0.50") == 1

    def test_what_was_measured_otherwise_is_not_compared(self) -> None:
        text = compare.text(result([4.0]), result([2.0], cards=20))
        assert "not measured alike: cards" in text
        assert "x 0.50" not in text


def test_the_machine_is_described_as_json() -> None:
    about = json.loads(json.dumps(machine.describe()))
    assert set(compare.SAME) <= about.keys()
    assert about["memory_mb"] > 100
    assert about["packages"]["orjson"]


def test_every_part_keeps_the_contract() -> None:
    assert set(SHORT) < set(PARTS)
    assert all(what and callable(measure) for what, measure in PARTS.values())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_results_that_are_kept_can_be_compared(path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    if "parts" in kept:  # else a campaign's
        assert set(kept["parts"]) <= set(PARTS)
        assert compare.text(kept, kept)


@pytest.fixture
def scale(eval_image: Image, build_image: Image, tmp_path: Path) -> Scale:
    home = build_image.rootfs.parents[2]
    assert eval_image.rootfs.parents[2] == home
    return replace(Scale(), cards=3, rounds=1, images_from=home, scratch=tmp_path)


@pytest.mark.cell
def test_trivial_cards_are_measured_and_nothing_is_left(scale: Scale) -> None:
    facts = trivial.measure(scale, with_buildstream=False)
    took = {name: value["median"] for name, value in facts["figures"].items()}
    assert 0 < took["anvil: push to stamp"] < took["anvil: the whole command"]
    assert took["bare bubblewrap"] > 0
    assert list(scale.scratch.iterdir()) == []


@pytest.mark.cell
def test_a_bare_cell_that_fails_ends_the_bench(scale: Scale, capfd: pytest.CaptureFixture[str]) -> None:
    with homes.folder(scale) as top:
        spec = bare.card_spec(homes.Project.make(top / "spec", scale, homes.images(scale)))
        assert spec.command[-1].startswith("true")
        assert bare.Bare.make(spec, top / "good", 2).run(2) > 0
        failing = replace(spec, command=("/bin/bash", "-c", "exit 3"))
        with pytest.raises(SystemExit):
            bare.Bare.make(failing, top / "bad", 2).run(2)
    assert "bubblewrap ended with 3" in capfd.readouterr().err


SMALL = '''"""A make of six files."""
from anvil.recipe import Recipe

r = Recipe("small", licence="MIT")
source = r.write("source", None, "Makefile", "all: $(foreach n,1 2 3 4 5 6,o$(n))\\no%:\\n\\techo $@ >$@\\n")
config = r.run("config", source, "echo y >.config")
build = r.run("build", config, "make all; cat .config o* >/out/all")
r.export("all", build.out)
'''


@pytest.mark.cell
def test_a_card_is_measured_beside_its_own_make(scale: Scale) -> None:
    with homes.folder(scale) as top:
        project = homes.Project.make(top, scale, homes.images(scale), recipe="small", text=SMALL)
        facts = kernel.beside(project, "small/build", "test -f .config && make -j{jobs} all")
        assert facts["ratios"]["anvil: cold forge / make"]["median"] > 1
        own = top / "own" / "upper"
        assert sorted(path.name for path in own.iterdir()) == [f"o{n}" for n in range(1, 7)]


@pytest.mark.cell
def test_a_make_that_fails_ends_the_bench(scale: Scale) -> None:
    with homes.folder(scale) as top:
        project = homes.Project.make(top, scale, homes.images(scale), recipe="small", text=SMALL)
        with pytest.raises(SystemExit, match="No rule to make target 'no-such-thing'"):
            kernel.beside(project, "small/build", "make -j{jobs} no-such-thing")
