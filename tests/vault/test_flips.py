"""Flipped bits: a small sample of ``make campaign-flips``, and the controls that show what finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.campaigns import flips

if TYPE_CHECKING:
    from pathlib import Path

FLIPS, SEED = 40, 5


def test_every_flipped_bit_is_found_and_none_is_served(tmp_path: Path) -> None:
    seen = flips.run(FLIPS, SEED, folder=tmp_path)
    assert seen["found"] == FLIPS
    assert seen["served_right"] > 0
    assert seen["served_wrong"] == 0
    assert not seen["troubles"]


@pytest.mark.parametrize(
    ("without", "trouble"), [("trees", "served_wrong"), ("blobs", "served_wrong"), ("verify", "missed")]
)
def test_without_it_a_flip_gets_by(tmp_path: Path, without: str, trouble: str) -> None:
    seen = flips.run(FLIPS // 2, SEED, without=without, folder=tmp_path)
    assert seen[trouble] > 0, seen
