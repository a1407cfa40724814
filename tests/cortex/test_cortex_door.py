"""Which SQLite, which file system and which file a cortex may be opened with."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cortex.clock import Clock
from anvil.cortex.connection import Connection, has_wal_reset_bug, refuse_version
from anvil.cortex.db_interface import CortexDB
from anvil.cortex.disk import Disk
from anvil.cortex.filesystem import filesystem_type, refuse_network
from anvil.errors import DatabaseRefused, EnvironmentLack, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /home rw - nfs4 server:/home rw
31 30 0:31 / /home/me/disk rw - ext4 /dev/vdb rw
32 22 0:32 / /mnt/with\\040space rw master:1 - fuse.sshfs me@there: rw
33 22 0:33 / /over rw - 9p host rw
34 33 0:34 / /over rw - tmpfs tmpfs rw
""".splitlines(keepends=True)


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 44, 7), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 54, 1), False),
        ((4, 0, 0), False),
    ],
)
def test_wal_reset_bug(version: tuple[int, int, int], bad: bool) -> None:  # noqa: FBT001
    assert has_wal_reset_bug(version) is bad


@pytest.mark.parametrize("text", ["3.40.1", "3.51.2", "3.6.23", "3.43.2", "3.50.6"])
def test_bad_sqlite_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(DatabaseRefused, match=text.replace(".", r"\.")) as caught:
        refuse_version(text)
    assert caught.value.hint == "make setup"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["3.44.6", "3.50.7", "3.51.3", "3.54.1", "3.60"])
def test_good_sqlite_is_taken(text: str) -> None:
    refuse_version(text)


def test_a_bad_sqlite_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apsw.sqlite_lib_version", lambda: "3.40.1")
    with pytest.raises(DatabaseRefused):
        CortexDB(tmp_path / "home" / "cortex.db")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/homeless", "ext4"),
        ("/home/me/disk/anvil", "ext4"),
        ("/mnt/with space/x", "fuse.sshfs"),
        ("/over/x", "tmpfs"),
    ],
)
def test_filesystem_type(path: str, kind: str) -> None:
    assert filesystem_type(path, MOUNTS) == kind


def test_network_file_system_is_refused(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("1 0 0:1 / / rw - nfs4 server:/ rw\n")
    with pytest.raises(DatabaseRefused, match="nfs4") as caught:
        refuse_network(str(tmp_path), str(mountinfo))
    assert "--home" in caught.value.hint
    refuse_network(str(tmp_path), str(tmp_path / "no such file"))
    refuse_network(str(tmp_path))


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "home" / "cortex.db") as db:
        db.push_card("a", "run", "{}")
        modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in (tmp_path / "home").iterdir()}
    assert set(modes) == {"cortex.db", "cortex.db-wal", "cortex.db-shm", "cortex.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_settings_of_the_connection(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "cortex.db") as db:
        values = {
            name: db._db.value(f"PRAGMA {name}")
            for name in (
                *("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "trusted_schema"),
                "temp_store",
            )
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 1,  # and a sync of each commit: test_cortex_settlement
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "trusted_schema": 0,
        "temp_store": 2,  # memory
    }


def test_close_brings_everything_into_the_one_file(tmp_path: Path) -> None:
    with CortexDB(tmp_path / "cortex.db") as db:
        db.push_card("a", "run", "{}")
    assert (tmp_path / "cortex.db-wal").stat().st_size == 0
    db.close()
    with CortexDB(tmp_path / "cortex.db") as db:
        assert db.card("", "a") is not None


def test_a_connection_that_is_dropped_touches_no_file(tmp_path: Path) -> None:
    db = CortexDB(tmp_path / "cortex.db")
    db.push_card("a", "run", "{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".db-shm"}
    db._db._db.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".db-shm"} == before
    with CortexDB(tmp_path / "cortex.db") as again:
        assert again.card("", "a") is not None


def test_the_real_clocks() -> None:
    clock = Clock()
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    assert abs(clock.boot_us() / 1e6 - uptime) < 5
    assert abs(clock.utc_us() / 1e6 - time.time()) < 5
    assert len(clock.boot_id()) == 36


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    path.write_bytes(b"hello, this is not a database\n" * 100)
    with pytest.raises(DatabaseRefused, match="not a cortex"):
        CortexDB(path)
    assert path.read_bytes().startswith(b"hello")


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    with pytest.raises(DatabaseRefused, match="not a cortex"):
        CortexDB(path)
    foreign = sqlite3.connect(path)
    assert foreign.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    foreign.close()


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    with CortexDB(path) as db:
        for index in range(200):
            db.push_card(f"c{index}", "run", "x" * 200)
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged") as caught, CortexDB(path) as db:
        db.cards("")
    assert caught.value.where == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DatabaseRefused, match="cannot be opened"):
        CortexDB(tmp_path / "cortex.db")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "cortex.db").mkdir()
    with pytest.raises(DatabaseRefused, match="cannot be opened"):
        CortexDB(tmp_path / "cortex.db")


def test_opening_is_quick(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    CortexDB(path).close()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        with CortexDB(path) as db:
            db.counts()
            times.append(time.perf_counter() - start)
    assert min(times) < 0.010


def test_a_disk_that_fails_while_the_cortex_is_opened_is_not_called_a_stranger_s_home(tmp_path: Path) -> None:
    class Failing(Disk):
        def make(self, path: str) -> bool:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with pytest.raises(EnvironmentLack) as caught:
        Connection(tmp_path / "cortex.db", disk=Failing())
    assert not isinstance(caught.value, DatabaseRefused)
    assert "dmesg" in caught.value.hint
