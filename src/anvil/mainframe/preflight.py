"""What a build needs of the machine, looked at before anything is built: every lack with its cause and its mend.

A check is a function that returns what is well in a few words, or a Doubt where a build may go wrong or be slow, or
raises an AnvilError where it would go wrong. ``anvil doctor`` shows every check; a forge that has something to do asks
those that a build depends on, and ends with the first lack (the others are in its detail).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from anvil.cell import probe
from anvil.errors import AnvilError, EnvironmentLack, NetworkLack, SourceGone
from anvil.mainframe import doctor_disk, doctor_limits, doctor_machine, doctor_mirrors
from anvil.mainframe.doctor_machine import Doubt
from anvil.model.layer import Digest
from anvil.model.lock import PinnedFile
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from anvil.mainframe.graph import Node
    from anvil.mainframe.services import Services
    from anvil.mainframe.settings import Settings

    Check = Callable[[], str | Doubt]

OK, WARN, LACK = "ok", "warn", "lack"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found. state: "ok", "warn" or "lack". hint: what mends it; detail: lines that explain.

    error: what a lack was raised as.
    """

    name: str
    state: str
    message: str
    where: str = ""
    hint: str = ""
    detail: str = ""
    error: AnvilError | None = None

    def as_data(self) -> dict[str, Any]:
        """For a program: what is not empty."""
        return {name: value for name, value in vars(self).items() if value and name != "error"}


def look(name: str, check: Check) -> Finding:
    """One check, its answer or its error, as a finding."""
    try:
        with translated(f"looking at {name}"):
            said = check()
    except AnvilError as error:
        return Finding(
            name=name, state=LACK, message=error.message, where=error.where, hint=error.hint, detail=error.detail,
            error=error,
        )  # fmt: skip
    if isinstance(said, Doubt):
        return Finding(name=name, state=WARN, message=said.message, where=said.where, hint=said.hint)
    return Finding(name=name, state=OK, message=said)


def of_machine(settings: Settings) -> Iterator[tuple[str, Check]]:
    """What can be looked at without opening, or making, the home."""
    yield "kernel", doctor_machine.kernel
    yield "proc", doctor_machine.proc
    yield "devices", doctor_machine.devices
    yield "python", doctor_machine.python
    yield "sqlite", doctor_machine.sqlite
    yield "memory", doctor_limits.memory
    yield "limits", doctor_limits.limits
    yield "processes", doctor_limits.processes
    yield "names", doctor_machine.names
    yield "userns", partial(user_namespaces, settings)
    yield "bwrap", partial(probe.bubblewrap, settings.bwrap)


def of_disk(settings: Settings) -> Iterator[tuple[str, Check]]:
    """The home, which is there, and the folder of artifacts, which need not be."""
    yield "space", partial(doctor_disk.space, settings.home)
    yield "files", partial(doctor_disk.file_system, settings.home)
    yield "output", partial(doctor_disk.output, settings.output)


def of_clock(services: Services) -> Iterator[tuple[str, Check]]:
    """The clocks, beside the day of the lock and what the home's files say."""
    yield "clock", lambda: doctor_machine.clock(services.sources.resolved, services.home.path)


def user_namespaces(settings: Settings) -> str:
    """Whether the kernel lets this user make user namespaces. Raises CellUnavailable with the mend."""
    probe.refuse_if_forbidden(str(settings.bwrap or "bwrap"))
    probe.refuse_if_blocked()
    return "can be made"


def before_build(services: Services, files: Sequence[PinnedFile]) -> list[Finding]:
    """Raise the first lack of what a build needs of the machine, and of the mirrors for these files; else the doubts.

    Takes some ten milliseconds, a cell's start among them, and a request or two where something is to be fetched.
    """
    from anvil.image.build import find_image
    from anvil.mainframe.images import ability

    settings = services.settings
    checks = [*of_machine(settings), *of_clock(services), *of_disk(settings)]
    checks.append(("mirrors", partial(doctor_mirrors.reach, services, files)))
    found = [look(name, check) for name, check in checks]
    raise_lacks(found)
    if find_image(services.image_locks["eval"][1], services.home.images):  # else making it is the first that fails
        ability(services)
    return [finding for finding in found if finding.state == WARN]


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Where the block fails for want of something, raise what a check finds to be the cause, if one does.

    A limit or a device that lacks shows itself anywhere and in many ways: what it was met as is in the detail.
    """
    try:
        yield
    except (NetworkLack, SourceGone, BrokenPipeError):
        raise
    except (EnvironmentLack, OSError) as problem:
        checks = [*of_machine(settings), *(of_disk(settings) if settings.home.is_dir() else ())]
        try:
            raise_lacks([look(name, check) for name, check in checks])
        except AnvilError as cause:
            met = problem.message if isinstance(problem, AnvilError) else str(problem)
            if cause.message != met:
                cause.detail = "\n".join(filter(None, (cause.detail, f"met as: {met}")))
            raise cause from problem
        raise


def raise_lacks(found: Sequence[Finding]) -> None:
    """Raise the first lack as the error it was; its detail names the others."""
    lacks = [finding for finding in found if finding.error is not None]
    if not lacks or lacks[0].error is None:
        return
    error = lacks[0].error
    others = [f"also: {each.message}; {each.hint}" for each in lacks[1:]]
    error.detail = "\n".join(filter(None, (error.detail, *others)))
    raise error


def lacking(services: Services, nodes: Iterable[Node]) -> list[PinnedFile]:
    """The pinned files that these cards would have to fetch."""
    files: list[PinnedFile] = []
    for node in nodes:
        if node.op == "fetch":
            files += [PinnedFile(**file) for file in node.extra["files"]]
        elif node.op == "image":
            files += [package.file for package in services.image_locks[node.extra["name"]][1].packages]
    return [file for file in files if not services.vault.has(Digest(file.sha256))]
