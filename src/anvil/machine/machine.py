"""A machine that runs: QEMU in a cell, its console, and the three things done with it (boot, forge, talk)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anvil.cell.run import start
from anvil.cell.spec import CellSpec
from anvil.machine import shell
from anvil.machine.console import Console
from anvil.machine.verdict import BAD_NEWS, BootVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.machine.shell import Shell
    from anvil.machine.spec import MachineSpec
    from anvil.machine.verdict import Reason

_GRACE = 30.0  # seconds the cell may live longer than the wait inside it: to power off, and to tell how it ended
_POWER_OFF = 20.0  # seconds a guest may take to switch itself off


def never() -> bool:
    """Do not cancel."""
    return False


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where machines run.

    image: the tree of the base image that holds QEMU and the firmware. cancelled: asked several times a second.
    bwrap, host_uid: as in anvil.cell.spec.CellSpec.
    """

    image: Path
    cancelled: Callable[[], bool] = never
    bwrap: Path | None = None
    host_uid: int | None = None


class Machine:
    """A started machine; made by :func:`running`."""

    def __init__(self, spec: MachineSpec, console: Console, messages: Path) -> None:
        self.spec = spec
        self.console = console
        self._messages = messages
        self._started = time.monotonic()

    def wait_for(self, text: str, *, timeout: float) -> BootVerdict:
        """Wait for a line on the console; a panic, an emergency or QEMU's end decides at once."""
        sight = self.console.expect(text, *BAD_NEWS, timeout=timeout)
        reason: Reason
        if sight.reason == "seen":
            reason = BAD_NEWS.get(sight.text, "seen") if sight.text != text else "seen"
        else:
            reason = self.why_ended() if sight.reason == "closed" else sight.reason
        return BootVerdict(
            ok=reason == "seen",
            reason=reason,
            line=sight.line or self._last_words(reason),
            seconds=time.monotonic() - self._started,
            firmware=self.spec.firmware,
            attach=self.spec.attach if self.spec.medium is not None else None,
            accelerator=self.spec.accelerator,
            tail=self.console.tail(),
        )

    def login(self, *, timeout: float = 60) -> Shell:
        """A root shell of the running system."""
        return shell.login(self.console, timeout=timeout)

    def emergency(self, *, timeout: float = 30) -> Shell:
        """The shell of an initramfs that stopped."""
        return shell.emergency(self.console, timeout=timeout)

    def power_off(self, *, timeout: float = _POWER_OFF) -> bool:
        """Type ``poweroff`` at a shell's prompt and wait until QEMU is gone; False when it was not in time."""
        self.console.send("poweroff\n")
        return self.ended(timeout=timeout)

    def ended(self, *, timeout: float) -> bool:
        """Wait until QEMU has ended by itself and well; False when it had not within ``timeout`` seconds."""
        outcome = self.console.outcome if self.console.drain(timeout=timeout) else None
        return outcome is not None and outcome.ok

    def why_ended(self) -> Reason:
        """Whether the machine ended by itself, or because the host had too little left."""
        outcome = self.console.outcome
        if outcome is not None and outcome.reason == "disk":
            return "disk"
        return "scarce" if outcome is not None and outcome.reason == "scarce" else "ended"

    def _last_words(self, reason: Reason) -> str:
        """What QEMU itself said, when it ended without a word on the console (a file or an accelerator amiss)."""
        if reason != "ended":
            return ""
        said = self._messages.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(said) if line.strip()), "")


@contextmanager
def running(
    spec: MachineSpec, place: Place, *, transcript: Path, wall_seconds: float, out: Path | None = None
) -> Iterator[Machine]:
    """Start a machine; it is killed when the block is left.

    transcript: the console's bytes go there; QEMU's own messages into the file of the same name and ".qemu". out: the
    folder of its disks, bound at /out. wall_seconds: after that the cell ends the machine, whatever waits.
    """
    cell = CellSpec(
        rootfs=place.image,
        command=spec.command(),
        out=out,
        inputs=spec.inputs(),
        # Where QEMU keeps snapshots: it takes /var/tmp, which is read-only here, unless TMPDIR says something else,
        # and it does not believe "/tmp" as such.
        env={"TMPDIR": "/tmp/."},  # noqa: S108 -- the cell's own
        limits=spec.limits(wall_seconds=wall_seconds + _GRACE),
        kvm=spec.accelerator == "kvm",
        bwrap=place.bwrap,
        host_uid=place.host_uid,
    )
    log = transcript.with_name(transcript.name + ".qemu")
    with open(transcript, "wb") as kept, start(cell, log) as line:
        yield Machine(spec, Console(line, kept, cancelled=place.cancelled), log)


def boot(spec: MachineSpec, place: Place, *, expect: str, timeout: float, transcript: Path) -> BootVerdict:
    """Boot a machine until it says ``expect``, then stop it. Never raises for what the guest does.

    timeout: seconds.
    """
    with running(spec, place, transcript=transcript, wall_seconds=timeout) as machine:
        return machine.wait_for(expect, timeout=timeout)


def forge(spec: MachineSpec, place: Place, *, out: Path, done: str, timeout: float, transcript: Path) -> BootVerdict:
    """Let a guest fill disks; they land in ``out`` under their names.

    The disks are whole only once QEMU has ended by itself: a guest that says ``done`` and does not power off has
    failed. timeout: seconds until ``done``; to power off it has some more.
    """
    with running(spec, place, transcript=transcript, wall_seconds=timeout, out=out) as machine:
        verdict = machine.wait_for(done, timeout=timeout)
        if verdict.ok and not machine.ended(timeout=_POWER_OFF):
            closed = machine.console.closed
            return replace(
                verdict,
                ok=False,
                reason=machine.why_ended() if closed else "timeout",
                line=f"{verdict.line} (but it did not power off)",
                seconds=verdict.seconds + (0 if closed else _POWER_OFF),
                tail=machine.console.tail(),
            )
        return verdict
