"""Power cuts under the vault: a small sample of ``make campaign-power``, and the controls that its disk sees lacks."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.campaigns import disk_trace, power_vault
from tests.campaigns.disk_model import Disk
from tests.campaigns.disk_trace import Event

needs_strace = pytest.mark.skipif(not disk_trace.available(), reason="strace is not here or may not trace")
CUTS, SEED = 60, 11


@pytest.mark.slow
@needs_strace
def test_no_acknowledged_blob_is_lost_and_none_is_wrong() -> None:
    seen = power_vault.run(CUTS, SEED)
    assert seen["cuts"] == CUTS
    assert seen["acknowledged"] > CUTS
    assert not seen["troubles"]


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize(("without", "trouble"), [("file", "wrong"), ("folder", "lost"), ("syncfs", "lost")])
def test_a_disk_that_forgets_a_sync_is_seen(without: str, trouble: str) -> None:
    seen = power_vault.run(CUTS, SEED, without=[without])
    assert seen[trouble] > 0, seen


def shown(folder: Path, events: list[Event], tries: int = 80) -> set[tuple[tuple[str, bytes], ...]]:
    """Everything that a disk showed after cuts: names with bytes."""
    found = set()
    chance = random.Random(1)
    for number in range(tries):
        disk = Disk(Path("/disk"))
        for event in events:
            disk.apply(event)
        place = folder / str(number)
        place.mkdir()
        disk.cut(place, chance)
        found.add(tuple((path.name, path.read_bytes()) for path in sorted(place.iterdir())))
        shutil.rmtree(place)
    return found


def test_the_disk_owes_nothing_but_what_was_synced(tmp_path: Path) -> None:
    data = b"x" * 600
    written = [
        Event(pid=1, call="open", path="/disk/a", creates=True),
        Event(pid=1, call="write", path="/disk/a", data=data),
    ]
    synced = [*written, Event(pid=1, call="fsync", path="/disk/a"), Event(pid=1, call="fsync", path="/disk")]
    renamed = [*synced, Event(pid=1, call="rename", path="/disk/a", to="/disk/b")]
    loose = shown(tmp_path, written)
    for state in ((), (("a", b""),), (("a", data),), (("a", bytes(600)),), (("a", data[:512] + bytes(88)),)):
        assert state in loose
    assert shown(tmp_path, synced) == {(("a", data),)}
    assert shown(tmp_path, renamed) == {(), (("a", data),), (("b", data),), (("a", data), ("b", data))}
    assert shown(tmp_path, [*renamed, Event(pid=1, call="syncfs", path="/disk")]) == {(("b", data),)}
