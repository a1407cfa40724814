"""The worker processes of one forge: started, listened to, drained after a jam, ended.

Nothing here prints. Every event goes to an observer as (message id, data); the data of card events name the card.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell.jobserver import JobServer
from anvil.cell.process import Child, fork_worker
from anvil.errors import AnvilError, EnvironmentLack, Interrupted
from anvil.mainframe.ops import HOST_OPS
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.services import Services
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID, message_id
from anvil.model.card import Status
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.mainframe.settings import Settings

HOST_WORKERS = 3
_STOP_SECONDS = 1.5
_SETTLE_SECONDS = 0.8  # to delete what was thrown away; the next run deletes what is left
_TICK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class _Lane:
    """What a worker may claim."""

    ops: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Worker:
    """ready: it has said that it runs; before that its signals are not its own yet."""

    process: Child
    pipe: int
    pending: bytes = b""
    ready: bool = False


class Crew:
    """The worker processes of one forge."""

    def __init__(
        self, settings: Settings, deck: str, *, observer: Callable[[MessageID, dict[str, Any]], None]
    ) -> None:
        self._settings = settings
        self._deck = deck
        self._observer = observer
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._fatal: AnvilError | None = None
        self._asked = 0.0
        self._draining = False
        self._jobserver = JobServer(settings.jobs)

    def start(self) -> None:
        """Fork the workers. No database may be open in this process meanwhile: SQLite does not cross a fork."""
        lanes = [_Lane(without=HOST_OPS)] * self._settings.jobs + [_Lane(ops=HOST_OPS)] * HOST_WORKERS
        for lane in lanes:
            read_end, write_end = os.pipe()
            others = [worker.pipe for worker in self._workers.values()]

            def work(lane: _Lane = lane, pipe: int = write_end, close: tuple[int, ...] = (read_end, *others)) -> int:
                for fd in close:
                    os.close(fd)
                return _work(self._settings, self._deck, lane, pipe)

            process = fork_worker(work)
            os.close(write_end)
            self._workers[read_end] = _Worker(process=process, pipe=read_end)
            self._selector.register(read_end, selectors.EVENT_READ)

    def watch(self, stopped: Callable[[], bool], idle: Callable[[], None]) -> None:
        """Pass events on until every worker is gone.

        idle: called about ten times a second. Raises Interrupted when stopped, and what ended a worker early.
        """
        while self._workers:
            for key, _ in self._selector.select(_TICK_SECONDS):
                self._read(self._workers[key.fd])
            idle()
            self._jobserver.tick()
            if (stopped() or self._fatal) and not self._asked:
                self._asked = time.monotonic()
                self._signal(signal.SIGTERM)
            if self._asked and time.monotonic() - self._asked > _STOP_SECONDS:
                self._signal(signal.SIGKILL)
        if stopped():
            raise Interrupted("stopped; everything done so far is kept", hint="run the same command to go on")
        if self._fatal:
            raise self._fatal

    def _signal(self, number: int) -> None:
        for worker in self._workers.values():
            signal.pidfd_send_signal(worker.process.pidfd, number)

    def _read(self, worker: _Worker) -> None:
        data = os.read(worker.pipe, 65536)
        if not data:
            self._reap(worker)
            return
        *lines, worker.pending = (worker.pending + data).split(b"\n")
        for line in lines:
            message = MicroJSON.decode(line)
            number = message_id(message["@ID"])
            body = message["data"]
            if number is MessageID.WORKER_STARTED:
                worker.ready = True
                if self._draining:
                    signal.pidfd_send_signal(worker.process.pidfd, signal.SIGUSR1)
                continue
            if 540 <= number < 550:
                self._fatal = self._fatal or _as_error(body)
            elif 500 <= number < 540:
                self._drain()
            if number is MessageID.CARD_PROGRESS and "jobs" in body:
                self._feed(body["card"], body["jobs"])
                continue
            self._observer(number, body)

    def _drain(self) -> None:
        """A card jammed: what runs may end, nothing new begins."""
        self._draining = True
        for worker in self._workers.values():
            if worker.ready:
                signal.pidfd_send_signal(worker.process.pidfd, signal.SIGUSR1)

    def _feed(self, card: str, fifo: str) -> None:
        """A cell with a jobserver has begun, or ended ("")."""
        if not fifo:
            self._jobserver.remove(card)
            return
        with contextlib.suppress(FileNotFoundError):  # gone already: the cell was a short one
            self._jobserver.add(card, Path(fifo))

    def _reap(self, worker: _Worker) -> None:
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        del self._workers[worker.pipe]
        worker.process.reap()
        code = worker.process.exit_code
        expected = {0, -signal.SIGTERM, -signal.SIGKILL} if self._asked else {0}
        if code not in expected and self._fatal is None:
            how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
            self._fatal = AnvilError(
                f"a worker {how}",
                detail=worker.pending.decode(errors="replace"),
                hint="run the same command to go on; if it comes again, look for what kills it (memory?)",
            )


def _as_error(body: dict[str, Any]) -> AnvilError:
    error = EnvironmentLack(body["message"], hint=body.get("hint", ""), detail=body.get("detail", ""))
    error.where = body.get("where", "") or body.get("card", "")
    return error


def _work(settings: Settings, deck: str, lane: _Lane, pipe: int) -> int:
    """The life of a worker process."""
    stop = False
    processor: Processor | None = None

    def on_term(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    def on_drain(_number: int, _frame: object) -> None:
        if processor is not None:
            processor.draining = True

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGUSR1, on_drain)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides

    def report(number: MessageID, data: dict[str, Any]) -> None:
        message = MicroJSON.message(number, data) + b"\n"
        while message:
            message = message[os.write(pipe, message) :]

    try:
        with Services(settings) as services, translated("working", settings.home):
            processor = Processor(
                services, report=report, stopped=lambda: stop, deck=deck, ops=lane.ops, without=lane.without
            )
            report(MessageID.WORKER_STARTED, {})
            try:
                processor.run(partial(_finished, services, deck))
            finally:
                services.vault.settle(_SETTLE_SECONDS)
    except EnvironmentLack as error:
        report(message_id(error.message_id), {"card": error.where, **error.as_data()})  # the parent stops the others
    return 0


def _finished(services: Services, deck: str) -> bool:
    """Nothing of the deck will become ready any more."""
    counts = services.db.counts(deck)
    return bool(counts[Status.JAMMED]) or not counts[Status.PENDING] + counts[Status.PROCESSING]
