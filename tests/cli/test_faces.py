"""The faces: what a forge's events look like to a person, in a log, and to a program."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cli import faces, terminal
from anvil.cli.view import ForgeView
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
    view.begin(total=3, kept=1, estimates={"r/a": 10, "r/b": 4})
    assert view.seconds_left(2) == 10
    start = view.take(*CLAIMED)
    assert start is not None
    assert start.kind == "start"
    clock.now = 6.0
    assert view.seconds_left(2) == 4
    done = view.take(*PUNCHED)
    assert done is not None
    assert (done.kind, done.seconds, view.done, view.finished) == ("done", 6.0, 1, 2)
    assert view.take(*KEPT) is not None
    assert view.finished == 3
    assert view.seconds_left(2) == 0
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
    face.begin(total=2, kept=0, estimates={"r/a": 3})
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
    face.begin(total=2, kept=0, estimates={"r/a": 300})
    face.event(*CLAIMED)
    capsys.readouterr()
    face.idle()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(faces, "HEARTBEAT_SECONDS", -1)
    face.idle()
    assert "r/a" in capsys.readouterr().out


def test_json_is_one_message_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    face = faces.JsonFace()
    face.begin(total=1, kept=0, estimates={"r/a": 1})
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
    face.begin(total=2, kept=0, estimates={"r/a": 30})
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
    face.begin(total=1, kept=0, estimates={"r/a": 30})
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
