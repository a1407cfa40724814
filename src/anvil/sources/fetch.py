"""The fetcher: pinned files in, verified files out; the only code of Anvil that speaks to the network.

Worker threads wait for mirrors; every callback (deliver, progress, cancel) runs in the caller's thread. Threads and
not processes, because nothing here computes: hashing and socket reads leave the interpreter free.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from anvil.errors import (
    DiskFull,
    EnvironmentLack,
    IntegrityError,
    Interrupted,
    NetworkLack,
    SourceGone,
)
from anvil.model.lock import PinnedFile
from anvil.sources.lockfile import is_pool_path
from anvil.sources.mirrors import Mirrors, below_mirror, no_mirror
from anvil.sources.part import Part, translate
from anvil.sources.transfer import Patience, Transfer, bring
from anvil.sources.web import Line, NoHead, NotThere, Unavailable

Deliver = Callable[[PinnedFile, Path], None]
"""Takes a verified file; may move it away or copy it. What is left at the path is removed afterwards."""

_TICK = 0.1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a file is. done, total: bytes (total 0: not known). The last one of a file has ``finished``."""

    file: PinnedFile
    done: int
    total: int
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class _Arrived:
    """A verified file; the worker holds it until ``taken``."""

    file: PinnedFile
    path: Path
    size: int
    taken: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, kw_only=True)
class _Failed:
    file: PinnedFile
    error: BaseException


_Event = Progress | _Arrived | _Failed


class Fetcher:
    """Brings pinned files in.

    mirrors: where. downloads: a folder for what is on its way; made when needed. offline: ask no mirror. from_dir: a
    folder that is looked in first: a copy of an archive's tree, or the files side by side; what lies in a folder of
    this machine (a file: mirror, the project) is no network, and is had offline too. progress: told about ten
    times a second and file. cancel: asked as often; true ends everything within a second (Interrupted), and the next
    run goes on from there.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        downloads: Path,
        *,
        offline: bool = False,
        from_dir: Path | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        cancel: Callable[[], bool] = lambda: False,
        patience: Patience | None = None,
    ) -> None:
        self._mirrors = mirrors
        self._downloads = downloads
        self._offline = offline
        self._from_dir = from_dir
        self._progress = progress
        self._cancel = cancel
        self._patience = patience or Patience()
        self._blame = _Blame()

    def fetch(self, file: PinnedFile, deliver: Deliver) -> None:
        """Bring one file in; see ``fetch_all``."""
        self.fetch_all((file,), deliver, workers=1)

    def fetch_all(self, files: Iterable[PinnedFile], deliver: Deliver, *, workers: int = 4) -> None:
        """Bring files in, several at a time, and deliver each digest once, verified, as it arrives.

        Raises HashMismatch, NetworkLack, DiskFull, EnvironmentLack at once; SourceGone when all others are here, for
        all that are gone; Interrupted. What ``deliver`` raises ends it too. Delivered files stay delivered.
        """
        plan = self._plan(files)
        self._make_room([file for file, _ in plan.values()])
        crew = _Crew(self._downloads, self._patience, plan, self._blame)
        gone: list[SourceGone] = []
        try:
            crew.start(min(workers, len(plan)))
            while crew.pending:
                if self._cancel():
                    raise Interrupted("the download was stopped", hint="the next run goes on where it stopped")
                event = crew.next_event()
                if isinstance(event, Progress):
                    self._progress(event)
                elif isinstance(event, _Arrived):
                    deliver(event.file, event.path)
                    event.taken.set()
                    self._progress(Progress(file=event.file, done=event.size, total=event.size, finished=True))
                elif isinstance(event, _Failed):
                    if not isinstance(event.error, SourceGone):
                        raise event.error
                    gone.append(event.error)
        except BaseException:
            crew.abandon()
            raise
        crew.join()
        if gone:
            raise _all_gone(gone)

    def answers(self, file: PinnedFile) -> bool:
        """Whether some address has a file of that size, asked without fetching it.

        Raises NetworkLack when none has it and one did not answer, EnvironmentLack when there is no mirror. Offline
        only the given folder is looked in.
        """
        addresses = (*self._local(_names(file)), *self._remote(self._mirrors.addresses(file)))
        if not addresses and not self._offline:
            raise no_mirror(file.archive, file.name)
        line = Line(silence_seconds=self._patience.silence_seconds)
        silent: dict[str, str] = {}
        for address in addresses:
            try:
                length = _length(line, address)
                if not file.size or length in (None, file.size):
                    return True
            except NotThere:
                continue
            except Unavailable as error:
                silent[address] = str(error)
        if silent:
            raise _no_answer(file.name, silent)
        return False

    def read(self, archive: str, path: str, *, limit: int) -> bytes:
        """A small file of an archive that is not pinned, such as an InRelease, from the first that has it.

        The bytes are NOT verified: whoever asks must check a signature. limit: bytes. Raises IntegrityError when it
        is larger, SourceGone, NetworkLack, EnvironmentLack.
        """
        addresses = [*self._local((f"{archive}/{path}", path)), *self._remote(self._mirrors.of_path(archive, path))]
        if not addresses:
            raise self._nowhere(archive, path)
        line = Line(silence_seconds=self._patience.silence_seconds)
        silent: dict[str, str] = {}
        for address in addresses:
            if self._cancel():
                raise Interrupted("the download was stopped")
            try:
                with line.open(address) as answer:
                    body = bytearray()
                    for chunk in answer.chunks():
                        body += chunk
                        if len(body) > limit:
                            raise IntegrityError(f"{path} is larger than {limit} bytes", where=address)
                    return bytes(body)
            except NotThere:
                continue
            except Unavailable as error:
                silent[address] = str(error)
        if silent:
            raise _no_answer(path, silent)
        raise SourceGone(
            f"{path} is on no mirror of {archive}",
            where=addresses[0],
            hint="check the suite's name and the mirror's address",
            detail="\n".join(addresses),
        )

    def _plan(self, files: Iterable[PinnedFile]) -> dict[str, tuple[PinnedFile, tuple[str, ...]]]:
        """Digest to its first file and every address; refuses before anything starts when one has none."""
        plan: dict[str, tuple[PinnedFile, tuple[str, ...]]] = {}
        for file in files:
            first, known = plan.get(file.sha256, (file, ()))
            found = (*self._local(_names(file)), *self._remote(self._mirrors.addresses(file)))
            plan[file.sha256] = (first, tuple(dict.fromkeys((*known, *found))))
        # A whole .part may still be there; it needs no address.
        lacking = [
            file for file, known in plan.values() if not known and not (file.size and self._there(file) == file.size)
        ]
        if lacking:
            error = self._nowhere(lacking[0].archive, lacking[0].name)
            error.detail = "\n".join(file.name for file in lacking) if len(lacking) > 1 else ""
            raise error
        return plan

    def _local(self, names: Iterable[str]) -> Iterator[str]:
        if self._from_dir is not None:
            for name in dict.fromkeys(name.strip("/") for name in names):
                path = self._from_dir / name
                if is_pool_path(name) and path.is_file():
                    yield path.resolve().as_uri()

    def _remote(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one for one in addresses if one.startswith("file:")) if self._offline else addresses

    def _nowhere(self, archive: str, name: str) -> EnvironmentLack:
        if self._offline:
            return EnvironmentLack(
                f"{name} is not here, and --offline was asked for",
                where=str(self._from_dir or self._downloads),
                hint="run it once without --offline, or give a folder that has it: --from DIR",
            )
        return no_mirror(archive, name)

    def _make_room(self, files: Sequence[PinnedFile]) -> None:
        try:
            self._downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self._downloads).free
        except OSError as error:
            raise translate(error, self._downloads / "x") from error
        needed = sum(file.size - self._there(file) for file in files)
        if needed > free:
            raise DiskFull(
                f"the downloads need {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free",
                where=str(self._downloads),
                hint="free some space there, or name another place with --home DIR",
            )

    def _there(self, file: PinnedFile) -> int:
        try:
            return min(os.stat(self._downloads / f"{file.sha256}.part").st_size, file.size)
        except OSError:
            return 0


class _Crew:
    """The worker threads of one ``fetch_all``, and the queue on which they report."""

    def __init__(
        self,
        downloads: Path,
        patience: Patience,
        plan: dict[str, tuple[PinnedFile, tuple[str, ...]]],
        blame: _Blame,
    ) -> None:
        self._blame = blame
        self._downloads = downloads
        self._patience = patience
        self._jobs: queue.SimpleQueue[tuple[PinnedFile, tuple[str, ...]]] = queue.SimpleQueue()
        # Large files first: a long one started last would be waited for alone.
        for job in sorted(plan.values(), key=lambda job: -job[0].size):
            self._jobs.put(job)
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._lines: list[Line] = []
        self._threads: list[threading.Thread] = []
        self.pending = len(plan)

    def start(self, workers: int) -> None:
        for number in range(workers):
            line = Line(silence_seconds=self._patience.silence_seconds)
            # A daemon: one that is stuck in a name look-up must not keep the process from ending.
            thread = threading.Thread(target=self._work, args=(line,), name=f"fetch-{number}", daemon=True)
            self._lines.append(line)
            try:
                thread.start()
            except RuntimeError as error:
                hint = "end something else, or raise the number of processes: ulimit -u"
                raise EnvironmentLack("no thread can be started to download with", hint=hint) from error
            self._threads.append(thread)

    def next_event(self) -> _Event | None:
        """What a worker reported, or None after a tenth of a second."""
        try:
            event = self._events.get(timeout=_TICK)
        except queue.Empty:
            return None
        if not isinstance(event, Progress):
            self.pending -= 1
        return event

    def join(self) -> None:
        """Wait for the workers of finished work."""
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        """End the workers, waiting half a second at most; one that is stuck ends by itself and delivers nothing."""
        self._stop.set()
        for line in self._lines:
            line.cut()
        end = time.monotonic() + 0.5
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self, line: Line) -> None:
        while not self._stop.is_set():
            try:
                file, addresses = self._jobs.get_nowait()
            except queue.Empty:
                return
            try:
                self._one(file, addresses, line)
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
                self._events.put(_Failed(file=file, error=error))

    def _one(self, file: PinnedFile, addresses: tuple[str, ...], line: Line) -> None:
        with Part(self._downloads, file, stopped=self._stop.is_set) as part:
            if not addresses and not part.complete:
                raise EnvironmentLack(
                    f"what an earlier run left of {file.name} is not the pinned file",
                    where=str(part.path),
                    hint="run it once without --offline, or give a folder that has it: --from DIR",
                )
            bring(
                Transfer(
                    file=file,
                    part=part,
                    line=line,
                    patience=self._patience,
                    report=_Throttle(file, self._events.put),
                    blame=self._blame,
                    stopped=self._stop.is_set,
                ),
                self._blame.order(addresses),
            )
            arrived = _Arrived(file=file, path=part.path, size=part.done)
            self._events.put(arrived)
            while not arrived.taken.wait(_TICK):
                if self._stop.is_set():
                    return
            part.discard()


class _Blame:
    """Which hosts failed, so that a dead mirror is waited for once and not once a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: Counter[str] = Counter()

    def __call__(self, address: str) -> None:
        with self._lock:
            self._failures[urlsplit(address).netloc] += 1

    def order(self, addresses: Sequence[str]) -> list[str]:
        """The addresses with the fewest failures first; else as they were."""
        with self._lock:
            return sorted(addresses, key=lambda address: self._failures[urlsplit(address).netloc])


class _Throttle:
    """Passes on a file's progress about ten times a second."""

    def __init__(self, file: PinnedFile, put: Callable[[Progress], None]) -> None:
        self._file = file
        self._put = put
        self._next = 0.0

    def __call__(self, done: int) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + _TICK
            self._put(Progress(file=self._file, done=done, total=self._file.size))


def _length(line: Line, address: str) -> int | None:
    """How long a server says that a file is, which is not fetched; None when it does not say."""
    try:
        with line.open(address, head=True) as answer:
            return answer.length
    except NoHead:
        with line.open(address) as answer:
            return answer.length


def _names(file: PinnedFile) -> tuple[str, ...]:
    """Where a given folder may have a file: as in an archive's tree, or side by side (as apt's cache names them)."""
    below = (below_mirror(file.url),) if file.url else (f"{file.archive}/{file.path}", file.path)
    return (*below, file.name, file.name.replace(":", "%3a"))


def _all_gone(gone: list[SourceGone]) -> SourceGone:
    if len(gone) == 1:
        return gone[0]
    return SourceGone(
        f"{len(gone)} files are gone: every mirror says that they are not there",
        where=gone[0].where,
        hint=gone[0].hint,
        detail="\n".join(error.message.partition(" is gone")[0] for error in gone),
    )


def _no_answer(name: str, silent: dict[str, str]) -> NetworkLack:
    address, reason = next(iter(silent.items()))
    return NetworkLack(
        f"no mirror answers for {name}: {reason}",
        where=address,
        hint="check the network and its proxy (https_proxy), then try again; or --from DIR",
        detail="\n".join(f"{address}: {reason}" for address, reason in silent.items()),
    )
