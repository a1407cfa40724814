"""A serial console: what the guest says, kept byte for byte and matched as text.

The transcript is the guest's bytes. Matching works on the same text with control sequences taken out: firmware and
boot loaders move the cursor between letters, and a line may arrive in any number of pieces.
"""

from __future__ import annotations

import codecs
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from anvil.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.spec import Outcome

TRANSCRIPT_LIMIT = 64 * 1024 * 1024
"""Bytes: a guest that says more than this is broken or hostile."""

LINE_PATIENCE = 1.0
"""Seconds that a line may take to reach its end, once a text in it was seen."""

_KEPT_TEXT = 1024 * 1024  # characters kept for matching and tails
_BLOCK = 65536
_SLICE = 0.2  # seconds between looks at whether to stop

# ECMA-48, from an escape character: CSI sequences; OSC, DCS and other strings, to BEL or ST; short escapes.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ`-~])"
)  # fmt: skip
_OPEN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")  # the start of one, unended
_OPEN_LIMIT = 256  # characters: what has not ended by then is no sequence
# Control characters of both sets, and what turns the direction of what a person reads.
_INVISIBLE = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\t\n"
}


class PlainText:
    """A stream of console bytes to the text a person would see: UTF-8 decoded, control sequences taken out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # a sequence whose end has not come yet

    def feed(self, data: bytes) -> str:
        """The text of these bytes, but for a sequence that is still open, which waits for the next ones."""
        text = self._held + self._decoder.decode(data)
        self._held = ""
        parts, place = [], 0
        while (start := text.find("\x1b", place)) >= 0:
            parts.append(text[place:start])
            if whole := _SEQUENCE.match(text, start):
                place = whole.end()
            elif len(text) - start <= _OPEN_LIMIT and _OPEN.match(text, start):
                self._held, place = text[start:], len(text)
            else:
                place = start + 1
        parts.append(text[place:])
        return "".join(parts).translate(_INVISIBLE)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How a wait ended.

    text: which of the texts was seen ("" unless seen). line: the whole line it stood on. start, end: where that line
    lies in all that was ever said, in characters of plain text.
    """

    reason: Literal["seen", "timeout", "closed", "cancelled"]
    text: str = ""
    line: str = ""
    start: int = 0
    end: int = 0


class Line(Protocol):
    """What a console hangs on: a cell started with :func:`anvil.cell.run.start`."""

    stdin: int
    stdout: int

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes of standard output; empty when there are none now."""

    def tick(self, timeout: float = 0.0, *, also: int = -1) -> Outcome | None:
        """Wait up to ``timeout`` seconds for something to happen; the outcome once the cell has ended."""


class Console:
    """The two ends of a guest's serial line.

    transcript: every byte that was read is written there. cancelled: asked several times a second; True ends every
    wait. closed: the guest is gone and its last byte was read.
    """

    def __init__(self, line: Line, transcript: BinaryIO, *, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._line = line
        self._transcript = transcript
        self._cancelled = cancelled
        self._plain = PlainText()
        self._text = ""
        self._dropped = 0  # characters no longer kept: _text[0] is character number _dropped
        self._mark = 0  # where the next expect() starts to look
        self._read_bytes = 0
        self.closed = False
        self.outcome: Outcome | None = None  # how the cell ended, once it has

    def expect(self, *texts: str, timeout: float, patience: float = LINE_PATIENCE) -> Sight:
        """Wait until one of the texts is said (the first in the order of the stream), at most ``timeout`` seconds.

        patience: seconds that the rest of its line may take (0 for a prompt, whose line does not end).
        The next call looks only at what comes after the line that was found. Raises LimitExceeded when the guest says
        more than TRANSCRIPT_LIMIT bytes.
        """
        end = time.monotonic() + timeout
        while True:
            if found := self._find(texts):
                return self._whole_line(*found, patience)
            if self.closed:
                return Sight(reason="closed")
            if self._cancelled():
                return Sight(reason="cancelled")
            if (left := end - time.monotonic()) <= 0:
                return Sight(reason="timeout")
            self._receive(min(left, _SLICE))

    def send(self, text: str, *, timeout: float = 10) -> None:
        """Type the text; what a guest that is gone, or that does not read, has not taken by then is lost."""
        data = text.encode()
        end = time.monotonic() + timeout
        while data and not self.closed and time.monotonic() < end:
            try:
                data = data[os.write(self._line.stdin, data) :]
            except BlockingIOError:
                self._receive(_SLICE)  # a guest that must first get rid of what it says reads again afterwards
            except BrokenPipeError:
                return

    def skip(self) -> None:
        """Let the next expect() look only at what is said from now on."""
        self._receive(0)
        self._mark = self._dropped + len(self._text)

    def drain(self, *, timeout: float) -> bool:
        """Read what is still said until the other end is closed; False when it was not within ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while not self.closed and not self._cancelled() and (left := end - time.monotonic()) > 0:
            self._receive(min(left, _SLICE))
        return self.closed

    def between(self, first: Sight, last: Sight) -> str:
        """The text after the line of one sight and before that of a later one."""
        return self._slice(first.end, last.start).strip("\n")

    def tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines that were said, empty ones left out."""
        said = [line.rstrip() for line in self._text[-16384:].split("\n")]
        return tuple(line for line in said if line)[-lines:]

    def _find(self, texts: tuple[str, ...]) -> tuple[int, str] | None:
        start = max(0, self._mark - self._dropped)
        places = [(place + self._dropped, text) for text in texts if (place := self._text.find(text, start)) >= 0]
        return min(places, default=None)

    def _whole_line(self, place: int, text: str, patience: float) -> Sight:
        """Wait a moment for the end of the line, so that what is told of it is whole."""
        end = time.monotonic() + patience
        while "\n" not in self._slice(place, None) and not self.closed and (left := end - time.monotonic()) > 0:
            self._receive(min(left, _SLICE))
        start = self._text.rfind("\n", 0, place - self._dropped) + 1 + self._dropped
        stop = self._text.find("\n", place - self._dropped)
        stop = self._dropped + (len(self._text) if stop < 0 else stop)
        self._mark = stop
        return Sight(reason="seen", text=text, line=self._slice(start, stop).strip(), start=start, end=stop)

    def _slice(self, start: int, stop: int | None) -> str:
        return self._text[max(0, start - self._dropped) : None if stop is None else max(0, stop - self._dropped)]

    def _receive(self, timeout: float) -> None:
        """Take in what has come, waiting at most ``timeout`` seconds for it."""
        outcome = self._line.tick(timeout, also=self._line.stdout)
        while data := self._line.read(_BLOCK):
            self._take(data)
        self.outcome, self.closed = outcome, outcome is not None

    def _take(self, data: bytes) -> None:
        self._read_bytes += len(data)
        if self._read_bytes > TRANSCRIPT_LIMIT:
            raise LimitExceeded(
                f"the guest said more than {TRANSCRIPT_LIMIT // 1024 // 1024} MiB on its console",
                hint="look at the start of the transcript: something repeats itself",
            )
        self._transcript.write(data)
        self._transcript.flush()
        self._text += self._plain.feed(data)
        if (surplus := len(self._text) - 2 * _KEPT_TEXT) > 0:
            self._dropped += surplus + _KEPT_TEXT
            self._text = self._text[surplus + _KEPT_TEXT :]
