"""Attacks of our own by guests of virtual machines: on the serial line, by the way they end, on what they are given.

The guests are boot sectors of 512 bytes (``tests.machine.boot_sectors``), so that each says just what it is to say.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from anvil.cell import bwrap
from anvil.machine import console, machine
from anvil.machine.console import PlainText
from anvil.machine.spec import MachineSpec
from anvil.mainframe import cellwork
from anvil.mainframe.ops import boot
from tests.hostile.attack import CONTAINED, HIT, TRIED, Attack, Seen, Verdict, Wire, jammed
from tests.hostile.controls import without
from tests.machine.boot_sectors import HALT, POWER_OFF, RESET, sector, write_self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import NodeRef
    from tests.hostile.attack import Kind
    from tests.hostile.ground import Ground

GUEST = """
from anvil.recipe import Recipe, human_json
r = Recipe("@NAME@", licence="MIT")
m = r.run("medium", None, "cp /in/guest /out/medium; echo TRIED", inputs={{"guest": r.file("@NAME@.img")}})
r.boot("try", medium=m.out / "medium", firmware="bios", attach="disk", expect={expect!r}, wall={wall}, memory=64 << 20)
"""


def guest(
    name: str, words: str, then: bytes, verdict: Verdict, control: Callable[[Ground, Attack, Wire], str], *,
    expect: str = "READY", wall: int = 20, first: bytes = b"", data: bytes = b"",
    attempt: Callable[[Ground, Attack, Wire], Seen] | None = None,
    wire: Callable[[Ground], object] | None = None,
) -> Attack:  # fmt: skip
    """A recipe that boots a guest."""
    more = {"wire": wire} if wire else {}
    return Attack(
        name=f"guest-{name}", recipe=GUEST.format(expect=expect, wall=wall), verdict=verdict, control=control,
        files={f"guest-{name}.img": data or sector(words, then, first=first)}, attempt=attempt, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def trusting_machine() -> None:
    """Whatever ends a wait counts as what was waited for."""
    real = machine.Machine.wait_for

    def wait_for(self: machine.Machine, text: str, *, timeout: float) -> object:
        return replace(real(self, text, timeout=timeout), ok=True, reason="seen")

    machine.Machine.wait_for = wait_for  # type: ignore[method-assign,assignment]


def shown(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """Forge on the command line: nothing that a terminal obeys may be printed of what a guest says."""
    ground.write(attack, wire)
    done = subprocess.run(
        [sys.executable, "-m", "anvil.cli.main", "forge", attack.name, "--project", str(ground.project), "--home",
         str(ground.home), "--output", str(ground.folder()), "--offline"],
        cwd=ground.project, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    bad = sorted(
        {ascii(letter) for letter in text if (ord(letter) < 32 or 127 <= ord(letter) < 160) and letter != "\n"}
    )
    bad += [ascii(letter) for letter in "\u202e\u2066" if letter in text]
    log = f"{HIT} {bad}\n" if bad else ""
    kind: Kind = "contained" if done.returncode == 0 and "READY" in text else "jammed"
    return Seen(kind=kind, message=text[-500:], log=log + TRIED)


def in_the_transcript(mark: str) -> Callable[[Ground, Attack, Wire], str]:
    """What the guest says has it, and the console's text of it, but for taking such letters out, would have it too."""

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        del ground, wire
        console_bytes = attack.files[f"{attack.name}.img"]
        assert isinstance(console_bytes, bytes)
        known, console._INVISIBLE = console._INVISIBLE, {}
        text = PlainText().feed(console_bytes)
        console._INVISIBLE = known
        return f"{mark!a} is in it" if mark in text else ""

    return control


def little_patience(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """Forge where a guest may say 64 KiB."""

    def lower() -> None:
        console.TRANSCRIPT_LIMIT = 65536

    return ground.forge(attack, wire, weaken=(lower,))


def says_more(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Without that limit it talks until its time is gone."""
    seen = ground.forge(attack, wire, home=ground.weak)
    return "it talked on" if "in time" in seen.message else ""


@contextmanager
def medium_in_the_vault(ground: Ground) -> Iterator[Wire]:
    """The blob of the guest's medium in each home: its bytes stay."""
    digest = hashlib.sha256(WRITER).hexdigest()

    def harm() -> str:
        for home in (ground.home, ground.weak):
            for path in (home / "vault").rglob(f"*{digest[2:]}"):
                if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                    return f"{path} was written to"
        return ""

    yield Wire(harm=harm)


def no_snapshot() -> None:
    """The guest writes on the medium itself, which lies in the vault with a mode that allows it."""
    real_present = cellwork.present

    def present(context: Context, ref: NodeRef) -> Path:
        blob = real_present(context, ref)
        copy = context.services.home.vault / f"writable-{hashlib.sha256(blob.read_bytes()).hexdigest()[2:]}"
        copy.write_bytes(blob.read_bytes())
        copy.chmod(0o666)
        return copy

    vars(boot)["present"] = present
    real = MachineSpec._medium
    MachineSpec._medium = lambda self: tuple(  # type: ignore[method-assign]
        word.replace(",snapshot=on", "") for word in real(self)
    )
    vars(bwrap)["_ARGUMENTS"]["read-only"] = bwrap._ARGUMENTS["read-write"]


# It changes its own sector in memory (a letter of its words), and writes that over the medium's first one.
WRITER = sector("READY", HALT, first=b"\xc6\x06\xf0\x7d\x58" + write_self(0x80))

ENDLESS = b"\xba\xfd\x03\xec\xa8\x20\x74\xfb\xb0\x41\xb2\xf8\xee\xeb\xf1"  # wait for the port; 'A'; again

ATTACKS = (
    guest("that-obeys-a-terminal", "READY \x1b]0;owned\x07\x1b[2J\x1b[8m \u009b31m\u202e gnp.exe\r\n", POWER_OFF,
          CONTAINED, in_the_transcript("\u009b"), attempt=shown),
    guest("that-never-ends-its-speech", "", ENDLESS, jammed("said more than"), says_more, wall=8,
          attempt=little_patience),
    guest("that-switches-off-without-a-word", "nothing\r\n", POWER_OFF, jammed("ended before"),
          without(trusting_machine)),
    guest("that-starts-again-and-again", "again\r\n", RESET, jammed("ended before"), without(trusting_machine)),
    guest("that-says-bad-news-first", "ANVIL FORGE FAILED READY\r\nREADY\r\n", HALT, jammed("a step in the guest"),
          without(trusting_machine)),
    guest("that-hides-a-word-in-sequences", "RE\x1b[\x18ADY RE\x00ADY REA\r\nDY\r\n", POWER_OFF,
          jammed("ended before"), without(trusting_machine)),
    guest("that-writes-on-its-medium", "", HALT, CONTAINED, without(no_snapshot), data=WRITER,
          wire=medium_in_the_vault),
    guest("that-is-no-medium", "", HALT, jammed("in time|ended before"), without(trusting_machine), wall=5,
          data=b"QFI\xfb\0\0\0\3" + bytes(8) + b"/etc/shadow".ljust(1 << 20, b"\0")),
)  # fmt: skip
