"""A forge that has nothing to do, known as such by looking at files from outside.

After a forge that ended well a record is kept in the home: how every path that the answer depends on looked (device,
inode, mode, owner, size, times), and the answer. While all of them look the same, the answer is the same, and nothing
of what was recorded has to be opened. ``docs/adr/0019-no-op.md`` says what is recorded, and why that is enough; this
module imports next to nothing, since its imports are most of what a forge with nothing to do costs.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anvil
from anvil.mainframe.outcome import Outcome, Published, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anvil.mainframe.settings import Settings

FORMAT = 1
_KEPT = 100  # records of a home: one for each way in which forges are asked for
_LIFE = 3600 * 1_000_000_000
"""A record holds for so long (nanoseconds): then the use of what is kept is noted in the cortex again."""
_LEAP = 1_000_000_000
"""What a clock may have been set forward or back since (nanoseconds) before nothing is believed any more."""
_LARGEST = 64 * 1024 * 1024

_TICK = 25_000_000
"""The kernel stamps files by a clock that stands still for up to 10 ms (a tick at 100 Hz); more than twice that."""
_COARSE_TICK = 2_100_000_000
"""The same where times are coarse: FAT has two seconds."""
_COARSE = 10_000_000
"""Times that are whole multiples of this (nanoseconds) come from a file system with coarse ones."""

PACKAGE = Path(anvil.__file__).parent

Facts = dict[str, str]
"""Paths, and how each looked; "-": there was nothing."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How things looked. files: in every respect. blobs: but for their marks. places: but for what lies in them.

    A blob of the vault gets another time of use without being changed: the whole seconds of its mtime (see
    vault/generation.py), and with them its ctime. A place is a folder that others may put things into.
    """

    files: Facts
    blobs: Facts
    places: Facts


def recall(settings: Settings, recipe: str) -> Outcome | None:
    """What a forge would come to, if it has nothing to do and that is certain; nothing is written.

    None is no answer: whatever is in doubt, the forge itself finds out.
    """
    try:
        record = _read(_path(settings, recipe))
        if record is None or record["told"] != _told(settings, recipe) or not _of_this_time(record["clock"]):
            return None
        free = os.statvfs(settings.home)
        if free.f_bavail * free.f_frsize < record["least_free"] or not _is_quiet(settings.home):
            return None
        if not unchanged(Seen(**record["seen"])):
            return None
        return _outcome(settings, record["outcome"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def unchanged(seen: Seen) -> bool:
    """Whether all still looks as it did."""
    return (
        all(whole(path) == facts for path, facts in seen.files.items())
        and all(unmarked(path) == facts for path, facts in seen.blobs.items())
        and all(place(path) == facts for path, facts in seen.places.items())
    )


# ---- how a path looks


def whole(path: str) -> str:
    """All that a change of a file or folder changes; the kernel sets ctime, and nobody else can."""
    found = _stat(path)
    return "-" if found is None else _whole(found)


def unmarked(path: str) -> str:
    """The same of a blob, but for its mark."""
    found = _stat(path)
    if found is None:
        return "-"
    return f"{found.st_dev} {found.st_ino} {found.st_mode} {found.st_size} {found.st_mtime_ns % 1_000_000_000}"


def place(path: str) -> str:
    """Which folder it is, whose, and who may use it."""
    found = _stat(path)
    return "-" if found is None else f"{found.st_dev} {found.st_ino} {found.st_mode} {found.st_uid}"


def _whole(found: os.stat_result) -> str:
    return (
        f"{found.st_dev} {found.st_ino} {found.st_mode} {found.st_uid} {found.st_gid} {found.st_size} "
        f"{found.st_mtime_ns} {found.st_ctime_ns}"
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def looks(paths: Iterable[str]) -> tuple[Facts, int]:
    """How files and folders look; and the moment (nanoseconds) from which on any change of them is sure to show.

    What changed within the tick in which it is looked at could change again without looking any different (git calls
    it racily clean). The moment is the last change plus such a tick; a look taken after it is one to rely on.
    """
    facts: Facts = {}
    moment = 0
    for path in paths:
        found = _stat(path)
        facts[path] = "-" if found is None else _whole(found)
        if found is not None:
            tick = _TICK if found.st_ctime_ns % _COARSE else _COARSE_TICK
            moment = max(moment, found.st_ctime_ns + tick)
    return facts, moment


# ---- what a forge reads


def inputs(settings: Settings) -> Iterator[str]:
    """Every file and folder that says what is to be made: Anvil itself with its recipes and locks, and the project.

    All of what could be meant, not only what was: a new recipe may hide another. Links are not followed (a recipe that
    is one is refused), but that a project or its recipes/ may be one: then both it and what it leads to are inputs.
    """
    yield from _below(str(PACKAGE), skip="__pycache__")
    if settings.project is not None:
        yield from _below(str(settings.project), deep=False)
        yield from _below(str(settings.project / "recipes"))


def _below(folder: str, *, skip: str = "", deep: bool = True) -> Iterator[str]:
    yield folder
    yield f"{folder}/."  # the folder itself, when it is reached by a link
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir(follow_symlinks=False):
            yield entry.path
        elif deep and entry.name != skip:
            yield from _below(entry.path, skip=skip)


# ---- the record


def write(settings: Settings, recipe: str, seen: Seen, outcome: Outcome, *, least_free: int) -> None:
    """Keep a record, whole or not at all. least_free: bytes; with fewer free ones a forge says so. Raises OSError."""
    record = {
        "format": FORMAT,
        "told": _told(settings, recipe),
        "clock": _clock(),
        "least_free": least_free,
        "seen": vars(seen),
        "outcome": {
            "kept": outcome.ran + outcome.kept,
            "artifacts": [[str(each.path), each.sha256, each.size] for each in outcome.artifacts],
            "verdicts": [[each.card, each.text] for each in outcome.verdicts],
            "contested": list(outcome.contested),
        },
    }
    path = _path(settings, recipe)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_text(json.dumps(record), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    entries = sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
    for path in entries[_KEPT:]:
        path.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > _LARGEST:
            return None
        record = json.loads(file.read())
    return record if record["format"] == FORMAT else None


def _path(settings: Settings, recipe: str) -> Path:
    name = hashlib.sha256(json.dumps(_told(settings, recipe)).encode()).hexdigest()
    return settings.home / "noop" / f"{name[:32]}.json"


def _told(settings: Settings, recipe: str) -> dict[str, str]:
    """Everything that is the same for one record: what was asked for, by whom, of which Anvil on which Python.

    The number of jobs is left out: it says how a card is run, and none is.
    """
    told = {name: _text(value) for name, value in sorted(vars(settings).items()) if name != "jobs"}
    own = {"recipe": recipe, "uid": str(os.geteuid()), "anvil": anvil.__version__, "python": sys.version}
    return {**told, **{f"own {name}": value for name, value in own.items()}, "own prefix": sys.prefix}


def _text(value: object) -> str:
    if isinstance(value, frozenset):
        return repr(sorted(value))
    return repr(sorted(value.items())) if isinstance(value, dict) else repr(value)


def _clock() -> dict[str, Any]:
    return {"wall": time.time_ns(), "since_boot": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "boot": _boot()}


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _of_this_time(then: Mapping[str, Any]) -> bool:
    """Whether the record is young, of this start of the machine, and no clock was set meanwhile."""
    now = _clock()
    gone, wall = now["since_boot"] - then["since_boot"], now["wall"] - then["wall"]
    return bool(now["boot"] == then["boot"] and 0 <= gone < _LIFE and abs(wall - gone) < _LEAP)


def _is_quiet(home: Path) -> bool:
    """Whether no process died here leaving something that the next forge takes up: its workers, its cells."""
    tokens = {*os.listdir(home / "workers"), *(name.partition("-")[0] for name in os.listdir(home / "cells"))}
    if not tokens:
        return True
    from anvil.mainframe import liveness

    return not any(liveness.is_dead(home / "workers", token) for token in tokens)


def _outcome(settings: Settings, data: Mapping[str, Any]) -> Outcome:
    artifacts = tuple(
        Published(path=Path(path), sha256=sha256, size=size, written=False) for path, sha256, size in data["artifacts"]
    )
    if not all(each.path.is_relative_to(settings.output) for each in artifacts):
        raise ValueError(artifacts)
    return Outcome(
        deck="",
        ran=0,
        kept=int(data["kept"]),
        artifacts=artifacts,
        verdicts=tuple(Verdict(card=card, text=text) for card, text in data["verdicts"]),
        contested=tuple(data["contested"]),
    )
