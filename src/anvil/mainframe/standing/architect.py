"""The Architect as a daemon: it takes wishes on a socket, and has a process of its own for each (``desk``)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from anvil.cell.process import fork_worker
from anvil.errors import AnvilError, EnvironmentLack, UsageError
from anvil.mainframe import liveness
from anvil.mainframe.home import Home
from anvil.mainframe.services import Services
from anvil.mainframe.standing import desk, seat, wire
from anvil.mainframe.standing.loop import Asked, end_all
from anvil.mainframe.standing.records import end_foreign, standing
from anvil.mainframe.standing.seat import Seat
from anvil.mainframe.standing.signs import Manager, Signs
from anvil.mainframe.standing.wire import Line
from anvil.mainframe.standing.wish import Wish
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.process import Child
    from anvil.mainframe.settings import Settings

WISHES = 32
"""So many are at work at once; the Processor decides how many decks are."""

_WAITING = 16
"""Clients that have connected and not said yet what they want."""

_PATIENCE_SECONDS = 10.0
_TICK_SECONDS = 0.2
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """deck: the one it was to take up; "" for a new wish."""

    child: Child
    deck: str


class ArchitectDaemon:
    """One per home."""

    def __init__(self, settings: Settings, say: Callable[[str], None], manager: Manager) -> None:
        """settings: home, and what holds for every wish. say: told what happens, in a line."""
        self._settings = settings
        self._say = say
        self._manager = manager
        self._desks: list[_Desk] = []
        self._waiting: dict[Line, float] = {}
        self._tries: dict[str, int] = {}

    def run(self) -> None:
        """Take wishes until SIGTERM or SIGINT. Raises EnvironmentLack when another one does so here."""
        asked = Asked()
        signs = Signs(self._manager)
        home = Home.open(self._settings.home)
        with Seat(home, "architect") as self._seat, self._listening() as self._listener:
            signs.ready()
            self._say(f"architect: at work on {home.path}, process {os.getpid()}")
            self._take_up()
            while not asked.stop:
                self._turn()
                signs.alive()
            signs.stopping()
            end_all(each.child for each in self._desks)
            if self._manager.listening is None:
                with contextlib.suppress(FileNotFoundError):
                    (seat.folder(home.path) / seat.SOCKET).unlink()
        self._say("architect: ended; the wishes on the stack are taken up at the next start")

    def _listening(self) -> socket.socket:
        if self._manager.listening is not None:
            return socket.socket(fileno=self._manager.listening)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(seat.folder(self._settings.home), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):  # that of one that was killed: the seat is ours
                os.unlink(seat.SOCKET, dir_fd=directory)
            before = os.umask(0o177)
            try:
                listener.bind(seat.at(directory, seat.SOCKET))
            finally:
                os.umask(before)
            listener.listen(_WAITING)
        finally:
            os.close(directory)
        return listener

    def _turn(self) -> None:
        doors: list[socket.socket | Line] = [self._listener, *self._waiting]
        ready, _, _ = select.select(doors, (), (), _TICK_SECONDS)
        now = time.monotonic()
        if self._listener in ready:
            self._accept(now)
        for line, until in list(self._waiting.items()):
            if line in ready or now > until:
                self._hear(line, late=now > until)
        for each in list(self._desks):
            if each.child.reap(0):
                self._desks.remove(each)
                if each.child.exit_code:
                    self._say(f"architect: a desk ended with {each.child.exit_code}")
                    self._take_up()

    def _accept(self, now: float) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it is gone already, or no descriptor is left: the next turn tries again
        pid, uid = wire.peer(connection)
        line = Line(connection, most=wire.ASKED_BYTES)
        if not wire.is_same_user(connection):
            self._say(f"architect: refused process {pid} of uid {uid}")
            _refuse(line, UsageError(f"this mainframe is uid {os.geteuid()}'s, and you are {uid}"))
        elif len(self._waiting) >= _WAITING:
            _refuse(line, EnvironmentLack("too many clients at once", hint="run the same command again"))
        else:
            self._waiting[line] = now + _PATIENCE_SECONDS

    def _hear(self, line: Line, *, late: bool) -> None:
        """Take the wish of a client once it is whole."""
        try:
            heard = list(line.heard())
            if not heard:
                if late:
                    raise UsageError("no wish came in time")
                if not line.open:
                    del self._waiting[line]
                    line.close()
                return
            (number, data), *rest = heard
            if number is not MessageID.WISH:
                raise UsageError("the first message is a wish", where=number.name)
            wish = Wish.from_data(data)
            if len(self._desks) >= WISHES:
                raise EnvironmentLack(f"{WISHES} wishes are at work", hint="anvil mainframe status")
        except AnvilError as error:
            self._say(f"architect: refused a wish: {error.message}")
            del self._waiting[line]
            _refuse(line, error)
            return
        del self._waiting[line]
        self._begin(wish, line, asked=sum(number is MessageID.WISH_STOP for number, _ in rest))
        line.close()

    def _take_up(self) -> None:
        """Give every wish on the stack that has nobody a desk: this one's forerunner was killed, or a desk was."""
        try:
            with Services(self._settings) as services:
                workers = services.home.workers
                end_foreign(services.db)
                found = [each for each in standing(services.db) if liveness.is_dead(workers, each.worker)]
        except AnvilError as error:
            self._say(f"architect: {error.message}")
            return
        taken = [each.deck for each in self._desks]
        for each in found:
            if each.deck in taken:
                continue
            tries = self._tries[each.deck] = self._tries.get(each.deck, 0) + 1
            if tries <= _TRIES:
                self._say(f"architect: takes up {each.deck}")
                self._begin(each.wish, None, deck=each.deck)

    def _begin(self, wish: Wish, line: Line | None, *, asked: int = 0, deck: str = "") -> None:
        settings = wish.settings(self._settings)

        def life() -> int:
            self._seat.leave()
            self._listener.close()
            for other in self._waiting:
                other.close()
            said = partial(_say_of, self._say, deck)
            return desk.work(settings, wish, desk.Desk(line, asked=asked), said, deck=deck)

        self._say(f"architect: {wish.recipe} is wished for")
        self._desks.append(_Desk(child=fork_worker(life), deck=deck))


def _say_of(say: Callable[[str], None], deck: str, text: str) -> None:
    say(f"architect: {deck or 'wish'}: {text}")


def _refuse(line: Line, error: AnvilError) -> None:
    line.tell(MessageID.WISH_ENDED, {"error": wire.error_data(error)})
    line.close()
