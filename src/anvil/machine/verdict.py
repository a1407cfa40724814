"""What a boot came to, as data for people, sidecars and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from anvil.machine.spec import Accelerator, Attach, Firmware

Reason = Literal["seen", "panic", "emergency", "failed", "ended", "timeout", "cancelled", "disk", "scarce"]
"""seen: the expected line came. panic: the kernel's. emergency: the initramfs stopped in its shell. failed: a forge
guest told of a step that failed. ended: QEMU ended before anything of these. timeout, cancelled: as they say.
disk, scarce: the host's disk or memory was nearly gone, which is not the guest's fault."""

BAD_NEWS: dict[str, Reason] = {
    "Kernel panic - not syncing": "panic",
    "ANVIL EMERGENCY": "emergency",
    "ANVIL FORGE FAILED": "failed",
}
"""Texts that end a wait at once: nothing good comes after them."""

_SENTENCES: dict[Reason, str] = {
    "seen": "booted",
    "panic": "the kernel panicked",
    "emergency": "the boot stopped in the emergency shell",
    "failed": "a step in the guest failed",
    "ended": "the machine ended before it said what was expected",
    "timeout": "the machine did not say what was expected in time",
    "cancelled": "stopped",
    "disk": "the host's disk was full",
    "scarce": "the host's memory was nearly gone",
}


@dataclass(frozen=True, kw_only=True)
class BootVerdict:
    """How a boot ended.

    line: the console line that decided. seconds: from QEMU's start to the verdict. tail: the console's last lines.
    """

    ok: bool
    reason: Reason
    line: str
    seconds: float
    firmware: Firmware
    attach: Attach | None
    accelerator: Accelerator
    tail: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """One line for a person: "bios, cdrom, tcg: booted in 12.3 s: ANVILOS READY …"."""
        way = ", ".join(part for part in (self.firmware, self.attach, self.accelerator) if part)
        line = f": {self.line}" if self.line else ""
        return f"{way}: {_SENTENCES[self.reason]} in {self.seconds:.1f} s{line}"

    def as_data(self) -> dict[str, object]:
        """The verdict as JSON data; times in whole milliseconds, for canonical JSON has no fractions."""
        return {
            "ok": self.ok,
            "reason": self.reason,
            "line": self.line,
            "milliseconds": round(self.seconds * 1000),
            "firmware": self.firmware,
            "attach": self.attach or "",
            "accelerator": self.accelerator,
            "tail": list(self.tail),
        }
