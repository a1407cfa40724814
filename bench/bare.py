"""The very bubblewrap command lines that cards' cells become, without Anvil around them.

The specification of a cell is taken from the real operation of a real card: only the last step, which would start the
cell, is replaced by one that notes it down.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest import mock

from anvil.cell import bwrap, entry, program, seccomp
from anvil.cell import run as cell
from anvil.cell.process import fork_worker
from anvil.cell.spec import HOST_UID, CellSpec, WorkTree
from anvil.cell.streams import sealed
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.context import Context
from anvil.mainframe.images import ability
from anvil.mainframe.ops import operation
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anvil.mainframe.results import StepResult
    from bench.homes import Project


class _Noted(Exception):
    """The cell would have been started now."""


def card_spec(project: Project, card: str = "") -> CellSpec:
    """What a card of the project asks of its cell ("": the first that runs a script); what it needs must be made.

    The folders and the FIFO that it names are gone: ``placed`` gives it others.
    """
    noted: list[CellSpec] = []

    def note(spec: CellSpec, _log: Path, *, cancel: Callable[[], bool]) -> NoReturn:
        del cancel
        noted.append(spec)
        raise _Noted

    with Services(project.settings) as services:
        ability(services)  # its own cells are not the card's
        architect = Architect(services)
        plan = architect.plan(architect.draw(project.recipe))
        node = next(p.node for p in plan.values() if p.node.id == card or (not card and p.node.op == "run"))
        context = Context(
            services=services, node=node, results={need: _made(plan[need].result) for need in node.needs},
            report=lambda _data: None, tick=lambda: False, log=project.top / "log",
        )  # fmt: skip
        with mock.patch.object(cell, "run", note), contextlib.suppress(_Noted):
            operation(node.op).run(context)
    return noted[0]


def _made(result: StepResult | None) -> StepResult:
    if result is None:
        raise SystemExit("what the card needs has not been forged")
    return result


def placed(spec: CellSpec, holder: Path) -> CellSpec:
    """The same cell with fresh folders and a FIFO of its own below ``holder``."""
    uid = HOST_UID if spec.host_uid is None else spec.host_uid
    out, upper, jobs = holder / "out", holder / "upper", holder / "jobs"
    holder.mkdir(parents=True)
    out.mkdir()
    upper.mkdir()
    os.mkfifo(jobs, 0o600)
    if os.geteuid() == 0:
        for path in (out, upper, jobs):
            os.chown(path, uid, uid)
    lower = spec.work.lower if spec.work else ()
    work = WorkTree(lower=lower, upper=upper, scratch=holder / "scratch")
    return replace(spec, out=out, work=work, jobserver=jobs)


@dataclass(frozen=True, kw_only=True)
class Bare:
    """Many cells to be started by bubblewrap alone. Each has empty folders and a FIFO of its own, made beforehand."""

    specs: tuple[CellSpec, ...]

    @classmethod
    def make(cls, spec: CellSpec, top: Path, count: int) -> Bare:
        """Cells like ``spec`` with their folders below ``top``."""
        return cls(specs=tuple(placed(spec, top / str(n)) for n in range(count)))

    def words(self) -> Iterator[tuple[list[str], bytes]]:
        """Of each cell: its command line, and what bubblewrap reads from the descriptor of ``--args``.

        As root the paths are those of ``stage``.
        """
        stage = self.stage()
        at = stage.at if stage else str
        names = (*bwrap.HIDDEN_PROC, *bwrap.HIDDEN_PROC_FOLDERS)
        host = bwrap.Host(
            proc=frozenset(name for name in names if os.path.lexists(f"/proc/{name}")),
            jobs=len(os.sched_getaffinity(0)),
        )
        found = program.find(self.specs[0].rootfs, self.specs[0].bwrap)
        first = [word if isinstance(word, str) else at(word) for word in found.words]
        for spec in self.specs:
            arguments, command = bwrap.split(bwrap.arguments(bwrap.plan(spec, host), at))
            yield [*first, "--args", str(bwrap.ARGS_FD), *command], arguments

    def stage(self) -> entry.Stage | None:
        """Where root's paths are bound for the unprivileged uid that a cell takes; None for an ordinary user."""
        if os.geteuid() != 0:
            return None
        spec = self.specs[0]
        found = program.find(spec.rootfs, spec.bwrap)
        programs = (word for word in found.words if isinstance(word, Path))
        return entry.Stage.of((spec.rootfs, self.folder, *programs))

    @property
    def folder(self) -> Path:
        """The folder of all the cells' folders."""
        if self.specs[0].out is None:
            raise ValueError("a card's cell has a folder /out")
        return self.specs[0].out.parents[1]

    def run(self, lanes: int) -> float:
        """Start them all, ``lanes`` at a time; seconds from the first start to the last end."""
        lines = list(self.words())
        return apart(self, lambda: _spawn_all(lines, lanes))


def apart(bare: Bare, work: Callable[[], float]) -> float:
    """What ``work`` gives in a child that has done once what each cell of Anvil does before it is bubblewrap."""
    stage, uid = bare.stage(), bare.specs[0].host_uid
    reader, writer = os.pipe()

    def inside() -> int:
        if stage is not None:
            taken = HOST_UID if uid is None else uid
            stage.build(taken)
            os.setgroups([])
            os.setresgid(taken, taken, taken)
            os.setresuid(taken, taken, taken)
        os.chdir("/")
        os.write(writer, repr(work()).encode())
        return 0

    child = fork_worker(inside)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    child.reap()
    if child.exit_code:
        raise SystemExit(f"bare bubblewrap ended with {child.exit_code}")
    return float(said)


def _spawn_all(lines: list[tuple[list[str], bytes]], lanes: int) -> float:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    running = 0
    began = time.monotonic()
    for argv, arguments in lines:
        if running == lanes:
            _reap()
            running -= 1
        rules, arguments_fd = sealed(seccomp.program()), sealed(arguments)
        wanted = {0: null, 1: null, 2: 2, bwrap.STATUS_FD: null, bwrap.SECCOMP_FD: rules, bwrap.ARGS_FD: arguments_fd}
        # first to numbers that no target has: a dup2 must not close what another one still needs
        parked = {number: os.dup2(fd, 100 + number, inheritable=True) for number, fd in wanted.items()}
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in parked.items()]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in parked.values()]
        os.posix_spawn(argv[0], argv, {}, file_actions=actions)
        running += 1
        os.close(rules)
        os.close(arguments_fd)
    while running:
        _reap()
        running -= 1
    return time.monotonic() - began


def _reap() -> None:
    _, status = os.wait()
    if status:
        raise SystemExit(f"bubblewrap ended with {os.waitstatus_to_exitcode(status)}")
