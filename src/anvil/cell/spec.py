"""What a cell is, as data: nothing here touches the machine.

The paths of a :class:`CellSpec` are the host's; the cell sees ``/`` (the base image, read-only), ``/in/<name>``,
``/work``, ``/out``, ``/tmp`` and nothing else of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONTRACT = 1
"""The version of what a card may rely on inside; part of every card key, raised when results could change."""

CELL_UID = 1000
"""uid and gid of the user ``anvil`` inside."""

HOST_UID = 777000
"""The unprivileged uid and gid that a cell takes on the host when Anvil runs as root."""

MOUNT_POINTS = ("in", "work", "out", "proc", "dev", "tmp", "run")
"""Empty directories that every base image must have: the image is read-only, so they cannot be made later."""

Reason = Literal[
    "exit", "signal", "wall", "cpu", "memory", "processes", "log", "output", "disk", "scarce", "cancelled"
]  # fmt: skip
"""Why a cell ended. "exit" and "signal": by itself. "disk", "scarce": the host's disk was nearly full, or its memory
nearly gone, which is not the card's fault and must not be kept as its failure. The others: a limit of the card, or
the engine, ended it."""

MiB = 1024 * 1024
GiB = 1024 * MiB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a card may use; one that uses more is ended, and the outcome's reason says which limit it was.

    memory_bytes: of all its processes together, tmpfs included. processes: tasks (threads count). cpu_seconds: of all
    processes. output_bytes: ``/work``'s changes and ``/out`` together; one file may not be larger either, sparse or
    not. log_bytes: standard output and error together.
    """

    memory_bytes: int = 4 * GiB
    processes: int = 2048
    cpu_seconds: float = 4 * 3600
    wall_seconds: float = 3600
    output_bytes: int = 16 * GiB
    log_bytes: int = 64 * MiB


@dataclass(frozen=True, kw_only=True)
class Bind:
    """An input: a file or tree of the host, seen read-only at ``/in/<name>``."""

    name: str
    source: Path


@dataclass(frozen=True, kw_only=True)
class WorkTree:
    """What ``/work`` is made of.

    lower: trees below, the topmost first, in overlay form (whiteouts, ``user.overlay.opaque``); empty: ``upper`` is
    bound as it is. upper: receives the changes. scratch: an empty directory beside it, for overlayfs. Both are made
    if they are not there. As root their folder is made searchable for the cell's uid: it must lie in one that only
    root may enter, as the home is.
    """

    lower: tuple[Path, ...]
    upper: Path
    scratch: Path


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """A cell to be made.

    rootfs: the base image's tree. command: what to run, looked up in the cell's PATH. out: bound read-write at
    ``/out``, made if it is not there. env: added to the fixed environment, and stronger. jobserver: a FIFO of
    :class:`anvil.cell.jobserver.JobServer`. stdin: bytes for standard input (None: ``/dev/null``).
    kvm: ``/dev/kvm`` is bound in. host_uid: what root becomes (None: HOST_UID); ignored for an ordinary user.
    bwrap: a bubblewrap of the host to be used (None: the host's if new enough, else the image's). lender: an image
    whose bubblewrap that is, where rootfs is none that has one.
    writable: the image is being made: its tree is the root as it is, read-write, and must belong to the cell's uid.
    niceness: 0 to 19, of all its processes: how much it leaves to others when processors are short.
    first: the command is the cell's process 1: nobody else is inside, and when it ends all that it started ends.
    """

    rootfs: Path
    command: tuple[str, ...]
    work: WorkTree | None = None
    out: Path | None = None
    inputs: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    jobserver: Path | None = None
    stdin: bytes | None = None
    kvm: bool = False
    host_uid: int | None = None
    bwrap: Path | None = None
    lender: Path | None = None
    writable: bool = False
    niceness: int = 0
    first: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a cell ended.

    exit_code: of the command; None when it was ended from outside. signal: what killed the command, read from the
    shell's convention (exit code 128 + n), None otherwise. reason: see Reason. wall_s, cpu_s: seconds.
    max_rss_bytes: the peak of memory (under a cgroup its page cache is counted in). log_bytes: written to the log.
    fence: which means enforced the limits: "cgroup2", "cgroup1" or "watchdog" (weaker: sampled).
    """

    exit_code: int | None
    signal: int | None
    reason: Reason
    wall_s: float
    cpu_s: float
    max_rss_bytes: int
    log_bytes: int = 0
    fence: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command ended by itself, with code 0 and inside every limit."""
        return self.reason == "exit" and self.exit_code == 0
