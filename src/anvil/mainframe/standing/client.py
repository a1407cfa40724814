"""The other end: a wish is handed to the Architect of a home and followed to its end."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Any

from anvil.errors import EnvironmentLack, Interrupted
from anvil.mainframe.standing import seat, wire
from anvil.mainframe.standing.desk import outcome_of
from anvil.mainframe.standing.wire import Line
from anvil.mainframe.standing.wish import Wish
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anvil.mainframe.forge import Face
    from anvil.mainframe.outcome import Outcome
    from anvil.mainframe.settings import Settings

START = "start it: anvil mainframe run"
_TICK_SECONDS = 0.1
_LEAVE = 3


class Submission:
    """A wish at the standing mainframe; as a ``Forge`` to whoever waits for it."""

    def __init__(self, settings: Settings, face: Face, *, asked: Callable[[], int], detach: bool = False) -> None:
        """asked: how often a person has asked for a stop. detach: no longer followed once it is on the stack."""
        self._settings = settings
        self._face = face
        self._asked = asked
        self._detach = detach
        self.deck = ""
        """The name under which it is on the stack; "" until it is."""

    def run(self, recipe: str) -> Outcome | None:
        """Wish for a recipe; how it ended, or None when it was left to the mainframe.

        Raises what the forge of it raised, and EnvironmentLack when no architect is there or it goes away. One stop
        is a stop as in any forge, two are also one of what another forge awaits; at the third this waits no longer.
        """
        line = Line(connect(self._settings.home), most=wire.TOLD_BYTES)
        try:
            line.tell(MessageID.WISH, Wish.of(recipe, self._settings).as_data())
            return self._follow(line)
        finally:
            line.close()

    def _follow(self, line: Line) -> Outcome | None:
        told = 0
        while line.open:
            select.select([line], (), (), _TICK_SECONDS)
            for number, data in line.heard():
                if number is MessageID.WISH_ENDED:
                    if "error" in data:
                        raise wire.error_of(data["error"])
                    return outcome_of(data["outcome"])
                self._take(number, data)
            if self._detach and self.deck:
                return None
            self._face.idle()
            for _ in range(told, asked := self._asked()):
                line.tell(MessageID.WISH_STOP, {})
            if asked and not told:
                self._face.note("asked the mainframe to stop it …")
            told = asked
            if told >= _LEAVE:
                raise Interrupted("left; the mainframe was asked to stop it", hint="anvil mainframe status")
        raise EnvironmentLack(
            "the mainframe's architect is gone",
            detail=f"{self.deck} is on the stack and is taken up when it is back" if self.deck else "",
            hint=f"{START}; then run the same command to go on",
        )

    def _take(self, number: MessageID, data: dict[str, Any]) -> None:
        if number is MessageID.PLAN:
            self._face.begin(total=data["total"], kept=data["kept"], estimates=data["estimates"])
        elif number is MessageID.FORGE_NOTE:
            self._face.note(data["text"])
        elif number is MessageID.WISH_TAKEN:
            self.deck = data["deck"]
            self._face.note(f"the mainframe has it as {self.deck}; Ctrl-C stops it, closing the terminal does not")
        else:
            self._face.event(number, data)


def connect(home: Path) -> socket.socket:
    """A connection to the Architect of a home. Raises EnvironmentLack with the command that starts it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory = os.open(seat.folder(home), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(seat.at(directory, seat.SOCKET))
        finally:
            os.close(directory)
    except OSError as error:
        connection.close()
        raise EnvironmentLack(
            f"no standing mainframe is at work on this home ({error.strerror})", where=str(home), hint=START
        ) from error
    return connection
