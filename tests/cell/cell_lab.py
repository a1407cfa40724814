"""The laboratory: cells made as root and as an ordinary user, whole or with one layer taken away."""

from __future__ import annotations

import codecs
import ctypes
import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell import bwrap, entry, fence, limits, run, seccomp, watchdog
from anvil.cell.spec import HOST_UID, Bind, CellSpec, Limits, MiB, WorkTree
from tests.apart import apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.spec import Outcome

ORDINARY = 12345
"""The uid of the ordinary user."""

SMALL = Limits(memory_bytes=256 * MiB, processes=256, wall_seconds=60, output_bytes=64 * MiB, log_bytes=4 * MiB)


@dataclass(frozen=True)
class Result:
    """What came of a cell: its outcome, its log, and the folders it wrote into."""

    outcome: Outcome
    log: bytes
    out: Path
    upper: Path

    @property
    def text(self) -> str:
        return self.log.decode("utf-8", "backslashreplace")


class Lab:
    """Makes cells as one user. Each is made in a process of its own, so that a layer can be taken away in it alone."""

    def __init__(self, rootfs: Path, uid: int, probe: Path | None = None, *, home: Path | None = None) -> None:
        self.rootfs = rootfs
        self.uid = uid
        self.root = uid == 0
        self.cell_uid = HOST_UID if self.root else uid
        self.probe = probe
        # not /tmp, which may be in memory: there a full output is a full memory
        self.home = home or Path(tempfile.mkdtemp(prefix="anvil-lab-", dir="/var/tmp"))
        os.chown(self.home, uid, uid)
        self._count = 0

    def folder(self) -> Path:
        """A fresh folder of the user's."""
        self._count += 1
        path = self.home / str(self._count)
        path.mkdir()
        os.chown(path, self.uid, self.uid)
        return path

    def tree(self, files: dict[str, str]) -> Path:
        """A tree that belongs to the cells."""
        top = self.folder()
        os.chown(top, self.cell_uid, self.cell_uid)
        for name, text in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            for part in (path, *path.parents):
                if part == top:
                    break
                os.chown(part, self.cell_uid, self.cell_uid)
        return top

    def spec(self, folder: Path, script: str, **changes: Any) -> CellSpec:
        """The specification of a script's cell; changes: fields of it, and lower."""
        lower = changes.pop("lower", ())
        inputs = changes.pop("inputs", ())
        if self.probe:
            inputs = (*inputs, Bind(name="probe", source=self.probe))
        spec = CellSpec(
            rootfs=self.rootfs,
            command=("/bin/bash", "-euo", "pipefail", "-c", script),
            work=WorkTree(lower=lower, upper=folder / "upper", scratch=folder / "scratch"),
            out=folder / "out",
            inputs=inputs,
            limits=SMALL,
        )
        return replace(spec, **changes)

    def cell(self, script: str, *, weaken: Callable[[], None] | None = None, **changes: Any) -> Result:
        """Run a bash script in a cell."""
        folder = self.folder()
        spec = self.spec(folder, script, **changes)
        outcome = self.apart(lambda: run.run(spec, folder / "log"), weaken=weaken, specs=(spec,))
        return Result(outcome=outcome, log=(folder / "log").read_bytes(), out=folder / "out", upper=folder / "upper")

    def apart(
        self, task: Callable[[], Any], *, weaken: Callable[[], None] | None = None, specs: tuple[CellSpec, ...] = ()
    ) -> Any:
        """Do something in another process, as the lab's user."""

        def work() -> Any:
            self._become(specs)
            if weaken:
                weaken()
            return task()

        return apart(work)

    def _become(self, specs: tuple[CellSpec, ...]) -> None:
        if self.uid == os.geteuid():
            return
        if specs:
            self._show(specs)
        # what is imported late could not be found any more when Python itself lies where this user cannot go
        seccomp.program()
        codecs.lookup("ascii")
        os.setgroups([])
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as it would be after an exec, /proc/self is ours
        limits.survey.cache_clear()

    def _show(self, specs: tuple[CellSpec, ...]) -> None:
        """The image and the probe may lie where the ordinary user cannot go: show them to it."""
        stage = entry.Stage.of([self.rootfs, *([self.probe] if self.probe else [])])
        stage.build(self.uid)
        for spec in specs:
            object.__setattr__(spec, "rootfs", Path(stage.at(spec.rootfs)))
            inputs = tuple(
                replace(bind, source=Path(stage.at(bind.source))) if bind.source == self.probe else bind
                for bind in spec.inputs
            )
            object.__setattr__(spec, "inputs", inputs)

    def close(self) -> None:
        subprocess.run(["rm", "-rf", self.home], check=True)


class Without:
    """The layers that can be taken away, each by a function to be called in the process that makes the cell."""

    @staticmethod
    def filter() -> None:
        """No system call filter: one instruction, "allow"."""
        allow = struct.pack("=HBBI", 0x06, 0, 0, seccomp.ALLOW)
        seccomp.program = lambda: allow  # type: ignore[assignment]

    @staticmethod
    def isolation(*flags: str) -> Callable[[], None]:
        """Without some of bubblewrap's flags."""

        def weaken() -> None:
            bwrap._ISOLATE = tuple(word for word in bwrap._ISOLATE if word not in flags)

        return weaken

    @staticmethod
    def operation(act: str, to: str) -> Callable[[], None]:
        """Without one operation of the plan."""
        whole = bwrap.plan

        def weaken() -> None:
            bwrap.plan = lambda spec, host: tuple(op for op in whole(spec, host) if (op.act, op.to) != (act, to))

        return weaken

    @staticmethod
    def fence() -> None:
        """No limits but time."""

        class Nothing(watchdog.Watchdog):
            def watch(self, pid: int) -> None:
                del pid

        def build(ground: limits.Ground, cell: Limits, *, niceness: int = 0) -> fence.Fence:
            del ground, niceness
            return Nothing(cell)

        vars(limits)["build"] = build
        entry.Entry._limit = lambda self: None  # type: ignore[method-assign]
