"""Run a command in a cell, and say how it ended.

A cell is watched by :meth:`Cell.tick`, which its owner must call until it says how the cell ended; :func:`run` and
:func:`exchange` do so themselves. Whatever happens to the owner, the cell's processes end with it.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cell import bwrap, entry, limits, program
from anvil.cell.process import Launch, user_pids_possible
from anvil.cell.process import start as start_process
from anvil.cell.running import TICK, Cell
from anvil.cell.spec import HOST_UID, MOUNT_POINTS
from anvil.cell.streams import open_streams
from anvil.errors import CellUnavailable, DiskFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anvil.cell.process import Pids
    from anvil.cell.spec import CellSpec, Outcome

_BLOCK = 1 << 16


def describe(spec: CellSpec) -> str:
    """The operations that make the cell, one a line, and what holds it to its limits."""
    uid = f"uid {spec.host_uid or HOST_UID} on the host" if os.geteuid() == 0 else "this user's uid on the host"
    lines = [f"{uid}; limits by {limits.survey().kind}", *map(str, bwrap.plan(spec, _host()))]
    return "\n".join(lines)


def run(spec: CellSpec, log: Path, *, cancel: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a cell to its end, its standard output and error going to the file ``log`` as they are.

    ``cancel`` is asked every TICK seconds; the cell is ended when it says yes. Raises CellUnavailable when the cell
    could not be made. When an exception (an interrupt, for instance) leaves this function, the cell is gone.
    """
    with _started(spec, log=log, streams=False) as cell:
        while (outcome := cell.tick(TICK)) is None:
            if cancel():
                cell.end("cancelled")
        return outcome


def start(spec: CellSpec, log: Path) -> Cell:
    """Start a cell whose standard input and output are the owner's (``cell.stdin``, ``cell.stdout``).

    Errors go to ``log``. Use it as a context manager: on leaving, the cell is gone. The owner calls ``tick`` or
    ``wait`` at least every second or so, else nobody sees to the limits.
    """
    return _started(spec, log=log, streams=True)


def enter(spec: CellSpec, log: Path, terminal: int) -> Cell:
    """Start a cell whose standard input, output and error are ``terminal``: the cell's end of a pseudo-terminal.

    It must be one made for this cell, never the caller's own: see :mod:`anvil.cell.terminal`, which watches over the
    cell too. ``log`` is made, and stays empty. As a context manager it ends the cell.
    """
    return _started(spec, log=log, streams=False, terminal=terminal)


def exchange(
    spec: CellSpec, log: Path, *, cap: int, cancel: Callable[[], bool] = lambda: False
) -> tuple[Outcome, bytes]:
    """Run a cell that turns ``spec.stdin`` into at most ``cap`` bytes of standard output; errors go to ``log``.

    More than ``cap`` bytes end the cell with reason "output".
    """
    said = bytearray()
    with _started(spec, log=log, streams=True) as cell:
        os.close(cell.take_stdin())
        outcome = None
        while outcome is None:
            outcome = cell.tick(TICK, also=cell.stdout)
            while len(said) <= cap and (block := cell.read(_BLOCK)):
                said += block
            if len(said) > cap:
                cell.end("output")
            if cancel():
                cell.end("cancelled")
    if len(said) > cap:  # it may have ended before it could be ended
        outcome = replace(outcome, reason="output", exit_code=None)
    return outcome, bytes(said[:cap])


@functools.cache
def _host() -> bwrap.Host:
    names = (*bwrap.HIDDEN_PROC, *bwrap.HIDDEN_PROC_FOLDERS)
    proc = frozenset(name for name in names if os.path.lexists(f"/proc/{name}"))
    return bwrap.Host(proc=proc, jobs=len(os.sched_getaffinity(0)))


def _started(spec: CellSpec, *, log: Path, streams: bool, terminal: int | None = None) -> Cell:
    uid = (HOST_UID if spec.host_uid is None else spec.host_uid) if os.geteuid() == 0 else None
    _require_mount_points(spec)
    found = program.find(spec.lender or spec.rootfs, spec.bwrap)
    plan = bwrap.plan(spec, _host())
    stage = entry.Stage.of(_to_stage(plan, found)) if uid is not None else None
    at = stage.at if stage else str
    user: Pids = "user" if user_pids_possible() else "shared"
    pids: Pids = user if uid is None else "own"
    arguments, command = bwrap.split(bwrap.arguments(plan, at, laid=pids != "shared"))
    words = [word if isinstance(word, str) else at(word) for word in found.words]
    with ExitStack() as undo, _translated(spec):
        _prepare(spec, uid)
        fence = limits.build(limits.survey(), spec.limits, niceness=spec.niceness)
        undo.callback(fence.remove)
        opened = open_streams(spec, log, arguments, streams=streams, terminal=terminal)
        undo.callback(opened.close)
        launch = Launch(
            argv=[*words, "--args", str(bwrap.ARGS_FD), *command],
            title=entry.title(),
            env={},
            fds=opened.child,
            enter=entry.Entry(
                fence=fence,
                limits=spec.limits,
                uid=uid,
                stage=stage,
                overlay=None if pids == "shared" else _overlay(spec, at),
                apart=pids != "shared",
                niceness=spec.niceness,
            ),
            pids=pids,
        )
        cell = Cell(spec, start_process(launch), fence, opened, shared=pids == "shared")
        undo.pop_all()
    opened.close_child()
    return cell


@contextmanager
def _translated(spec: CellSpec) -> Iterator[None]:
    """Turn what the operating system says while a cell is being made into Anvil's errors."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or spec.rootfs)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("no space is left to make a cell", where=where, hint="free some space") from error
        raise CellUnavailable(
            f"the cell could not be made: {error.strerror}", where=where, hint="run: anvil doctor"
        ) from error


def _overlay(spec: CellSpec, at: Callable[[Path], str]) -> entry.Overlay | None:
    if spec.work is None or not spec.work.lower:
        return None
    return entry.Overlay(
        lower=tuple(map(at, spec.work.lower)), upper=at(spec.work.upper), scratch=at(spec.work.scratch)
    )


def _to_stage(plan: tuple[bwrap.Operation, ...], found: program.Bubblewrap) -> tuple[Path, ...]:
    """The host paths that must be reachable.

    overlayfs wants upper and scratch on one mount, so the folder that holds both is staged.
    """
    holders = [op.paths[0].parent for op in plan if op.act == "overlay"]
    return (*holders, *bwrap.sources(plan), *(word for word in found.words if isinstance(word, Path)))


def _require_mount_points(spec: CellSpec) -> None:
    for name in () if spec.writable else MOUNT_POINTS:
        if not os.path.isdir(spec.rootfs / name):
            raise CellUnavailable(
                f"the base image has no folder /{name}", where=str(spec.rootfs), hint="make the base image again"
            )


def _prepare(spec: CellSpec, uid: int | None) -> None:
    """Make what the cell writes into."""
    folders = [spec.out] if spec.out else []
    if spec.work:
        folders += [spec.work.upper, *([spec.work.scratch] if spec.work.lower else [])]
    for folder in folders:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o755)
            if uid is not None:
                os.chown(folder, uid, uid)
    if uid is not None and spec.work and spec.work.lower:
        holder = spec.work.upper.parent  # the cell's uid must reach upper through it; 0700 folders above protect it
        mode = stat.S_IMODE(os.stat(holder).st_mode)
        if not mode & stat.S_IXOTH:
            os.chmod(holder, mode | stat.S_IXOTH)
