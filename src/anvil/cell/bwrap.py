"""From a specification to a list of operations that can be printed, and from there to bubblewrap's arguments.

Pure: what must be known of the host comes in as :class:`Host`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anvil.cell.spec import CELL_UID, MiB
from anvil.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anvil.cell.spec import CellSpec

STATUS_FD, SECCOMP_FD, ARGS_FD = 3, 4, 5
"""Descriptors that bubblewrap is started with, above the standard three."""

HIDDEN_PROC = ("cmdline", "diskstats", "kallsyms", "key-users", "keys", "modules", "partitions", "sched_debug")
"""Files of /proc that tell of the host, that anyone may read, and that no build needs; seen empty. (Those that only
root may read stay so: no id of the cell is the host's root.)"""

HIDDEN_PROC_FOLDERS = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi")

FIXED_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp/home",  # noqa: S108 -- the cell's own
    "USER": "anvil",
    "LOGNAME": "anvil",
    "SHELL": "/bin/bash",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TERM": "dumb",
    "SOURCE_DATE_EPOCH": "1767225600",  # 2026-01-01: one date for all, told by no clock
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the plan needs to know of the machine.

    proc: which of HIDDEN_PROC and HIDDEN_PROC_FOLDERS it has. jobs: processors that a cell may count on.
    """

    proc: frozenset[str]
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step of making a cell.

    act: what is done. to: where in the cell. source: a path of the host. more: sizes, values, further host paths of
    an overlay (upper, scratch).
    """

    act: Literal[
        "isolate", "read-only", "read-write", "overlay", "proc", "dev", "device", "tmpfs", "folder", "freeze",
        "env", "enter", "filter", "run",
    ]  # fmt: skip
    to: str = ""
    source: Path | None = None
    more: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()

    def __str__(self) -> str:
        words = [self.act, self.to, *([f"<- {self.source}"] if self.source else [])]
        words += [f"[{path}]" for path in self.paths]
        words += [shlex.quote(word) for word in self.more]
        return " ".join(word for word in words if word)


def plan(spec: CellSpec, host: Host) -> tuple[Operation, ...]:
    """The operations that make the cell, in order. Raises RecipeError for words that no cell may have."""
    _judge(spec)
    return tuple(_operations(spec, host))


def _judge(spec: CellSpec) -> None:
    """Refuse what could mean something else to bubblewrap or the kernel than it says."""
    for bind in spec.inputs:
        if not _INPUT.fullmatch(bind.name):
            raise RecipeError(
                f"an input may not be called {bind.name!r}", hint="letters, digits and ._+- only, not a dot first"
            )
    for name, value in spec.env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise RecipeError(f"an environment variable may not be {name!r}={value!r}")
    if not spec.command:
        raise RecipeError("a cell needs a command")
    for word in spec.command:
        if len(_encoded(word)) >= _LONGEST:
            raise RecipeError(
                f"a word of the command is longer than {_LONGEST // 1024} KiB, which the kernel does not take",
                hint="put long texts into a file beside the recipe, and name it as an input",
            )


def _operations(spec: CellSpec, host: Host) -> Iterator[Operation]:
    yield Operation(act="isolate", more=("first",) if spec.first else ())
    yield Operation(act="read-write" if spec.writable else "read-only", to="/", source=spec.rootfs)
    yield from _proc(spec, host)
    yield from _scratch(spec)
    yield from _trees(spec)
    for name, value in sorted(environment(spec, host).items()):
        yield Operation(act="env", to=name, more=(value,))
    yield Operation(act="enter", to="/work" if spec.work else "/")
    yield Operation(act="filter", more=(str(SECCOMP_FD),))
    yield Operation(act="run", more=spec.command)


def _proc(spec: CellSpec, host: Host) -> Iterator[Operation]:
    yield Operation(act="proc", to="/proc")
    yield Operation(act="read-only", to="/proc/sys", source=Path("/proc/sys"))
    for name in HIDDEN_PROC:
        if name in host.proc:
            yield Operation(act="read-only", to=f"/proc/{name}", source=Path("/dev/null"))
    for name in HIDDEN_PROC_FOLDERS:
        if name in host.proc and not spec.writable:
            yield Operation(act="read-only", to=f"/proc/{name}", source=spec.rootfs / "proc")  # an empty folder
    # Process 1 belongs to the cell's maker and has the command's uid: its memory could be rewritten, its descriptors
    # opened (how the command ended is told by one of them), and its command line names paths of the host.
    yield Operation(act="tmpfs", to="/proc/1", more=("4096", "0555"))
    yield Operation(act="freeze", to="/proc/1")


def _scratch(spec: CellSpec) -> Iterator[Operation]:
    half = max(64 * MiB, spec.limits.memory_bytes // 2)
    yield Operation(act="dev", to="/dev")
    yield Operation(act="tmpfs", to="/dev/shm", more=(str(half), "1777"))  # noqa: S108 -- the cell's own
    if spec.kvm:
        yield Operation(act="device", to="/dev/kvm", source=Path("/dev/kvm"))
    yield Operation(act="freeze", to="/dev")
    yield Operation(act="tmpfs", to="/tmp", more=(str(half), "1777"))  # noqa: S108 -- the cell's own
    yield Operation(act="folder", to="/tmp/home")  # noqa: S108 -- the cell's own
    yield Operation(act="tmpfs", to="/run", more=(str(16 * MiB), "0755"))
    if spec.jobserver:
        yield Operation(act="read-only", to="/run/anvil/jobserver", source=spec.jobserver)


def _trees(spec: CellSpec) -> Iterator[Operation]:
    if spec.inputs:
        yield Operation(act="tmpfs", to="/in", more=(str(MiB), "0755"))
        for bind in spec.inputs:
            yield Operation(act="read-only", to=f"/in/{bind.name}", source=bind.source)
        yield Operation(act="freeze", to="/in")
    if spec.work and spec.work.lower:
        paths = (spec.work.upper, spec.work.scratch, *reversed(spec.work.lower))
        yield Operation(act="overlay", to="/work", paths=paths)
    elif spec.work:
        yield Operation(act="read-write", to="/work", source=spec.work.upper)
    if spec.out:
        yield Operation(act="read-write", to="/out", source=spec.out)


def environment(spec: CellSpec, host: Host) -> dict[str, str]:
    """The whole environment of the command."""
    env = FIXED_ENV | {"JOBS": str(host.jobs)}
    if spec.jobserver:
        env["MAKEFLAGS"] = "--jobserver-auth=fifo:/run/anvil/jobserver -j"
    return env | dict(spec.env)


def sources(operations: tuple[Operation, ...]) -> tuple[Path, ...]:
    """The host paths that the operations need, each once, in order."""
    paths = [path for op in operations for path in (*op.paths, op.source) if path]
    return tuple(dict.fromkeys(paths))


def arguments(operations: tuple[Operation, ...], at: Callable[[Path], str] = str, *, laid: bool = False) -> list[str]:
    """Bubblewrap's arguments; ``at`` tells where a host path is seen by bubblewrap.

    laid: the overlay has been laid over its upper tree before (see entry.Overlay), and is only bound.
    """
    argv: list[str] = []
    for operation in operations:
        if laid and operation.act == "overlay":
            argv += ["--bind", at(operation.paths[0]), operation.to]
        else:
            argv += _ARGUMENTS[operation.act](operation, at)
    return argv


def split(argv: list[str]) -> tuple[bytes, list[str]]:
    """Arguments parted into what goes through ``--args`` and the command, which stays.

    A cell can read its first process's command line, and should not learn the host's paths from it.
    """
    cut = argv.index("--")
    return b"".join(_encoded(word) + b"\0" for word in argv[:cut]), argv[cut:]


def _encoded(word: str) -> bytes:
    """A word's bytes, as the kernel gets them. A NUL would end it early, and begin an argument of the recipe's own."""
    if "\0" in word:
        raise RecipeError("a word of a cell holds a NUL byte", where=repr(word[:80]))
    try:
        return word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise RecipeError("a word of a cell is not text", where=repr(word[:80])) from error


_INPUT = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,199}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_LONGEST = 128 * 1024  # MAX_ARG_STRLEN, with the NUL at the end

_ISOLATE: tuple[str, ...] = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup",
    "--disable-userns", "--uid", str(CELL_UID), "--gid", str(CELL_UID), "--hostname", "anvil", "--cap-drop", "ALL",
    "--new-session", "--die-with-parent", "--clearenv", "--json-status-fd", str(STATUS_FD),
)  # fmt: skip


def _overlay(operation: Operation, at: Callable[[Path], str]) -> list[str]:
    upper, scratch, *lower = map(at, operation.paths)
    words = [word for path in lower for word in ("--overlay-src", path)]
    return [*words, "--overlay", upper, scratch, operation.to]


_ARGUMENTS: dict[str, Callable[[Operation, Callable[[Path], str]], list[str]]] = {
    "isolate": lambda op, _at: [*_ISOLATE, *(["--as-pid-1"] if op.more else [])],
    "read-only": lambda op, at: ["--ro-bind", at(_source(op)), op.to],
    "read-write": lambda op, at: ["--bind", at(_source(op)), op.to],
    "device": lambda op, at: ["--dev-bind", at(_source(op)), op.to],
    "overlay": _overlay,
    "proc": lambda op, _at: ["--proc", op.to],
    "dev": lambda op, _at: ["--dev", op.to],
    "tmpfs": lambda op, _at: ["--size", op.more[0], "--perms", op.more[1], "--tmpfs", op.to],
    "folder": lambda op, _at: ["--dir", op.to],
    "freeze": lambda op, _at: ["--remount-ro", op.to],
    "env": lambda op, _at: ["--setenv", op.to, op.more[0]],
    "enter": lambda op, _at: ["--chdir", op.to],
    "filter": lambda op, _at: ["--seccomp", op.more[0]],
    "run": lambda op, _at: ["--", *op.more],
}


def _source(operation: Operation) -> Path:
    if operation.source is None:
        raise ValueError(f"the operation {operation.act} needs a source")
    return operation.source
