"""The worker processes of one forge: started, listened to, drained after a jam, ended.

A stop ends every card but those that another forge awaits: their workers are left behind. Such a worker makes itself
independent of its parent, finishes its card, stamps it and ends. It gives the card up when nobody alive awaits it any
more, and on SIGTERM.

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

from anvil.cell import kernel
from anvil.cell.jobserver import JobServer
from anvil.cell.process import Child, fork_worker
from anvil.errors import AnvilError, EnvironmentLack, Interrupted
from anvil.mainframe import liveness
from anvil.mainframe.ops import HOST_OPS
from anvil.mainframe.processor_daemon import Processor
from anvil.mainframe.services import Services
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID, message_id
from anvil.model.card import Status
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cortex.records import Waiter
    from anvil.mainframe.settings import Settings

HOST_WORKERS = 3
BOOT_OPS = ("boot",)
"""What has a worker more than there are jobs: a boot waits for its own timers a third of its time."""
_STOP_SECONDS = 1.5
_SETTLE_SECONDS = 0.8  # to delete what was thrown away; the next run deletes what is left
_TICK_SECONDS = 0.1
_LEAVE_SECONDS = 10.0
"""How long a worker that is to be left behind has to say that it is: it may be waiting for the disk."""
_AWAITED_SECONDS = 0.5
_TOKEN = 32  # hex digits of a worker's token


@dataclass(frozen=True, kw_only=True)
class _Lane:
    """What a worker may claim."""

    ops: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Worker:
    """ready: it has said that it runs; before that its signals are not its own yet. awaited: it is to be left."""

    process: Child
    pipe: int
    pending: bytes = b""
    ready: bool = False
    token: str = ""
    awaited: Waiter | None = None


class Crew:
    """The worker processes of one forge."""

    def __init__(
        self,
        settings: Settings,
        deck: str,
        *,
        observer: Callable[[MessageID, dict[str, Any]], None],
        parent: liveness.Worker | None = None,
    ) -> None:
        """parent: this process's own token, which is not to outlive it in its workers."""
        self._settings = settings
        self._parent = parent
        self._deck = deck
        self._observer = observer
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._fatal: AnvilError | None = None
        self._asked = 0.0
        self._draining = False
        self._left: list[str] = []
        self._jobserver = JobServer(settings.jobs)

    def start(self) -> None:
        """Fork the workers. No database may be open in this process meanwhile: SQLite does not cross a fork."""
        lanes = [_Lane(without=HOST_OPS)] * self._settings.jobs + [_Lane(ops=HOST_OPS)] * HOST_WORKERS
        lanes.append(_Lane(ops=BOOT_OPS))
        leavers, leave = os.pipe()
        for lane in lanes:
            read_end, write_end = os.pipe()
            others = [worker.pipe for worker in self._workers.values()]

            def work(
                lane: _Lane = lane, pipe: int = write_end, close: tuple[int, ...] = (read_end, leavers, *others)
            ) -> int:
                for fd in close:
                    os.close(fd)
                if self._parent:
                    self._parent.forget()
                return _work(self._settings, self._deck, lane, pipe, leave)

            process = fork_worker(work)
            os.close(write_end)
            self._workers[read_end] = _Worker(process=process, pipe=read_end)
            self._selector.register(read_end, selectors.EVENT_READ)
        os.close(leave)
        self._leavers = leavers
        self._selector.register(leavers, selectors.EVENT_READ)

    def watch(self, stopped: Callable[[], bool], idle: Callable[[], None], *, insisted: Callable[[], bool]) -> None:
        """Pass events on until every worker is gone, or left behind with a card that another forge awaits.

        idle: called about ten times a second. insisted: says that such cards are to be stopped, too. Raises
        Interrupted when stopped, and what ended a worker early.
        """
        while self._workers:
            for key, _ in self._selector.select(_TICK_SECONDS):
                if key.fd in self._workers:
                    self._read(self._workers[key.fd])
                elif key.fd == self._leavers:
                    self._take_leave()
            idle()
            self._jobserver.tick()
            if stopped() or self._fatal:
                self._stop(insisted=insisted())
        self._jobserver.tick()  # who is left behind may have all there is
        self._selector.close()
        os.close(self._leavers)
        left = "\n".join(self._left)
        if stopped():
            hint = "run the same command to go on"
            raise Interrupted("stopped; everything done so far is kept", detail=left, hint=hint)
        if self._fatal:
            self._fatal.detail = "\n".join(filter(None, (self._fatal.detail, left)))
            raise self._fatal

    def _stop(self, *, insisted: bool) -> None:
        """Ask once, then insist."""
        now = time.monotonic()
        if not self._asked:
            self._asked = now
            awaited = {} if insisted else self._awaited()
            for worker in self._workers.values():
                worker.awaited = awaited.get(worker.token)
                _signal(worker, signal.SIGUSR2 if worker.awaited else signal.SIGTERM)
        for worker in self._workers.values():
            if worker.awaited and insisted:
                worker.awaited, self._asked = None, now
                _signal(worker, signal.SIGTERM)
            if now - self._asked > (_LEAVE_SECONDS if worker.awaited else _STOP_SECONDS):
                _signal(worker, signal.SIGKILL)

    def _awaited(self) -> dict[str, Waiter]:
        """Those of the workers that run what a living worker of another forge waits for."""
        tokens = [worker.token for worker in self._workers.values()]
        try:
            with Services(self._settings) as services:
                return {waiter.worker: waiter for waiter in _waiters(services, tokens)}
        except AnvilError:
            return {}  # a full disk: then the others make it

    def _take_leave(self) -> None:
        """A worker has said that it goes on without us: it is no longer ours."""
        told = os.read(self._leavers, _TOKEN).decode()
        if not told:  # all workers have ended
            self._selector.unregister(self._leavers)
        worker = next((each for each in self._workers.values() if told and each.token == told), None)
        if worker is None or worker.awaited is None:
            return  # it has ended, or was asked to stop since
        pid, card = worker.process.pid, worker.awaited.card
        forge = worker.awaited.waiter_deck
        self._left.append(f"{card} goes on in process {pid}: the forge {forge} waits for it (kill {pid} stops it)")
        self._observer(MessageID.CARD_LEFT, {"card": card, "pid": pid, "forge": forge})
        self._part(worker)
        os.close(worker.process.pidfd)

    def _part(self, worker: _Worker) -> None:
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        del self._workers[worker.pipe]

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
                worker.token = body["worker"]
                if self._draining:
                    signal.pidfd_send_signal(worker.process.pidfd, signal.SIGUSR1)
                continue
            if 540 <= number < 550:
                self._fatal = self._fatal or _as_error(body)
            elif 500 <= number < 540:
                self._drain()
            if number is MessageID.CARD_PROGRESS and "jobs" in body:
                self._feed(body["card"], body["jobs"], background=body.get("background", False))
                continue
            self._observer(number, body)

    def _drain(self) -> None:
        """A card jammed: what runs may end, nothing new begins."""
        self._draining = True
        for worker in self._workers.values():
            if worker.ready:
                signal.pidfd_send_signal(worker.process.pidfd, signal.SIGUSR1)

    def _feed(self, card: str, fifo: str, *, background: bool) -> None:
        """A cell with a jobserver has begun, or ended ("")."""
        if not fifo:
            self._jobserver.remove(card)
            return
        with contextlib.suppress(FileNotFoundError):  # gone already: the cell was a short one
            self._jobserver.add(card, Path(fifo), background=background)

    def _reap(self, worker: _Worker) -> None:
        self._part(worker)
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


def _signal(worker: _Worker, number: int) -> None:
    signal.pidfd_send_signal(worker.process.pidfd, number)


def _waiters(services: Services, tokens: list[str]) -> list[Waiter]:
    """Who alive, and not one of these workers itself, waits for what they run."""
    return [
        each
        for each in services.db.waiters(tokens)
        if each.waiter not in tokens and not liveness.is_dead(services.home.workers, each.waiter)
    ]


class _Duty:
    """What a worker has been told, by signals."""

    def __init__(self, leave: int) -> None:
        self.stop = False
        self.alone = False
        self.processor: Processor | None = None
        self.services: Services | None = None
        self._leave = leave
        self._looked = 0.0
        self._is_awaited = True
        for number, handler in ((signal.SIGTERM, self._on_term), (signal.SIGUSR1, self._on_drain)):
            signal.signal(number, handler)
        signal.signal(signal.SIGUSR2, self._on_leave)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides

    def ended(self) -> bool:
        """Nothing more is to be claimed."""
        return self.stop or self.alone

    def given_up(self) -> bool:
        """The card under work is to be stopped: it was said, or nobody is left who wants it."""
        if not self.alone or self.stop or self.services is None:
            return self.stop
        if (now := time.monotonic()) - self._looked > _AWAITED_SECONDS:
            self._looked = now
            self._is_awaited = bool(_waiters(self.services, [self.services.worker.token]))
        return not self._is_awaited

    def _on_term(self, _number: int, _frame: object) -> None:
        self.stop = True

    def _on_drain(self, _number: int, _frame: object) -> None:
        if self.processor is not None:
            self.processor.draining = True

    def _on_leave(self, _number: int, _frame: object) -> None:
        """Outlive the parent: its death, its terminal and whoever reads what it prints."""
        if self.services is None or self.ended():
            return
        kernel.die_with_parent(0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        self.alone = True
        with contextlib.suppress(BrokenPipeError):  # the parent is gone already
            os.write(self._leave, self.services.worker.token.encode())


def _work(settings: Settings, deck: str, lane: _Lane, pipe: int, leave: int) -> int:
    """The life of a worker process."""
    duty = _Duty(leave)

    def report(number: MessageID, data: dict[str, Any]) -> None:
        message = MicroJSON.message(number, data) + b"\n"
        with contextlib.suppress(BrokenPipeError):  # left behind, nobody listens any more
            while message:
                message = message[os.write(pipe, message) :]

    try:
        with translated("working", settings.home), Services(settings) as services:
            processor = Processor(
                services,
                report=report,
                stopped=duty.ended,
                cancelled=duty.given_up,
                deck=deck,
                ops=lane.ops,
                without=lane.without,
            )
            duty.processor, duty.services = processor, services
            report(MessageID.WORKER_STARTED, {"worker": services.worker.token})
            try:
                processor.run(partial(_finished, services, deck))
            finally:
                if duty.alone:
                    services.db.clear_deck(deck)
                services.vault.settle(None if duty.alone else _SETTLE_SECONDS)
    except EnvironmentLack as error:
        report(message_id(error.message_id), {"card": error.where, **error.as_data()})  # the parent stops the others
    except MemoryError:
        lack = EnvironmentLack("no memory left for a worker", hint="end something else, or forge with --jobs 1")
        report(message_id(lack.message_id), lack.as_data())
    return 0


def _finished(services: Services, deck: str) -> bool:
    """Nothing of the deck will become ready any more."""
    counts = services.db.counts(deck)
    return bool(counts[Status.JAMMED]) or not counts[Status.PENDING] + counts[Status.PROCESSING]
