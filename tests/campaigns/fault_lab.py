"""Forges whose nth writing call fails: the shim, the deck, one case and what it must leave.

The process that uses this must itself run under the shim (``under_shim``): the forges are forked from it, so that
nothing is imported twice.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli.main import main as anvil
from anvil.cortex.db_interface import CortexDB
from anvil.mainframe import crew, forge, ops, processor_daemon  # noqa: F401 -- imported before the fork, once
from anvil.mainframe.ops import check, fetch, patch, release, run, unpack, write  # noqa: F401 -- the same
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from tests.apart import speak_into
from tests.campaigns.small_deck import SmallDeck, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

SHIM = Path(__file__).with_name("fault_shim.c")
STATE = "ANVIL_FAULT_STATE"
SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What fails: the nth call (0: none) with an errno; sticky: every later one that takes room too."""

    at: int = 0
    error: int = errno.EIO
    sticky: bool = False
    memory: int = 0
    """Bytes of address space that the forge's processes may have more than this one has; 0: any."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended. code: 128 and more for a signal."""

    code: int
    out: str
    err: str


@dataclass(kw_only=True)
class Case:
    """One fault and what came of it. problems: empty when all is as it must be."""

    fault: Fault
    failed: int = 0
    what: str = ""
    code: int = 0
    problems: list[str] = field(default_factory=list)


class State:
    """The shim's shared memory (struct state in the shim)."""

    _FORM = struct.Struct("qqqii320s320s320s")

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._FORM.size)

    @classmethod
    def make(cls, path: Path) -> None:
        """An empty state file."""
        path.write_bytes(bytes(cls._FORM.size))

    def set(self, fault: Fault, *prefixes: Path) -> None:
        """Begin counting again."""
        names = [os.fsencode(path) for path in prefixes] + [b"", b""]
        self._map[:] = self._FORM.pack(0, fault.at, 0, fault.error, fault.sticky, names[0], names[1], b"")

    def read(self) -> tuple[int, int, str]:
        """How many calls were counted, how many failed, and the first that did."""
        count, _, failed, _, _, _, _, what = self._FORM.unpack(self._map[:])
        return count, failed, what.rstrip(b"\0").decode(errors="replace")


def compiler() -> str:
    """The host's C compiler, or ""."""
    return shutil.which("cc") or shutil.which("gcc") or ""


def under_shim(folder: Path, words: list[str]) -> None:
    """Replace this process by the same one under the shim; returns at once when it is. Needs ``compiler()``."""
    if os.environ.get(STATE):
        os.environ.pop("LD_PRELOAD", None)
        return
    library = folder / "shim.so"
    subprocess.run([compiler(), "-shared", "-fPIC", "-O2", "-o", library, SHIM, "-ldl"], check=True)
    State.make(folder / "state")
    environment = {**os.environ, STATE: str(folder / "state"), "LD_PRELOAD": str(library)}
    os.execve(sys.executable, [sys.executable, *words], environment)


class Lab:
    """A folder for cases: the small deck, and an empty home that borrows base images. machines: boot some, too."""

    def __init__(self, folder: Path, images: Path, *, machines: bool = False) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.output = folder / "build_artifacts"
        self.state = State(Path(os.environ[STATE]))
        self._images = images
        self._deck = SmallDeck(folder)
        self._deck.use_locks()
        self._deck.write(Turn(nonce="1", machines=machines))
        self.fresh()
        self.state.set(Fault())
        done = self.forge()
        assert done.code == 0, done.out + done.err
        self.expected = self.artifacts()

    def fresh(self) -> None:
        """An empty home and no artifacts."""
        for path in (self.home, self.output):
            shutil.rmtree(path, ignore_errors=True)
        self.home.mkdir(mode=0o700)
        (self.home / "images").symlink_to(self._images)

    def forge(self, *, memory: int = 0) -> Ended:
        """Forge the deck."""
        return self.run(*self._deck.words(self.home, self.output), memory=memory)

    def run(self, *words: str, memory: int = 0) -> Ended:
        """Run a command of Anvil in a forked process."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                _become(words, self.home, out, err, memory)
            os._exit(99)
        code = _wait(child)
        return Ended(code=code, out=out.read_text(errors="replace"), err=err.read_text(errors="replace"))

    def artifacts(self) -> dict[str, str]:
        """The digests of what was made; of a sidecar only that it is there, for it tells how long a boot took."""
        files = [path for path in self.output.rglob("*") if path.is_file()]
        sums = (hashlib.sha256(b"" if path.suffix == ".json" else path.read_bytes()) for path in files)
        return {str(path.relative_to(self.output)): found.hexdigest() for path, found in zip(files, sums, strict=True)}

    def case(self, fault: Fault) -> Case:
        """A forge with a fault from an empty home, one without after it, and all that must then hold."""
        self.fresh()
        case = Case(fault=fault)
        self.state.set(fault, self.home, self.output)
        first = self.forge(memory=fault.memory)
        _, case.failed, case.what = self.state.read()
        self.state.set(Fault())
        case.code = first.code
        case.problems += self._first_problems(first)
        done = set(self._punched())
        second = self.forge()
        case.problems += self._second_problems(second, done)
        return case

    def _first_problems(self, first: Ended) -> list[str]:
        said = first.out + first.err
        problems = []
        if first.code not in {0, 3}:
            problems.append(f"the forge ended with {first.code}: {said[-1500:]}")
        if "Traceback" in said or "Exception ignored" in said:
            problems.append(f"a traceback: {said[-3000:]}")
        if first.code == 3 and "next:" not in said:
            problems.append(f"no mend is named: {said[-1500:]}")
        if first.code == 0 and self.artifacts() != self.expected:
            problems.append("the forge said that all is well, and the artifacts are not")
        return problems

    def _second_problems(self, second: Ended, done: set[str]) -> list[str]:
        if second.code:
            return [f"the next forge ended with {second.code}: {(second.out + second.err)[-1500:]}"]
        problems = []
        messages = [MicroJSON.decode(line) for line in second.out.splitlines()]
        again = {m["data"]["card"] for m in messages if m["@ID"] == MessageID.CARD_PUNCHED} & done
        if again:
            problems.append(f"punched, and ran again: {sorted(again)}")
        if self.artifacts() != self.expected:
            problems.append("the next forge made other artifacts")
        for words in (("audit",), ("vault", "verify")):
            told = self.run(*words)
            if told.code:
                problems.append(f"{' '.join(words)}: {(told.out + told.err)[-800:]}")
        return problems + [f"left behind: {path}" for path in self.leftovers()]

    def leftovers(self) -> list[str]:
        """Temporary files in the home and beside the artifacts."""
        places = ("cells", "vault/tmp", "workers", "downloads")
        left = [path for place in places for path in (self.home / place).iterdir()]
        left += self.output.rglob(".*")
        return [str(path.relative_to(self.folder)) for path in left]

    def _punched(self) -> list[str]:
        """The cards whose results are kept; none when the fault came before there was a cortex."""
        if not (self.home / "cortex.db").exists():
            return []
        answer = self.folder / "punched"

        def look() -> None:
            with CortexDB(self.home / "cortex.db") as db:
                answer.write_text("\n".join(stored.card for stored in db.all_results()))

        return answer.read_text().split() if in_child(look) == 0 else []


def in_child(work: Callable[[], None]) -> int:
    """Run something in a forked process; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return _wait(child)


def _become(words: tuple[str, ...], home: Path, out: Path, err: Path, memory: int) -> None:
    """Be the command line."""
    os.setpgid(0, 0)
    speak_into(*(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in (out, err)))
    os.environ["ANVIL_HOME"] = str(home)
    if memory:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    try:
        code = anvil(words)
    except BaseException:  # noqa: BLE001 - the interpreter would print it too
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _wait(child: int) -> int:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 128 + signal.SIGALRM
