"""What a virtual machine that forges is told: the kernel line and the seed in it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from anvil.cell.bwrap import FIXED_ENV
from anvil.mainframe.vmwork import kernel_line

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def line_of(folder: Path, payload: bytes, append: str) -> str:
    initrd = folder / "initrd"
    initrd.write_bytes(payload)
    return kernel_line(append, initrd)


@settings(deadline=None)  # each example writes files
@given(st.binary(max_size=64), st.binary(max_size=64))
def test_the_seed_is_made_of_the_payload(tmp_path_factory: pytest.TempPathFactory, one: bytes, two: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    seeds = [int(line_of(folder, payload, "$SEED")) for payload in (one, two)]
    assert all(1 <= seed < 2**63 for seed in seeds)
    assert (seeds[0] == seeds[1]) == (one == two)


def test_the_line_has_the_cells_date_and_the_seed_wherever_they_are_named(tmp_path: Path) -> None:
    seed = int.from_bytes(hashlib.sha256(b"payload").digest()[:8], "big") >> 1
    told = line_of(tmp_path, b"payload", "a=$SEED quiet forge_time=$SOURCE_DATE_EPOCH b=$SEED")
    assert told == f"a={seed} quiet forge_time={FIXED_ENV['SOURCE_DATE_EPOCH']} b={seed}"
    assert line_of(tmp_path, b"payload", "console=ttyS0 $OTHER") == "console=ttyS0 $OTHER"
