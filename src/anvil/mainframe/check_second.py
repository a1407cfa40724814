"""The second making of a check: a process of its own, in which all is different that should not matter.

It is another Python (with another seed for its hashes), and it is told everything over its standard input: an
environment is not handed on, and cells have a fixed one anyway. What it says goes to its standard output, one line of
canonical JSON for each call of a face and one for how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell import kernel
from anvil.cell.process import own_user_namespace, user_pids_possible
from anvil.cell.spec import HOST_UID
from anvil.errors import AnvilError
from anvil.mainframe.forge import Forge
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import canonical, parse_canonical
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anvil.microjson.registry import MessageID

OTHER_UID = HOST_UID + 111
"""What cells are on the host in the second making, when Anvil runs as root."""

OTHER_HOST = "another-anvil"
AHEAD_SECONDS = 40 * 24 * 3600
_UMASKS = (0o077, 0o022)

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "USER": "another",
    "TZ": "Pacific/Chatham",
    "LC_ALL": "tr_TR.UTF-8",
}


def other_settings(settings: Settings, home: Path, narrow: frozenset[str]) -> Settings:
    """What the second making is told: another home and uid, one job more, and nothing that would be kept."""
    return replace(
        settings,
        home=home,
        output=home / "build_artifacts",
        jobs=min(settings.jobs + 1, 1024),
        offline=True,
        forced=frozenset(),
        cell_uid=OTHER_UID if settings.cell_uid != OTHER_UID else HOST_UID,
        narrow=narrow,
    )


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a process was started in; two of them show what was varied. To be asked before a home is opened."""

    host: str
    umask: int
    clock: str

    @classmethod
    def now(cls) -> Surroundings:
        """Those of this process."""
        umask = os.umask(0o077)
        os.umask(umask)
        clock = "/proc/self/ns/time"
        return cls(host=os.uname().nodename, umask=umask, clock=os.readlink(clock) if os.path.lexists(clock) else "")


def leave(before: Surroundings) -> Callable[[], None]:
    """What the child does before it becomes another Python: another umask, host name and monotonic clock.

    The last two need namespaces of its own; where a user may not have them they stay as they are. The clock that
    counts since the start of the machine is left alone: by it cells are told from those of dead makers.
    """
    wanted = next(mask for mask in _UMASKS if mask != before.umask)

    def enter() -> None:
        os.umask(wanted)
        with contextlib.suppress(OSError):
            _own_namespace(kernel.CLONE_NEWUTS)
            socket.sethostname(OTHER_HOST)
        with contextlib.suppress(OSError):
            _own_namespace(kernel.CLONE_NEWTIME)  # which the next program is in
            with open("/proc/self/timens_offsets", "w", encoding="ascii") as file:
                file.write(f"monotonic {AHEAD_SECONDS} 0\n")

    return enter


def _own_namespace(kind: int) -> None:
    """Go into a new one; OSError where that may not be."""
    if os.geteuid() == 0:
        kernel.unshare(kind)
    elif user_pids_possible():
        own_user_namespace(kind)


def program() -> tuple[str, ...]:
    """The words that start the second making with the modules of this process."""
    start = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    return (sys.executable, "-I", "-c", start)


def request(settings: Settings, recipe: str) -> bytes:
    """What is written to its standard input."""
    told: dict[str, Any] = {}
    for name, value in vars(settings).items():
        if isinstance(value, Path):
            told[name] = str(value)
        elif isinstance(value, frozenset):
            told[name] = sorted(value)
        else:
            told[name] = dict(value) if name == "mirrors" else value
    return canonical({"recipe": recipe, "settings": told})


def settings_of(told: dict[str, Any]) -> Settings:
    """The settings that a request tells."""
    paths = {name: Path(told[name]) for name in ("home", "output", "project", "from_dir", "bwrap") if told[name]}
    sets = {name: frozenset(told[name]) for name in ("forced", "narrow")}
    return Settings(**{**told, **paths, **sets})


class _Told:
    """A face that passes on what it is told."""

    def note(self, text: str) -> None:
        _say({"note": text})

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        _say({"begin": {"total": total, "kept": kept, "estimates": dict(estimates)}})

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        _say({"event": [int(number), data]})

    def idle(self) -> None:
        """The parent repaints by itself."""


def _say(what: dict[str, Any]) -> None:
    line = canonical(what) + b"\n"
    while line:
        line = line[os.write(1, line) :]


def main() -> None:
    """Read what is to be made, make it, and say how that ended."""
    stop = False

    def on_term(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_term)
    inside = Surroundings.now()
    time.tzset()
    told = parse_canonical(sys.stdin.buffer.read())
    settings = settings_of(told["settings"])
    try:
        with translated("making it a second time", settings.home):
            outcome = Forge(settings, _Told(), stopped=lambda: stop).run(told["recipe"])
        jams = [{**vars(jam), "tail": list(jam.tail)} for jam in outcome.jams]
        _say({"ended": {"jams": jams, "in": vars(inside)}})
    except AnvilError as error:
        _say({"error": {"id": error.message_id, **error.as_data()}})
