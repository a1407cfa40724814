"""What happened to a deck, for whoever follows it; and a way to ask for its stop.

The foreman of the deck writes, one at a time and a message a line. A foreman that was killed may leave half a line,
and the next one begins a new one: what is no message is passed over. Nothing is decided by a journal but when a deck
is over; what a card came to is in the cortex.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from anvil.errors import AnvilError
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID, message_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.mainframe.home import Home

_BLOCK = 1 << 20


class Journal:
    """A deck's journal: ``logs/<deck>/journal``, beside its cards' logs, and gone when these are."""

    def __init__(self, home: Home, deck: str) -> None:
        self._folder = home.logs / deck
        self._path = self._folder / "journal"
        self._stop = self._folder / "stop"
        self._read = 0
        self._half = b""

    def make(self) -> None:
        """Make its folder."""
        self._folder.mkdir(exist_ok=True)

    def begin(self) -> None:
        """Called by a foreman before it writes: the one before it may have left half a line."""
        self._append(b"\n")

    def write(self, number: MessageID, data: dict[str, Any]) -> None:
        """Add a message. It is lost on a full disk: then those who follow are told less."""
        self._append(MicroJSON.message(number, data) + b"\n")

    def _append(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)

    def news(self) -> Iterator[tuple[MessageID, dict[str, Any]]]:
        """What was written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                while block := file.read(_BLOCK):
                    self._read += len(block)
                    *lines, self._half = (self._half + block).split(b"\n")
                    for line in filter(None, lines):
                        with contextlib.suppress(AnvilError):
                            message = MicroJSON.decode(line)
                            yield message_id(message["@ID"]), message["data"]
        except FileNotFoundError:
            return

    def is_over(self) -> bool:
        """Whether a foreman has said that it has done with the deck."""
        return any(number is MessageID.DECK_WORKED for number, _ in self.news())

    def ask_stop(self, times: int) -> None:
        """Ask for the deck's stop; twice: also of cards that another forge awaits."""
        with contextlib.suppress(OSError):  # a full disk, or the folder is gone: the deck ends otherwise
            self._stop.write_text("!" * times, encoding="ascii")

    def stops(self) -> int:
        """How often its stop was asked for."""
        try:
            return self._stop.stat().st_size
        except OSError:
            return 0
