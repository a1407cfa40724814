"""A small sample of ``make campaign-edits``: edits, what is named for them, what runs, and the control."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.campaigns import edits, edits_pool

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.image.build import Image

pytestmark = [pytest.mark.cell, pytest.mark.slow]

SAMPLE = (
    ("small", edits_pool.small_source),
    ("small", edits_pool.comment),
    ("iso", edits_pool.iso_fragment),
    ("iso", edits_pool.iso_equal),
    ("iso", edits_pool.iso_option),
    ("iso", edits_pool.comment),
)


def test_each_edit_of_a_sample_is_named_and_only_what_depends_on_it_runs(
    tmp_path: Path, build_image: Image, eval_image: Image
) -> None:
    assert eval_image
    rows = edits.carry_out(tmp_path, build_image.rootfs.parents[1], "sample", SAMPLE)
    assert [row["wrong"] for row in rows] == [[]] * len(SAMPLE)
    assert edits.confused(rows) == []
    found = edits.summary("sample", rows)
    assert (found["edits"], found["comments_that_ran_nothing"], found["equal_outputs_cut_off"]) == (4, 2, 1)


def test_the_judge_refuses_a_wrong_name_a_second_name_and_a_wrong_digest() -> None:
    told = edits_pool.Told(cards=frozenset({"a/b"}), what="file", name="x", before="1", after="2", lines=("line",))
    change = {"what": "file", "name": "x", "before": "1", "after": "2", "lines": ["+line"], "own": True}
    assert edits.names({"changes": [change]}, told)
    for wrong in ({"name": "y"}, {"what": "source"}, {"after": "3"}, {"before": "3"}, {"lines": [" line"]}):
        assert not edits.names({"changes": [{**change, **wrong}]}, told)
    assert not edits.names({"changes": []}, told)
    assert not edits.names({"changes": [change, {**change, "name": "y"}]}, told)


def test_a_seed_chooses_the_same_edits_and_every_kind() -> None:
    chosen = edits.choose("one")
    assert chosen == edits.choose("one")
    assert len(chosen) == edits.SMALL + edits.ISO
    assert {maker for kind, maker in chosen if kind == "iso"} == set(edits_pool.ISO)
    assert chosen != edits.choose(str(random.Random(1).random()))
