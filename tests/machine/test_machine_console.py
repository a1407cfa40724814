"""The console: text out of bytes, however they come."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anvil.errors import CardJam, LimitExceeded, UsageError
from anvil.machine import console as console_module
from anvil.machine.console import Console, PlainText
from anvil.machine.shell import Shell, login
from tests.machine.broken_line import FakeLine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def line() -> Iterator[FakeLine]:
    with FakeLine() as made:
        yield made


def plain(data: bytes) -> str:
    return PlainText().feed(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\x1b[1;31mred\x1b[0m b", "ared b"),
        (b"\x1b[2J\x1b[01;01H\x1b[=3hBooting", "Booting"),
        (b"one\r\ntwo\ttabs\x07\x00", "one\ntwo\ttabs"),
        (b"\x1b]0;a title\x07text", "text"),
        (b"\x1b]0;a title\x1b\\text", "text"),
        (b"\x1bP1$r\x1b\\text", "text"),
        (b"\x1b(Bplain\x1bc", "plain"),
        ("Käse \u2502".encode(), "Käse \u2502"),
        (b"bad \xff byte", "bad \ufffd byte"),
        (b"lone \x1b\nescape", "lone \nescape"),
    ],
)
def test_control_sequences_are_taken_out(data: bytes, text: str) -> None:
    assert plain(data) == text


PIECE = st.sampled_from(
    [b"\x1b[1;2H", b"\x1b]0;t\x07", b"\x1b(B", b"abc", b"\n", b"\r", b"\xc3\xa4", b"\x1b", b"[", b"7"]
)


@given(st.lists(PIECE, max_size=12), st.lists(st.integers(1, 5), min_size=1, max_size=40))
@example([b"\x1b[1;2H", b"abc"], [1])
def test_the_text_does_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces) + b"end"
    whole = plain(data)
    stream, text, place = PlainText(), "", 0
    while place < len(data):
        size = cuts[place % len(cuts)]
        text += stream.feed(data[place : place + size])
        place += size
    assert text == whole


def test_an_endless_sequence_does_not_swallow_the_text() -> None:
    stream = PlainText()
    text = stream.feed(b"\x1b]" + b"x" * 1000) + stream.feed(b"\nKernel panic\n")
    assert "Kernel panic" in text


def test_expect_finds_a_text_that_comes_in_pieces_and_gives_the_whole_line(line: FakeLine) -> None:
    line.pieces = [b"[    1.0] noise\r\nANVIL\x1b[0", b"mOS REA", b"DY root=anvil", b"_pool/ROOT\r\nlogin: "]
    kept = io.BytesIO()
    console = Console(line, kept)
    sight = console.expect("ANVILOS READY", "panic", timeout=5)
    assert (sight.reason, sight.text, sight.line) == ("seen", "ANVILOS READY", "ANVILOS READY root=anvil_pool/ROOT")
    assert console.expect("login:", timeout=5).line == "login:"
    assert kept.getvalue().startswith(b"[    1.0] noise\r\nANVIL\x1b[0m")


def test_the_first_text_in_the_stream_wins(line: FakeLine) -> None:
    line.say(b"a\nKernel panic\nREADY\n")
    console = Console(line, io.BytesIO())
    assert console.expect("READY", "Kernel panic", timeout=5).text == "Kernel panic"
    assert console.expect("READY", "Kernel panic", timeout=5).text == "READY"


def test_what_was_seen_is_not_seen_again(line: FakeLine) -> None:
    line.say(b"READY\n")
    console = Console(line, io.BytesIO())
    assert console.expect("READY", timeout=5).reason == "seen"
    assert console.expect("READY", timeout=0.1).reason == "timeout"


def test_waits_end_with_the_guest_with_time_and_when_asked(line: FakeLine) -> None:
    console = Console(line, io.BytesIO())
    began = time.monotonic()
    assert console.expect("x", timeout=0.3).reason == "timeout"
    assert 0.25 < time.monotonic() - began < 2
    assert Console(line, io.BytesIO(), cancelled=lambda: True).expect("x", timeout=60).reason == "cancelled"
    line.say(b"last words\n")
    line.ended = True
    assert console.expect("x", timeout=60).reason == "closed"
    assert console.tail() == ("last words",)


def test_a_text_said_with_the_last_breath_is_seen(line: FakeLine) -> None:
    line.say(b"ANVIL FORGE DONE")
    line.ended = True
    assert Console(line, io.BytesIO()).expect("ANVIL FORGE DONE", timeout=60).reason == "seen"


def test_a_guest_that_never_stops_talking_is_stopped(line: FakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "TRANSCRIPT_LIMIT", 10_000)
    line.pieces = [b"y" * 4000 + b"\n"] * 5
    with pytest.raises(LimitExceeded, match="said more than"):
        Console(line, io.BytesIO()).expect("never", timeout=60)


def test_old_text_is_let_go_and_places_stay_right(line: FakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "_KEPT_TEXT", 1000)
    line.pieces = [b"filler %04d\n" % n * 10 for n in range(100)] + [b"BEGIN\nthe answer\nEND\n"]
    console = Console(line, io.BytesIO())
    first, last = console.expect("BEGIN", timeout=10), console.expect("END", timeout=10)
    assert console.between(first, last) == "the answer"
    assert len(console._text) < 4000


def test_typing_to_a_guest_that_does_not_read_ends(line: FakeLine) -> None:
    console = Console(line, io.BytesIO())
    began = time.monotonic()
    console.send("x" * 1_000_000, timeout=0.5)
    assert time.monotonic() - began < 3
    line.stop_reading()
    console.send("y")


class Guest(FakeLine):
    """A guest that echoes what is typed, like a terminal, and answers commands like a shell."""

    answers = b"pool: ONLINE\nsecond"
    status = 3

    def tick(self, timeout: float = 0.0, *, also: int = -1) -> object:  # type: ignore[override]
        if typed := self.heard():
            self.say(typed.replace(b"\n", b"\r\n"))
            if b"BEGIN-" in typed:
                tag = typed.split(b"BEGIN- ")[1].split(b";")[0]
                said = b"\nBEGIN-" + tag + b"\n" + self.answers + b"\n\nEND-" + tag + b"=%d\n# " % self.status
                self.say(said.replace(b"\n", b"\r\n"))
            elif typed == b"root\n":
                self.say(b"root@anvil:~# ")
            else:
                self.say(b"\r\nanvil login: ")
        return super().tick(timeout, also=also)


def test_a_shell_answers_with_the_commands_own_words() -> None:
    with Guest() as guest:
        shell = login(Console(guest, io.BytesIO()), timeout=5)  # type: ignore[arg-type]
        answer = shell.run("zpool status", timeout=5)
    assert (answer.output, answer.status) == ("pool: ONLINE\nsecond", 3)


def test_a_shell_that_is_silent_is_a_jam_with_the_consoles_end(line: FakeLine) -> None:
    line.say(b"some line\n")
    with pytest.raises(CardJam, match="gave no answer to 'true'") as caught:
        Shell(Console(line, io.BytesIO())).run("true", timeout=0.3)
    assert "some line" in caught.value.detail
    with pytest.raises(CardJam, match="no prompt"):
        login(Console(line, io.BytesIO()), timeout=0.3)


def test_a_command_is_one_line_that_fits_a_terminal(line: FakeLine) -> None:
    shell = Shell(Console(line, io.BytesIO()))
    for command in ("a\nb", "x" * 1001):
        with pytest.raises(UsageError, match="one line"):
            shell.run(command)
