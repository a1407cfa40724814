"""Group commit: an answer waits for its sync, one sync serves many, and a failed one is believed by nobody."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Any
from unittest import mock

import apsw
import pytest

from anvil.cortex import walsize
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.settlement import Settlement
from anvil.errors import DiskFull, EnvironmentLack
from anvil.model.card import Status
from tests.campaigns.power_cortex import lacking
from tests.campaigns.power_disk import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SimulatedDisk]:
    CortexDB(tmp_path / "cortex.db").close()
    simulated = SimulatedDisk(folder=tmp_path)
    yield simulated
    simulated.close()


def opened(disk: SimulatedDisk) -> CortexDB:
    return CortexDB(disk.folder / "cortex.db", disk=disk)


def unsynced(disk: SimulatedDisk) -> int:
    return len(disk.names[str(disk.folder / "cortex.db-wal")].pending)


class Wal:
    """A WAL of which only the syncs matter."""

    def __init__(self) -> None:
        self.syncs = 0
        self.during: Callable[[], object] = lambda: None
        self.content = bytearray(100)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.syncs += 1
        self.during()

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.content)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.content[offset : offset + len(data)] = data

    def xClose(self) -> None:  # noqa: N802
        pass


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield lock
    os.close(lock)


def settlement(fd: int) -> tuple[Settlement, Wal]:
    wal = Wal()
    made = Settlement(fd, Wal)
    made.attach(wal)
    return made, wal


def commit(made: Settlement) -> int:
    number = made.committing()
    made.committed(number)
    return number


# -- the numbers -----------------------------------------------------------------------------------------------------


def test_one_sync_serves_all_that_committed_before_it(fd: int) -> None:
    (one, one_wal), (two, two_wal) = settlement(fd), settlement(fd)
    first, second = commit(one), commit(two)
    two.settle(second)
    one.settle(first)
    assert (one_wal.syncs, two_wal.syncs) == (0, 1)


def test_a_sync_does_not_serve_what_was_committed_during_it(fd: int) -> None:
    (one, one_wal), (two, two_wal) = settlement(fd), settlement(fd)
    first = commit(one)
    later: list[int] = []
    one_wal.during = lambda: later.append(commit(two))
    one.settle(first)
    two.settle(later[0])
    assert (one_wal.syncs, two_wal.syncs) == (1, 1)


def test_who_changes_nothing_waits_for_what_it_may_have_seen(fd: int) -> None:
    (one, _), (two, two_wal) = settlement(fd), settlement(fd)
    two.settle(two.seen())
    assert two_wal.syncs == 0
    commit(one)
    two.settle(two.seen())
    assert two_wal.syncs == 1
    two.settle(two.seen())
    assert two_wal.syncs == 1


def test_one_that_died_between_commit_and_count_is_counted(fd: int) -> None:
    (one, _), (two, two_wal) = settlement(fd), settlement(fd)
    one.committing()
    two.settle(two.seen())
    assert two_wal.syncs == 1


@pytest.mark.parametrize("left", [b"", b"\x07", struct.pack("<3Q", 5, 4, 9), struct.pack("<3Q", 9, 9, 2)])
def test_numbers_left_by_another_start_pass_for_no_sync(fd: int, left: bytes) -> None:
    os.pwrite(fd, left, 0)
    one, wal = settlement(fd)
    one.settle(commit(one))
    assert wal.syncs == 1


def test_after_a_failed_sync_nobody_is_answered_until_the_wal_is_written_again(fd: int) -> None:
    (one, one_wal), (two, two_wal) = settlement(fd), settlement(fd)
    first, second = commit(one), commit(two)

    def fail() -> None:
        raise apsw.IOError("simulated")

    one_wal.during = fail
    with pytest.raises(apsw.IOError):
        one.settle(first)
    with pytest.raises(apsw.IOError):
        two.settle(second)
    assert two_wal.syncs == 1, "its own sync went well, and is not believed"
    writes: list[int] = []
    with mock.patch.object(two_wal, "xWrite", lambda data, offset: writes.append(len(data))):
        two.begin()
    assert sum(writes) == len(two_wal.content)
    assert not one.doubtful or one._doubt
    two.settle(second)


def test_a_lock_file_that_cannot_be_written_stops_the_commit(fd: int, tmp_path: Path) -> None:
    readonly = os.open(tmp_path / "lock", os.O_RDONLY)
    one, _ = settlement(readonly)
    with pytest.raises(apsw.IOError, match="lock file"):
        one.committing()
    with (
        mock.patch("os.pwrite", side_effect=OSError(errno.ENOSPC, "full")),
        pytest.raises(apsw.FullError, match="lock file"),
    ):
        one.committing()
    one.doubt()
    assert one.doubtful, "kept in the process"
    os.close(readonly)


# -- the cortex ------------------------------------------------------------------------------------------------------


def test_what_is_answered_is_synced(disk: SimulatedDisk) -> None:
    with opened(disk) as db:
        db.push_card("a", "run", "{}")
        assert unsynced(disk) == 0
        with lacking("the sync of a commit"):
            db.push_card("b", "run", "{}")
        assert unsynced(disk) > 0


def test_a_repeated_stamp_waits_for_the_first_ones_sync(disk: SimulatedDisk) -> None:
    with opened(disk) as one, opened(disk) as two:
        one.push_card("a", "run", "{}")
        card = one.pop_card("w")
        assert card is not None
        left: list[int] = []

        def again() -> None:
            disk.on_sync = lambda: None
            two.log_result(card, stat=Status.PUNCHED, ret="r")
            left.append(unsynced(disk))

        disk.on_sync = again
        one.log_result(card, stat=Status.PUNCHED, ret="r")
        assert left == [0]


def test_the_lock_is_free_while_a_commit_waits_for_its_sync(disk: SimulatedDisk) -> None:
    with opened(disk) as one, opened(disk) as two:
        one.push_card("a", "run", "{}")

        def meanwhile() -> None:
            disk.on_sync = lambda: None
            two.push_card("c", "run", "{}")

        disk.on_sync = meanwhile
        one.push_card("b", "run", "{}")
        assert [card.id for card in one.cards("")] == ["a", "b", "c"]


def failing(step: str, error: Any) -> Callable[[str], None]:
    def fail(name: str) -> None:
        if name == step:
            raise error

    return fail


def sync_error() -> Any:
    error: Any = apsw.IOError("simulated")
    error.extendedresult = apsw.SQLITE_IOERR_FSYNC
    return error


def test_a_failed_sync_is_told_and_the_next_change_mends(disk: SimulatedDisk, tmp_path: Path) -> None:
    with opened(disk) as db, opened(disk) as other:
        db.push_card("a", "run", "{}")
        disk.on_step = failing("xSync", sync_error())
        with pytest.raises(EnvironmentLack, match="the disk failed") as caught:
            db.push_card("b", "run", "{}")
        assert "dmesg" in caught.value.hint
        with pytest.raises(EnvironmentLack, match="the disk failed"):
            other.push_card("c", "run", "{}")
        disk.on_step = lambda _: None
        other.push_card("d", "run", "{}")
        assert disk.names[str(tmp_path / "cortex.db-wal")].pending == []
        assert {"a", "d"} <= {card.id for card in db.cards("")}
        db.push_card("e", "run", "{}")


def test_what_is_in_doubt_is_not_copied_into_the_database(disk: SimulatedDisk, tmp_path: Path) -> None:
    db = opened(disk)
    db.push_card("a", "run", "{}")
    disk.on_step = failing("xSync", sync_error())
    with pytest.raises(EnvironmentLack):
        db.push_card("b", "run", "{}")
    disk.on_step = lambda _: None
    before = (tmp_path / "cortex.db").read_bytes()
    db.close()
    assert (tmp_path / "cortex.db").read_bytes() == before
    assert (tmp_path / "cortex.db-wal").stat().st_size > 0
    with opened(disk) as again:
        again.push_card("c", "run", "{}")
        assert again.verify_ledger() >= 2


# -- the length of the WAL -------------------------------------------------------------------------------------------


def fill(db: CortexDB, cards: int) -> None:
    for number in range(cards):
        db.set_fact("filling", "x" * 4000 + str(number))


def test_room_is_made_ahead_and_the_wal_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walsize, "CHECKPOINT_PAGES", 200)
    wal = tmp_path / "cortex.db-wal"
    with CortexDB(tmp_path / "cortex.db") as db:
        sizes = []
        for _ in range(20):
            fill(db, 20)
            sizes.append(wal.stat().st_size)
        assert len(set(sizes)) < 8, "it grows in steps"
        assert max(sizes) < 400 * 4120
        db.verify_ledger()


def test_a_reader_holds_up_the_checkpoint_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walsize, "CHECKPOINT_PAGES", 50)
    with CortexDB(tmp_path / "cortex.db") as db:
        reader = apsw.Connection(str(tmp_path / "cortex.db"))
        reader.execute("BEGIN; SELECT count(*) FROM facts").fetchall()
        fill(db, 200)
        grown = (tmp_path / "cortex.db-wal").stat().st_size
        reader.execute("COMMIT")
        fill(db, 400)
        reader.close()
        assert (tmp_path / "cortex.db-wal").stat().st_size <= grown + (3 << 20)
        assert db.fact("filling") is not None


def test_no_room_is_made_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walsize, "_FREE", 1 << 60)
    with CortexDB(tmp_path / "cortex.db") as db:
        fill(db, 200)
        pages = db._db._wal_size._pages
        assert (tmp_path / "cortex.db-wal").stat().st_size <= 32 + (pages + 1) * 4120


def test_a_checkpoint_that_finds_no_room_harms_no_commit(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walsize, "CHECKPOINT_PAGES", 20)
    with opened(disk) as db:
        fill(db, 15)
        with (
            mock.patch.object(walsize.WalSize, "bring_home", side_effect=apsw.FullError("simulated")),
        ):
            fill(db, 15)
        fill(db, 15)
        assert (db.fact("filling") or "").endswith("14")
        disk.on_step = failing("xWrite", apsw.FullError("simulated"))
        with pytest.raises(DiskFull):
            fill(db, 1)
        disk.on_step = lambda _: None
        fill(db, 1)
