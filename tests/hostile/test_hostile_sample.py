"""A small fixed sample of the hostile suite (the whole of it: make campaign-hostile), and what holds for all of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.campaigns.hostile import CARDS, complaints, plain
from tests.hostile.registry import all_attacks
from tests.hostile.runner import run_as

SAMPLE = (
    "read-the-hosts-secrets",
    "reach-the-network",
    "own-core-pattern",
    "too-many-processes",
    "release-through-a-link-in-the-middle",
    "archive-with-symlink",
    "change-it-afterwards",
    "evaluation-write-into-the-first-process",
    "reach-into-process-one",
    "the-right-name-with-the-wrong-bytes",
)


@pytest.mark.cell
@pytest.mark.parametrize("user", ["root", "user"])
def test_the_sample_is_held_and_its_controls_are_red(user: str, build_image: object, machine_image: object) -> None:
    assert build_image
    assert machine_image
    if user == "root" and os.geteuid() != 0:
        pytest.skip("this process is not root")
    results = list(run_as(user, list(SAMPLE)))
    assert [result["name"] for result in results] == list(SAMPLE)
    for result in results:
        assert result["good"], plain(result)
        assert result["control"]


def test_every_attack_is_whole_and_every_card_has_one() -> None:
    attacks = all_attacks()
    assert set(SAMPLE) <= set(attacks)
    for name, attack in attacks.items():
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{2,63}", name), name
        assert attack.script or attack.recipe, name
        assert attack.verdict.kind in {"contained", "jammed", "refused", "lack"}, name
        assert (attack.verdict.kind == "contained") == (not attack.verdict.reason), name
    assert {number for attack in attacks.values() for number in attack.cards} == set(CARDS)


def test_the_campaign_does_not_end_well_when_something_is_not_as_it_must_be() -> None:
    good = {"good": True, "control": "x"}
    rows = {f"a{number}": {"cards": [number], "root": good, "user": good} for number in CARDS}
    assert complaints(rows, ["root", "user"]) == []
    assert complaints({**rows, "a3": {**rows["a3"], "cards": []}}, ["root"]) == ["no attack is of card 3"]
    assert complaints({**rows, "a4": {**rows["a4"], "user": {"good": False}}}, ["root", "user"])
    assert not complaints({**rows, "a4": {**rows["a4"], "user": {"good": False}}}, ["root"])
    del rows["a5"]["user"]
    assert complaints(rows, ["root", "user"])


def test_what_is_kept_names_no_place_of_this_machine() -> None:
    kept = plain({"seen": f"{Path('/var/tmp')}/anvil-hostile-x1_y/ground/free-1/f", "good": True, "log": ""})
    assert kept == {"seen": "PLACE/ground/free-1/f", "good": True}
