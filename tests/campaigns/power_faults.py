"""Failing disks under the cortex: one call of SQLite's, or of ours, fails, or all of them from then on.

The lives are those of ``power_cortex``, without cuts: the nth write, sync, truncation, opening or renaming gives EIO
or ENOSPC. What fails must be told as a lack of the machine, with a next step; nothing acknowledged may be lost,
neither for who opens the cortex next nor when the power is cut afterwards: after a failed sync the simulated disk,
like Linux, shows what it does not have.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import apsw

from anvil.cortex import walsize
from anvil.cortex.db_interface import CortexDB
from anvil.errors import AnvilError, DiskFull, EnvironmentLack
from tests.campaigns.power_cortex import CONNECTIONS, OPERATE, Life, Told, judge, lacking, memory, templates
from tests.campaigns.power_disk import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = 14
CUTS = 1.5
"""After the fault the power is cut after so many of a hundred calls."""

_EXTENDED = {
    "xWrite": apsw.SQLITE_IOERR_WRITE,
    "xSync": apsw.SQLITE_IOERR_FSYNC,
    "xSync, the folder": apsw.SQLITE_IOERR_DIR_FSYNC,
    "xTruncate": apsw.SQLITE_IOERR_TRUNCATE,
    "xDelete": apsw.SQLITE_IOERR_DELETE,
    "xDelete, the folder": apsw.SQLITE_IOERR_DIR_FSYNC,
}


@dataclass(kw_only=True)
class Fault:
    """The call number ``at``, counted from 1, fails with ``error``; sticky: so do all that follow.

    name: only calls of this name count ("": all).
    """

    at: int
    error: int
    sticky: bool = False
    name: str = ""
    calls: int = 0
    failed: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        """A call is made: fail it if it is the one. A sticky ENOSPC leaves syncs and removals alone."""
        self.calls += self.name in {"", name}
        if self.name not in {"", name} or self.calls < self.at or (self.calls > self.at and not self.sticky):
            return
        frees = self.sticky and self.error == errno.ENOSPC and self.calls > self.at
        if frees and name in {"xSync", "sync file", "sync folder", "xTruncate", "xDelete", "remove"}:
            return
        self.failed.append(name)
        raise self._wrong(name)

    def _wrong(self, name: str) -> Exception:
        if not name.startswith("x"):
            return OSError(self.error, os.strerror(self.error))
        if name == "xOpen":
            return apsw.CantOpenError("simulated")
        if self.error == errno.ENOSPC and name == "xWrite":
            return apsw.FullError("simulated")
        wrong: Any = apsw.IOError("simulated")
        wrong.extendedresult = _EXTENDED[name]
        return wrong  # type: ignore[no-any-return]


@dataclass(kw_only=True)
class FaultyLife(Life):
    """A life in which what fails is noted, and the others go on."""

    errors: list[AnvilError] = field(default_factory=list)

    def live(self) -> None:
        """Open, and again if that fails; work; close."""
        for _ in range(2 * CONNECTIONS):
            if len(self.open) < CONNECTIONS:
                self._try(self._open)
        self.disk.on_sync = self.meanwhile
        for _ in range(OPERATIONS):
            self.act(self.chance.choice(OPERATE))
        self.disk.on_sync = lambda: None
        for db in self.open:
            self._try(db.close)

    def meanwhile(self) -> None:
        """As ever, but for what would wait for the one that waits: who mends waits for a checkpoint's end."""
        if not any(db._db._settlement.doubtful for db in self.open):
            super().meanwhile()

    def act(self, operation: Callable[[Life, CortexDB], None]) -> None:
        """One operation, which may fail."""
        self._try(lambda: super(FaultyLife, self).act(operation))

    def _open(self) -> None:
        self.open.append(CortexDB(self.path, clock=self.clock, disk=self.disk))
        self.told.made = True

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        except AnvilError as error:
            self.errors.append(error)


def life(begins: dict[str, Path], seed: str, fault: Fault) -> list[str]:
    """Live one life with a fault; what was wrong, in sentences."""
    chance = random.Random(seed)
    kind = chance.choice(("used", "used", "used", "old", "new"))
    with tempfile.TemporaryDirectory(prefix="anvil-power-", dir=memory()) as top:
        folder, image = Path(top) / "home", Path(top) / "left"
        shutil.copytree(begins[kind], folder)
        for path in folder.glob("cortex.db-*"):
            path.unlink()
        disk = SimulatedDisk(folder=folder)
        this = FaultyLife(disk=disk, chance=chance, told=Told(made=kind != "new"))
        wrong: list[str] = []

        def cut(when: str) -> None:
            image.mkdir()
            how = disk.image(image, chance)
            wrong.extend(f"cut {when}, {how}: {found}" for found in [judge(image, this.told)] if found)
            shutil.rmtree(image)

        def step(name: str) -> None:
            if fault.failed and chance.random() < CUTS / 100:
                cut("later")
            fault.step(name)

        disk.on_step = step
        sizes = {"CHECKPOINT_PAGES": chance.choice((30, 4000)), "_SMALLEST": chance.choice((1, 200_000))}
        with mock.patch.dict(vars(walsize), sizes):
            this.live()
        disk.close()
        wrong += [text for error in this.errors if (text := _told(error, fault))]
        cut("at the end")
        wrong += [f"opened afterwards: {found}" for found in [judge(folder, this.told)] if found]
    return [f"{seed} {kind} {fault.at} {fault.failed[:1]} {os.strerror(fault.error)}: {text}" for text in wrong]


def _told(error: AnvilError, fault: Fault) -> str:
    if not isinstance(error, EnvironmentLack) or not error.hint:
        return f"told as {type(error).__name__}: {error.message} (hint: {error.hint!r})"
    if isinstance(error, DiskFull) and fault.error != errno.ENOSPC:
        return "a failing disk is told as a full one"
    return ""


def run(seed: str, *, every: int = 1, name: str = "", without: str = "") -> dict[str, Any]:
    """Fail every ``every``th call (of that name) in turn, in three ways. Figures, for JSON.

    without: "the mending": after a failed sync the next one is believed; else as in ``power_cortex``.
    """
    calls: Counter[str] = Counter()
    lives, wrong = 0, []
    with templates() as begins, lacking(without):
        for error, sticky in ((errno.EIO, False), (errno.ENOSPC, False), (errno.ENOSPC, True)):
            at = 1
            while True:
                fault = Fault(at=at, error=error, sticky=sticky, name=name)
                found = life(begins, seed, fault)
                if not fault.failed:
                    break
                lives += 1
                calls[f"{fault.failed[0]}: {errno.errorcode[error]}{' from then on' if sticky else ''}"] += 1
                wrong += found
                at += every
    return {"lives": lives, "failed": dict(sorted(calls.items())), "wrong": wrong}
