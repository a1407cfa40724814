"""The faces: what a forge's events look like to a person, in a log, and to a program."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cli import faces, terminal
from anvil.cli.view import ForgeView, Span
from anvil.errors import AnvilError
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLAIMED = (MessageID.CARD_CLAIMED, {"card": "r/a", "op": "run", "key": "k"})
PUNCHED = (MessageID.CARD_PUNCHED, {"card": "r/a", "key": "k", "ms": 1500, "facts": {}})
KEPT = (MessageID.CARD_KEPT, {"card": "r/b", "key": "k", "ms": 0, "facts": {}})
JAM = (MessageID.CARD_JAM, {"card": "r/a", "message": "exit code 1"})


class Clock:
    """Seconds that go when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_view_counts_and_times() -> None:
    clock = Clock()
    view = ForgeView(clock=clock)
    view.begin(total=3, kept=1, estimates={"r/a": [8000, 10_000, 12_000, 10_000], "r/b": [0, 4000, 6000, 4000]})
    assert view.left(2) == Span(low=8, expected=10, high=12)
    assert view.left(1) == Span(low=8, expected=14, high=18)
    start = view.take(*CLAIMED)
    assert start is not None
    assert start.kind == "start"
    clock.now = 6.0
    assert view.left(2).expected == 4
    done = view.take(*PUNCHED)
    assert done is not None
    assert (done.kind, done.seconds, view.done, view.finished) == ("done", 6.0, 1, 2)
    assert view.take(*KEPT) is not None
    assert view.finished == 3
    assert view.left(2) == Span(low=0, expected=0, high=0)
    view.begin(total=3, kept=1, estimates={})  # the second making of a check
    assert view.finished == 1


def test_waiting_is_told_once_and_progress_is_a_note() -> None:
    view = ForgeView(clock=Clock())
    waiting: tuple[MessageID, dict[str, Any]] = (MessageID.CARD_WAITING, {"card": "r/a"})
    assert view.take(*waiting) is not None
    assert view.take(*waiting) is None
    view.take(*CLAIMED)
    assert view.take(MessageID.CARD_PROGRESS, {"card": "r/a", "note": "3 of 9 MB"}) is None
    assert view.running["r/a"].note == "3 of 9 MB"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(MessageID.CARD_JAM, "jam"), (MessageID.DISK_FULL, "lack"), (MessageID.INTERRUPTED, "stop")],
)
def test_errors_are_told_by_what_they_are(number: MessageID, kind: str) -> None:
    line = ForgeView(clock=Clock()).take(number, {"card": "r/a", "message": "why"})
    assert line is not None
    assert (line.kind, line.text) == (kind, "why")


def test_a_plain_log_has_a_line_at_start_and_end_and_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    face = faces.PlainFace(2)
    face.begin(total=2, kept=0, estimates={"r/a": [3000] * 4})
    face.event(*CLAIMED)
    face.event(*JAM)
    face.note("odd \x1b[2J text")
    said = capsys.readouterr().out
    assert "plan: 2 cards, 0 kept" in said
    assert "run   r/a" in said
    assert "JAM   r/a" in said
    assert "\x1b" not in said


def test_a_plain_log_shows_life_each_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    face = faces.PlainFace(2)
    face.begin(total=2, kept=0, estimates={"r/a": [240_000, 300_000, 400_000, 300_000]})
    face.event(*CLAIMED)
    capsys.readouterr()
    face.idle()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(faces, "HEARTBEAT_SECONDS", -1)
    face.idle()
    assert re.fullmatch(
        r"\[  0/2\] \.\.\.   r/a 0\.\d s of about 5:00 \(4:00 to 6:40\); about 5:00 \(4:00 to 6:40\) left\n",
        capsys.readouterr().out,
    )


def test_a_heartbeat_comes_each_minute_whatever_else_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    face = faces.PlainFace(1)
    face.note("making an image …")
    for _ in range(600):  # ten minutes, asked each second
        now += 1
        face.idle()
    assert capsys.readouterr().out.count("so far") == 12
    face.begin(total=9, kept=0, estimates={})
    face.event(*CLAIMED)
    lines = []
    for second in range(600):
        now += 1
        if second % 10 == 0:
            face.note("another thing")
        face.idle()
        lines += [(second, line) for line in capsys.readouterr().out.splitlines() if "..." in line]
    beats = [second for second, _ in lines]
    assert all(later - earlier <= 60 for earlier, later in zip([0, *beats], [*beats, 599], strict=True))


def test_a_way_that_is_longer_than_the_work_is_what_is_left() -> None:
    view = ForgeView(clock=Clock())
    chain = {f"r/{number}": [10_000, 10_000, 20_000, 10_000 * (5 - number)] for number in range(5)}
    view.begin(total=5, kept=0, estimates=chain)
    assert view.left(4) == Span(low=50, expected=50, high=100)  # one after the other, however many jobs there are


def test_a_card_that_takes_longer_than_expected_is_not_said_to_be_done_at_once() -> None:
    clock = Clock()
    view = ForgeView(clock=clock)
    view.begin(total=1, kept=0, estimates={"r/a": [8000, 10_000, 12_000, 10_000]})
    view.take(*CLAIMED)
    clock.now = 100.0
    assert view.left(1).expected == pytest.approx(10)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_last_line_fits(width: int, live: tuple[faces.LiveFace, io.StringIO]) -> None:
    face, _ = live
    face.begin(total=120, kept=100, estimates={"r/a": [60_000, 600_000, 900_000, 600_000]})
    line = face._last(face._began + 3000, width)
    assert len(line) < width
    assert "10:00" in line
    assert ("(1:00 to 15:00)" in line) == (width > 40)


def test_json_is_one_message_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    face = faces.JsonFace()
    face.begin(total=1, kept=0, estimates={"r/a": [1000] * 4})
    face.event(*CLAIMED)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["@ID"] for line in lines] == [205, 110]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[faces.LiveFace, io.StringIO]]:
    """A live face on an 80-column terminal that keeps what is written."""
    screen = io.StringIO()
    monkeypatch.setenv("TERM", "xterm-256color")
    import rich.console

    real = rich.console.Console

    def console(**more: Any) -> rich.console.Console:
        return real(file=screen, force_terminal=True, width=80, height=24, **more)

    monkeypatch.setattr("rich.console.Console", console)
    face = faces.LiveFace(2)
    yield face, screen
    face.end()


def test_the_live_face_repaints_running_cards_and_cannot_be_written_to_by_them(
    live: tuple[faces.LiveFace, io.StringIO],
) -> None:
    face, screen = live
    face.begin(total=2, kept=0, estimates={"r/a": [30_000] * 4})
    face.event(*CLAIMED)
    face.event(MessageID.CARD_PROGRESS, {"card": "r/a", "note": "x\x1b]0;owned\x07 [bold]y"})
    face.idle()
    face.event(*PUNCHED)
    said = screen.getvalue()
    assert "r/a" in said
    assert "\x1b]0;" not in said
    assert "[bold]y" in said
    assert "done  r/a" in said


def test_the_live_face_shows_the_last_line_of_a_log(live: tuple[faces.LiveFace, io.StringIO], tmp_path: Path) -> None:
    face, screen = live
    log = tmp_path / "log"
    log.write_bytes(b"first\nCC  \x1b[31mmain.o\nhalf a li")
    face.begin(total=1, kept=0, estimates={"r/a": [30_000] * 4})
    face.event(MessageID.CARD_CLAIMED, {"card": "r/a", "op": "run", "key": "k", "log": str(log)})
    face.idle()
    assert "CC  \\x1b[31mmain.o" in screen.getvalue()


def test_errors_end_with_the_next_step_and_without_control_codes() -> None:
    out = io.StringIO()
    terminal.show_error(AnvilError("bad\x07", where="here", hint="do this", detail="one\n\x1b[31mtwo"), out)
    assert out.getvalue() == ("anvil: bad\\x07\n  where: here\n  | one\n  | \\x1b[31mtwo\n  next:  do this\n")


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (9.4, "9.4 s"), (59.6, "1:00"), (151, "2:31"), (3729, "1:02:09")]
)
def test_durations(value: float, text: str) -> None:
    assert terminal.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (813, "813 B"), (1_234, "1.2 kB"), (17_400_000, "17.4 MB"), (10**13, "10.0 TB")]
)
def test_sizes(value: int, text: str) -> None:
    assert terminal.size(value) == text


def test_a_heartbeat_for_a_program_says_what_runs_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "PULSE_SECONDS", -1.0)
    face = faces.JsonFace(1)
    face.idle()  # nothing is planned yet
    face.begin(total=2, kept=0, estimates={"r/a": [8000, 10_000, 12_000, 10_000]})
    face.event(*CLAIMED)
    face.idle()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["@ID"] for line in lines] == [205, 110, 109]
    beat = lines[-1]["data"]
    assert beat["running"][0]["card"] == "r/a"
    assert beat["running"][0]["expected"] == 10_000
    assert 7000 < beat["left"]["low"] <= beat["left"]["expected"] <= beat["left"]["high"] <= 12_000


def on_terminal(script: str, environment: dict[str, str]) -> bytes:
    """What a script writes to the terminal that all its streams are."""
    ours, theirs = pty.openpty()
    told = {name: text for name, text in os.environ.items() if name not in {"NO_COLOR", "ACCESSIBLE", "COLORTERM"}}
    told |= {"TERM": "xterm-256color", **environment}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=told, stdout=theirs, stdin=theirs, stderr=theirs) as child:
        termios.tcsetwinsize(theirs, (14, 40))
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # what a pty says when the last writer is gone
            while block := os.read(ours, 65536):
                said += block
    os.close(ours)
    assert child.returncode == 0, said
    return said


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, None), ({"ACCESSIBLE": "1"}, None)],
)
def test_a_terminal_gets_colour_only_if_it_may_and_repainting_only_if_it_can(
    environment: dict[str, str], *, colour: bool | None
) -> None:
    """On a real terminal (a pty): None is a face without any control code."""
    script = (
        "from anvil.cli import faces; from anvil.microjson.registry import MessageID as M\n"
        "face = faces.choose(json=False, jobs=1)\n"
        "face.begin(total=1, kept=0, estimates={'r/a': [1000] * 4})\n"
        "face.event(M.CARD_CLAIMED, {'card': 'r/a', 'op': 'run', 'key': 'k'}); face.idle()\n"
        "face.event(M.CARD_PUNCHED, {'card': 'r/a', 'key': 'k'}); face.end()\n"
    )
    said = on_terminal(script, environment)
    assert b"r/a" in said
    if colour is None:
        assert b"\x1b" not in said
    else:
        assert (re.search(rb"\x1b\[[0-9;]*3[1-7]", said) is not None) == colour
        assert b"\x1b[" in said


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_the_line_of_a_long_command_fits_and_is_taken_back_only_where_that_can_be(term: str) -> None:
    said = on_terminal(
        "import time; time.sleep(0.3)\n"
        "from anvil.cli import progress; progress._REPAINT_SECONDS = progress._TELL_SECONDS = -1.0\n"
        "with progress.Progress(stopped='') as line: line.tell('reading \\x1b]0;owned ' + 'x' * 100)\n",
        {"TERM": term},
    )
    assert b"reading \\x1b]0;owned" in said
    assert b"\x1b]0;" not in said
    lines = said.decode().replace("\r\x1b[K", "\n").splitlines()
    if term == "dumb":
        assert b"\x1b" not in said
    else:
        assert max(len(each) for each in lines) < 40


def anvil(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "anvil.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **more)


def test_a_stream_that_knows_no_such_letter_is_written_to_all_the_same(tmp_path: Path) -> None:
    told = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = anvil(["jam", "--home", str(tmp_path / "h\u00f6me")], env=told)
    assert "Traceback" not in done.stderr
    done = anvil(["sources", "verify", "--tree", str(tmp_path / "n\u00f6")], env=told)
    assert "n\\xf6" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["stack"]])
def test_a_stream_that_is_closed_or_full_is_no_traceback(tmp_path: Path, words: list[str]) -> None:
    for closing in (">&-", "2>&-", ">&- 2>&-", "> /dev/full"):
        command = f'exec "$0" -m anvil.cli.main {" ".join(words)} {closing}'
        told = {**os.environ, "ANVIL_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            ["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False, timeout=60, env=told
        )
        assert "Traceback" not in done.stderr, closing
