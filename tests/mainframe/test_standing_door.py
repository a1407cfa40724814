"""The standing mainframe's door: who may speak to it, what it takes, and one daemon of a kind in a home."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cortex.db_interface import CortexDB
from anvil.errors import AnvilError, DiskFull, EnvironmentLack, UsageError
from anvil.mainframe.home import Home
from anvil.mainframe.outcome import Jam, Outcome, Published, Verdict
from anvil.mainframe.settings import Settings
from anvil.mainframe.standing import client, seat, wire
from anvil.mainframe.standing.architect import ArchitectDaemon
from anvil.mainframe.standing.desk import outcome_data, outcome_of
from anvil.mainframe.standing.journal import Journal
from anvil.mainframe.standing.records import end_foreign, standing
from anvil.mainframe.standing.seat import Seat
from anvil.mainframe.standing.signs import Manager, Signs
from anvil.mainframe.standing.wish import Wish
from anvil.microjson.codec import MicroJSON, canonical
from anvil.microjson.registry import MessageID
from tests.apart import apart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def bare(tmp_path: Path) -> Home:
    """A home without images: nothing can be forged in it."""
    return Home.open(tmp_path / "home")


@pytest.fixture
def architect(bare: Home) -> Iterator[subprocess.Popen[str]]:
    """A real Architect."""
    command = [sys.executable, "-m", "anvil.cli.main", "mainframe", "architect", "--home", str(bare.path), "--offline"]
    daemon = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert daemon.stdout is not None
    assert "at work on" in daemon.stdout.readline()
    yield daemon
    daemon.terminate()
    assert daemon.wait(30) == 0
    daemon.stdout.close()


def wish(**changes: object) -> dict[str, object]:
    """A wish as plain data, for a profile that is not there."""
    return {**Wish(recipe="iso", output="/tmp/out", profile="none").as_data(), **changes}


def ask(home: Home, sent: bytes, *, end: bool = False) -> list[tuple[MessageID, object]]:
    """What the Architect answers to some bytes, until it hangs up; end: nothing more is sent after them."""
    connection = client.connect(home.path)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sent)
        if end:
            connection.shutdown(socket.SHUT_WR)
    line = wire.Line(connection, most=wire.TOLD_BYTES)
    found: list[tuple[MessageID, object]] = []
    until = time.monotonic() + 60
    while line.open:
        assert time.monotonic() < until
        found += line.heard()
        time.sleep(0.01)
    line.close()
    return found


def refused(home: Home, sent: bytes) -> AnvilError:
    """The error with which the Architect refuses some bytes."""
    [(number, data)] = ask(home, sent)
    assert number is MessageID.WISH_ENDED
    assert isinstance(data, dict)
    return wire.error_of(data["error"])


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\n",
        b'{"@ID": 220, "data": {}}\n',  # not canonical
        b'{"@ID":9,"data":{}}\n',
        b'{"@ID":221,"data":{}}\n',
        b'{"@ID":220,"data":{}}\n',
        b"\xff\xfe\n",
        b"\n",
        b"[" * 1000 + b"\n",
        MicroJSON.message(MessageID.WISH, wish(recipe="")) + b"\n",
        MicroJSON.message(MessageID.WISH, wish(more=1)) + b"\n",
    ],
)
def test_what_is_no_wish_is_refused_and_the_next_one_is_heard(
    bare: Home, architect: subprocess.Popen[str], sent: bytes
) -> None:
    assert refused(bare, sent).message
    assert refused(bare, sent).message
    assert architect.poll() is None


def test_a_message_that_is_too_long_is_refused_before_it_ends(bare: Home, architect: subprocess.Popen[str]) -> None:
    assert "bytes" in refused(bare, b"x" * (wire.ASKED_BYTES + 1)).message
    assert "bytes" in refused(bare, b"x" * (wire.ASKED_BYTES + 1) + b"\n").message
    assert architect.poll() is None


def test_who_hangs_up_without_a_word_is_forgotten(bare: Home, architect: subprocess.Popen[str]) -> None:
    for _ in range(40):
        client.connect(bare.path).close()
    assert ask(bare, b'{"@ID":220', end=True) == []
    assert architect.poll() is None


def test_too_many_who_say_nothing_do_not_keep_the_door_shut(bare: Home, architect: subprocess.Popen[str]) -> None:
    silent = [client.connect(bare.path) for _ in range(16)]
    assert "too many clients" in refused(bare, b"").message
    for each in silent:
        each.close()
    assert refused(bare, b"garbage\n").message
    assert architect.poll() is None


def _knock(place: Path) -> bytes:
    """What the Architect says to the user nobody who says something that is no message."""
    os.setresuid(NOBODY, NOBODY, NOBODY)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(place / seat.SOCKET))
    connection.settimeout(20)
    with contextlib.suppress(BrokenPipeError):  # it may have said what it has to say already
        connection.sendall(b"garbage\n")
    return connection.recv(4096)


def said(writer: int) -> None:
    """Tell the test that the daemon says something."""
    os.write(writer, b"!")


def _open_to_all(home: Home) -> None:
    """Let files keep nobody out, but the Architect itself."""
    place = seat.folder(home.path)
    for path in (*home.path.parents, home.path, place):
        if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    (place / seat.SOCKET).chmod(0o666)


def _heard_where_files_let_in(home: Home) -> bytes:
    """What another user is told. Whoever opens a home closes it to others, the daemon at its start among them."""
    for _ in range(100):
        _open_to_all(home)
        with contextlib.suppress(PermissionError):
            heard: bytes = apart(lambda: _knock(seat.folder(home.path)))
            return heard
        time.sleep(0.05)
    raise AssertionError("files keep it out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused_even_where_files_would_let_it_in(
    bare: Home, architect: subprocess.Popen[str]
) -> None:
    place = seat.folder(bare.path)

    def knock() -> bytes:
        return _knock(place)

    with pytest.raises(PermissionError):
        apart(knock)
    assert b"this mainframe is uid 0's" in _heard_where_files_let_in(bare)
    assert refused(bare, b"garbage\n").message
    assert architect.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_without_the_look_at_the_peer_another_user_would_be_heard(bare: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "is_same_user", lambda _connection: True)
    settings = Settings(home=bare.path, output=bare.path, offline=True)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            ArchitectDaemon(settings, lambda _text: said(writer), Manager()).run()
        os._exit(0)
    assert os.read(reader, 1) == b"!"
    try:
        assert b"not JSON" in _heard_where_files_let_in(bare)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        for fd in (reader, writer):
            os.close(fd)


def test_the_socket_and_its_folder_are_the_users_alone(bare: Home, architect: subprocess.Popen[str]) -> None:
    assert architect.poll() is None
    place = seat.folder(bare.path)
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / seat.SOCKET).stat().st_mode & 0o777 == 0o600


def test_there_is_one_of_each_kind_and_the_place_dies_with_its_holder(bare: Home) -> None:
    with Seat(bare, "architect"):
        with pytest.raises(EnvironmentLack, match=f"process {os.getpid()} is the architect"):
            Seat(bare, "architect")
        with Seat(bare, "processor"):
            assert seat.holder(bare.path, "processor") == os.getpid()
    assert seat.holder(bare.path, "architect") is None
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            Seat(bare, "architect")
            os.write(writer, b"!")
            signal.pause()
        os._exit(1)
    assert os.read(reader, 1) == b"!"
    assert seat.holder(bare.path, "architect") == pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for fd in (reader, writer):
        os.close(fd)
    with Seat(bare, "architect"):
        pass


def test_a_second_daemon_says_who_the_first_is(bare: Home, architect: subprocess.Popen[str]) -> None:
    command = [sys.executable, "-m", "anvil.cli.main", "mainframe", "architect", "--home", str(bare.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"process {architect.pid} is the architect of this home" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": ""},
        {"recipe": 1},
        {"recipe": "a\0b"},
        {"output": "here"},
        {"project": "../up"},
        {"jobs": 0},
        {"jobs": True},
        {"jobs": 1025},
        {"offline": 1},
        {"forced": "all"},
        {"forced": [1]},
        {"mirrors": []},
        {"mirrors": {"debian": 1}},
        {"home": "/elsewhere"},
    ],
    ids=str,
)
def test_a_wish_that_says_anything_else_is_none(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Wish.from_data(wish(**change))


def test_a_wish_survives_the_wire_and_cannot_change_what_is_the_daemons(tmp_path: Path) -> None:
    told = Settings(
        home=tmp_path / "other", output=tmp_path / "out", project=tmp_path, jobs=9, forced=frozenset({"b", "a"}),
        mirrors={"debian": "http://mirror/debian"}, cell_uid=0,
    )  # fmt: skip
    sent = Wish.of("iso", told)
    assert Wish.from_data(sent.as_data()) == sent
    made = sent.settings(Settings(home=tmp_path, output=tmp_path, jobs=2, offline=True, cell_uid=5))
    assert (made.home, made.cell_uid, made.jobs, made.offline) == (tmp_path, 5, 2, True)
    assert (made.output, made.project, made.forced) == (told.output, told.project, told.forced)


def test_an_outcome_and_an_error_survive_the_wire(tmp_path: Path) -> None:
    jam = Jam(
        card="a/b", message="m", where="w", hint="h", detail="d", recipe="r", log="l", tail=("1", "2"), command="c"
    )
    outcome = Outcome(
        deck="d", ran=1, kept=2, artifacts=(Published(path=tmp_path, sha256="0", size=3, written=True),),
        verdicts=(Verdict(card="x", text="y"),), contested=("k",), jams=(jam,),
    )  # fmt: skip
    assert outcome_of(outcome_data(outcome)) == outcome
    error = wire.error_of(wire.error_data(DiskFull("full", where="here", hint="free some", detail="all of it")))
    assert type(error) is DiskFull
    assert (error.message, error.where, error.hint, error.detail) == ("full", "here", "free some", "all of it")


def test_a_journal_passes_over_what_a_killed_foreman_left_half_written(bare: Home) -> None:
    journal, reader = Journal(bare, "deck"), Journal(bare, "deck")
    journal.make()
    journal.write(MessageID.CARD_CLAIMED, {"card": "a"})
    path = bare.logs / "deck" / "journal"
    with path.open("ab") as file:
        file.write(b'{"@ID":112,"da')
    assert list(reader.news()) == [(MessageID.CARD_CLAIMED, {"card": "a"})]
    assert not Journal(bare, "deck").is_over()
    journal.begin()
    journal.write(MessageID.DECK_WORKED, {})
    assert list(reader.news()) == [(MessageID.DECK_WORKED, {})]
    assert Journal(bare, "deck").is_over()
    assert journal.stops() == 0
    journal.ask_stop(2)
    assert reader.stops() == 2


def test_a_client_that_does_not_read_is_given_up(bare: Home) -> None:
    del bare
    ours, theirs = socket.socketpair()
    line = wire.Line(ours, most=100)
    for _ in range(200):
        line.tell(MessageID.FORGE_NOTE, {"text": "x" * 100_000})
    assert not line.open
    line.close()
    theirs.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_signs_of_life_reach_the_service_manager(tmp_path: Path, *, abstract: bool) -> None:
    name = f"@anvil-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        signs = Signs(Manager(notify=name, watchdog=0.001))
        signs.ready()
        signs.ready()
        signs.alive()
        signs.stopping()
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
    signs.alive()
    Signs(Manager()).ready()


def test_a_wish_of_another_version_is_ended_and_those_of_this_one_are_found(bare: Home) -> None:
    db = CortexDB(bare.cortex)
    mine = {"worker": "none", "standing": Wish(recipe="a", output="/out").as_data()}
    db.begin_forge("mine", deck="mine", recipe="a", machine=canonical(mine).decode())
    other = {"worker": "none", "standing": {"recipe": "b"}}
    db.begin_forge("other", deck="other", recipe="b", machine=canonical(other).decode())
    db.begin_forge("plain", deck="plain", recipe="c", machine=canonical({"worker": "none"}).decode())
    assert [(each.deck, each.wish.recipe) for each in standing(db)] == [("mine", "a")]
    end_foreign(db)
    assert {forge.id: forge.verdict for forge in db.forges()} == {"mine": "", "other": "killed", "plain": ""}
    db.close()


def test_who_asks_for_the_holder_does_not_take_the_place(bare: Home) -> None:
    Seat(bare, "architect").leave()
    probing = threading.Event()

    def probe() -> None:
        while not probing.is_set():
            assert seat.holder(bare.path, "architect") in {None, 0, os.getpid()}  # 0: its number is being written

    threads = [threading.Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            Seat(bare, "architect").leave()
    finally:
        probing.set()
        for thread in threads:
            thread.join()
