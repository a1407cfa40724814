"""A forge in a forked process, watched by its messages, and how one of its processes is found and killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.cell import kernel
from anvil.cell.process import below, children_of
from anvil.cli.main import main as anvil
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from tests.apart import speak_into

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.campaigns.kill_plan import Kill, Target

_SUBREAPER = 36
LONGEST = 120.0
"""Seconds after which a forge of the small deck is one that does not end."""
_EVENTS = {
    "plan": MessageID.PLAN,
    "claimed": MessageID.CARD_CLAIMED,
    "punched": MessageID.CARD_PUNCHED,
    "released": MessageID.ARTIFACT_RELEASED,
}


def adopt_orphans() -> None:
    """Become the parent of every process whose parent dies below this one (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    if ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError("prctl")


@dataclass(kw_only=True)
class Landed:
    """A kill that hit. phase: what the forge was at; ops: the operations of the cards that ran."""

    target: str
    moment: str
    phase: str
    ops: list[str]
    what: str = ""
    after: float = 0.0


@dataclass(kw_only=True)
class Claim:
    """A card that a run said it runs: its key, and whether the same run had said before that the key is punched."""

    key: str
    card: str
    deck: str
    punched_before: bool


@dataclass(kw_only=True)
class Story:
    """What a run told, and how it ended.

    code: negative for a signal, None while it runs. running: the operations of the cards that run, by card. punched:
    the keys of those that it ran to their end; finished: the cards.
    """

    code: int | None = None
    verdict: str = ""
    phase: str = "start"
    running: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    punched: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    ran: int = 0
    released: int = 0
    seconds: float = 0.0
    errors: str = ""
    told: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """Its errors: those it printed and those in its messages."""
        return "\n".join([self.errors[-1500:], *self.told[-3:]]).strip()


class Run:
    """A command of Anvil's in a forked process. Whoever makes one must be the adopter of orphans."""

    def __init__(
        self, words: list[str], folder: Path, *, first: Callable[[], None] = lambda: None, longest: float = LONGEST
    ) -> None:
        """folder: for its errors and temporary files. first: called in the new process. longest: seconds after which
        it is one that does not end."""
        self.story = Story()
        self.seen: list[tuple[MessageID, dict[str, Any]]] = []
        self._errors = folder / "errors"
        self._pending = b""
        self._longest = longest
        self._began = time.monotonic()
        reader, writer = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _become(words, folder, writer, self._errors, first)
        os.close(writer)
        self._reader = reader
        self._pidfd = os.pidfd_open(self.pid)
        self._poll = select.poll()
        self._poll.register(reader, select.POLLIN)
        self._poll.register(self._pidfd, select.POLLIN)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    @property
    def ended(self) -> bool:
        """Whether its first process is gone."""
        return self.story.code is not None

    @property
    def endless(self) -> bool:
        """Whether it has taken too long."""
        return self.age > self._longest

    def pump(self, seconds: float) -> None:
        """Wait so long for messages, or for the end, and take them in."""
        ready = {fd for fd, _ in self._poll.poll(seconds * 1000)}
        if self._reader in ready:
            self._read()
        if self._pidfd in ready and self._reader not in ready:
            self._finish()

    def finish(self) -> Story:
        """Wait for its end. One that takes too long is killed, and its code is None."""
        while not self.ended and not self.endless:
            self.pump(0.1)
        if not self.ended:
            for pid in reversed(below(self.pid)):
                end(pid)
            while not self.ended:
                self.pump(0.1)
            self.story.code = None
            self.story.errors = "it did not end"
        return self.story

    def _read(self) -> None:
        data = os.read(self._reader, 1 << 16)
        if not data:
            self._poll.unregister(self._reader)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            message = MicroJSON.decode(line)
            self._take(MessageID(message["@ID"]), message["data"])

    def _take(self, number: MessageID, data: dict[str, Any]) -> None:
        story = self.story
        self.seen.append((number, data))
        card = data.get("card", "")
        if number is MessageID.PLAN:
            story.phase = "cards"
        elif number is MessageID.CARD_CLAIMED:
            story.running[card] = data["op"]
            deck = data["log"].split("/")[-2]
            known = data["key"] in story.punched
            story.claims.append(Claim(key=data["key"], card=card, deck=deck, punched_before=known))
        elif number is MessageID.CARD_PUNCHED:
            story.punched.add(data["key"])
            story.finished.add(card)
            data["op"] = story.running.pop(card, "")
            story.ran += 1
        elif number is MessageID.ARTIFACT_RELEASED:
            story.phase = "after publishing"
            story.released += 1
        elif 500 <= number < 600:
            story.told.append(f"{number.name} {card}: {data.get('message', '')} {data.get('detail', '')}"[:600])
        elif number is MessageID.FORGE_ENDED:
            story.verdict = data["verdict"]

    def _finish(self) -> None:
        for fd in (self._reader, self._pidfd):
            os.close(fd)
        _, status = os.waitpid(self.pid, 0)
        self.story.code = os.waitstatus_to_exitcode(status)
        self.story.seconds = self.age
        self.story.errors = self._errors.read_text(errors="replace")

    # ---- its processes

    def workers(self) -> list[int]:
        """Its workers, in the order they were made: copies of it that have not become another program."""
        if self.story.phase == "start":
            return []
        own = _command(self.pid)
        return sorted(pid for pid in children_of(self.pid) if _command(pid) == own)

    def find(self, target: Target, jobs: int, chance: random.Random) -> list[int]:
        """The processes that a kill of this kind hits now; none when there is no such process."""
        if target == "main":
            return [self.pid]
        if target == "all":
            found = below(self.pid)
            chance.shuffle(found)
            return found
        workers = self.workers()
        if target == "worker":
            return _one(workers[:jobs], chance)
        if target == "host worker":
            return _one(workers[jobs:], chance)
        if target == "evaluation":
            cells = [pid for pid in children_of(self.pid) if pid not in workers]
            return _one([pid for cell in cells for pid in below(cell)], chance)
        inside = [pid for worker in workers for child in children_of(worker) for pid in below(child)]
        if target == "machine":
            return [pid for pid in inside if _name(pid).startswith("qemu-system")][:1]
        return _one(inside, chance)

    def kill(self, pids: list[int]) -> bool:
        """SIGKILL; whether one of them was alive."""
        return sum(end(pid) for pid in pids) > 0


class Trigger:
    """Says when a kill is due."""

    def __init__(self, kill: Kill, *, usual: float) -> None:
        """usual: seconds that such a run takes."""
        self._kill = kill
        self._usual = usual
        self._due: float | None = None

    def wait(self, run: Run) -> bool:
        """Pump a little; whether the kill is due now."""
        kill = self._kill
        if self._due is None:
            if kill.moment == "time":
                self._due = kill.part * self._usual + kill.later
            elif self._seen(run):
                self._due = run.age + kill.later
        left = 0.02 if self._due is None else self._due - run.age
        if left <= 0:
            return True
        run.pump(min(left, 0.02))
        return False

    def _seen(self, run: Run) -> bool:
        number = _EVENTS[self._kill.event]
        return any(seen is number and self._kill.op in {"", data.get("op", "")} for seen, data in run.seen)


def strike(run: Run, kill: Kill, *, usual: float, jobs: int, chance: random.Random) -> Landed | None:
    """Let a run go on until the kill is due and its target is there, and kill; None when the run was over before."""
    trigger = Trigger(kill, usual=usual)
    while not run.ended and not run.endless and not trigger.wait(run):
        pass
    later = kill.later if kill.target in {"machine", "evaluation"} else 0.0
    landed = hit(run, kill.target, jobs=jobs, chance=chance, later=later)
    if landed is not None:
        landed.moment = kill.moment
        landed.what = f"{kill.event} {kill.op}".strip() if kill.moment == "event" else ""
    return landed


def hit(
    run: Run, target: Target, *, jobs: int, chance: random.Random, later: float = 0.0, patience: float = float("inf")
) -> Landed | None:
    """Kill as soon as the target is there; None when the run was over before.

    later: seconds between the target's appearing and its end. patience: seconds to wait for it; then None, too.
    """
    appeared = None
    until = run.age + patience
    while not run.ended and not run.endless and run.age < until:
        pids = run.find(target, jobs, chance)
        if pids and appeared is None:
            appeared = run.age
        if appeared is not None and run.age < appeared + later:
            run.pump(min(0.01, appeared + later - run.age))
            continue
        ops = sorted(set(run.story.running.values()))
        landed = Landed(target=target, moment="", phase=run.story.phase, ops=ops, after=round(run.age, 3))
        if pids and run.kill(pids):
            return landed
        run.pump(0.004)
    return None


def orphans() -> list[int]:
    """Every process below this one; ended ones are collected."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return below(os.getpid())[1:]


def describe(pid: int) -> str:
    """A process for a person."""
    words = _command(pid).replace(b"\0", b" ").decode(errors="replace")
    return f"{pid} {_name(pid)} {words[:120]}"


def _become(words: list[str], folder: Path, out: int, errors: Path, first: Callable[[], None]) -> None:
    """In the forked process: be the command line. Does not return."""
    code = 70
    try:
        os.setpgid(0, 0)
        kernel.die_with_parent(signal.SIGKILL)  # a campaign that is stopped leaves nothing behind
        speak_into(out, os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        os.environ["TMPDIR"] = str(folder / "tmp")
        first()
        code = anvil(words)
    except BaseException:  # noqa: BLE001 - the interpreter would print it too
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _one(pids: list[int], chance: random.Random) -> list[int]:
    return [chance.choice(pids)] if pids else []


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b"gone"


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "gone"


def _ours(pid: int) -> bool:
    """Whether a process descends from this one."""
    me = os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return False
        if pid == me:
            return True
    return False


def end(pid: int) -> bool:
    """Kill a process, if it is still one of ours: the number may have come again."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _ours(pid):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
