"""One file's way from the first address that has it to a verified .part.

The rules: a mirror that says "not there" or serves other bytes is not asked again; one that fails is asked again after
a pause, a few times; what has arrived is kept and continued, also from another mirror; a failure after real progress
does not count. Whatever was continued and turns out wrong is thrown away and blamed on nobody; whatever came whole
from one mirror and is wrong is that mirror's.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from anvil.errors import HashMismatch, Interrupted, NetworkLack, SourceGone
from anvil.sources.mirrors import UPSTREAM, setting_name
from anvil.sources.web import Answer, BadRange, Line, NotThere, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anvil.model.lock import PinnedFile
    from anvil.sources.part import Part


_AGAIN = "pin it again: anvil sources update, or what a project pins itself: anvil sources add … --replace"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a mirror is waited for.

    silence_seconds: for a connection, and between two pieces of a body. attempts: failures without progress of one
    mirror. pause_seconds: before the second attempt, doubled each time. progress_bytes: what makes a failed attempt
    a useful one. slow_bytes_per_second, slow_seconds: a mirror that stays below this for so long is dropped.
    """

    silence_seconds: float = 20.0
    attempts: int = 3
    pause_seconds: float = 0.5
    progress_bytes: int = 256 * 1024
    slow_bytes_per_second: int = 1024
    slow_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What bringing one file in needs.

    report: told the bytes so far. blame: told of an address that failed. stopped: asked often; true ends it.
    """

    file: PinnedFile
    part: Part
    line: Line
    patience: Patience
    report: Callable[[int], None]
    blame: Callable[[str], None]
    stopped: Callable[[], bool]


class _Wrong(Exception):
    """The file came, and is not the pinned one. resumed: a piece of it was from an earlier attempt."""

    def __init__(self, got: str, *, resumed: bool) -> None:
        super().__init__(got)
        self.got = got
        self.resumed = resumed


@dataclass
class _Findings:
    """What each address turned out to be."""

    gone: list[str] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def bring(transfer: Transfer, addresses: Sequence[str]) -> None:
    """Make ``transfer.part`` the pinned file, from the first address that can.

    Raises HashMismatch, NetworkLack, SourceGone (by that order when the addresses differ), Interrupted, DiskFull.
    """
    part, patience = transfer.part, transfer.patience
    left = list(addresses)
    found = _Findings()
    failures: Counter[str] = Counter()
    furthest = part.done
    turn = 0
    while left and not part.complete:
        if turn:
            _pause(patience.pause_seconds * 2 ** min(turn - 1, 5), transfer.stopped)
        turn += 1
        for address in list(left):
            again = _attempt(transfer, address, found)
            if part.complete:
                return
            if part.done < furthest + patience.progress_bytes:
                failures[address] += 1
            furthest = max(furthest, part.done)
            if not again or failures[address] >= patience.attempts:
                left.remove(address)
    if not part.complete:
        _give_up(transfer.file, found)


def _attempt(transfer: Transfer, address: str, found: _Findings) -> bool:
    """Try one address once; whether it may be tried again."""
    if transfer.stopped():
        raise Interrupted("the download was stopped", hint="the next run goes on where it stopped")
    try:
        with transfer.line.open(address, start=transfer.part.done) as answer:
            _receive(transfer, answer)
    except NotThere:
        found.gone.append(address)
        return False
    except BadRange as error:
        transfer.part.restart()
        found.silent[address] = str(error)
    except Unavailable as error:
        if transfer.stopped():
            raise Interrupted("the download was stopped", hint="the next run goes on where it stopped") from error
        transfer.blame(address)
        found.silent[address] = str(error)
        return error.again
    except _Wrong as error:
        transfer.part.restart()
        if not error.resumed:
            found.silent.pop(address, None)
            found.wrong[address] = error.got
            return False
        found.silent[address] = f"a download that was continued from there became {error.got}"
    return True


def _receive(transfer: Transfer, answer: Answer) -> None:
    """Add a body to the .part; returns only when that is the pinned file."""
    file, part = transfer.file, transfer.part
    resumed = answer.start > 0
    if answer.start != part.done:
        part.restart()
        resumed = False
    if file.size and answer.length is not None and answer.start + answer.length != file.size:
        raise _Wrong(f"a file of {answer.start + answer.length} bytes", resumed=False)
    watch = _SpeedWatch(transfer.patience)
    for chunk in answer.chunks():
        part.write(chunk)
        if part.overfull:
            raise _Wrong(f"a file of more than {part.done - len(chunk)} bytes", resumed=resumed)
        transfer.report(part.done)
        watch.saw(len(chunk))
        if transfer.stopped():
            raise Interrupted("the download was stopped", hint="the next run goes on where it stopped")
    if file.size and part.done < file.size:
        raise Unavailable(f"the body ended {file.size - part.done} bytes early")
    if not part.complete:
        raise _Wrong(f"sha256 {part.sha256}", resumed=resumed)


class _SpeedWatch:
    """Drops a mirror that sends too little to ever end, and too much to fall silent."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since = time.monotonic()
        self._bytes = 0

    def saw(self, count: int) -> None:
        self._bytes += count
        gone = time.monotonic() - self._since
        if gone < self._patience.slow_seconds:
            return
        if self._bytes < self._patience.slow_bytes_per_second * gone:
            raise Unavailable(f"it sends {self._bytes / gone:.0f} bytes a second")
        self._since, self._bytes = time.monotonic(), 0


def _pause(seconds: float, stopped: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stopped():
            raise Interrupted("the download was stopped", hint="the next run goes on where it stopped")
        time.sleep(min(left, 0.1))


def _give_up(file: PinnedFile, found: _Findings) -> NoReturn:
    mirror = f"another mirror ({setting_name(file.archive or UPSTREAM)}=…)"
    if found.wrong:
        address, _got = next(iter(found.wrong.items()))
        raise HashMismatch(
            f"{file.name}: what was served is not the pinned file",
            where=address,
            hint=f"nothing of it was kept; try {mirror}, --from DIR, or {_AGAIN}",
            detail="\n".join(
                [f"expected sha256 {file.sha256}" + (f", {file.size} bytes" if file.size else "")]
                + [f"got {got} from {address}" for address, got in found.wrong.items()]
            ),
        )
    if found.silent:
        address, reason = next(iter(found.silent.items()))
        raise NetworkLack(
            f"no mirror answers for {file.name}: {reason}",
            where=address,
            hint=f"check the network and its proxy (https_proxy), then try again; or {mirror}, or --from DIR",
            detail="\n".join(
                [f"{address}: {reason}" for address, reason in found.silent.items()]
                + [f"{address}: not there" for address in found.gone]
            ),
        )
    raise SourceGone(
        f"{file.name} is gone: every mirror says that it is not there",
        where=found.gone[0] if found.gone else file.path,
        hint=f"give a folder that still has it: --from DIR; or {_AGAIN}",
        detail="\n".join(found.gone),
    )
