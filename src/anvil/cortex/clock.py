"""The two clocks of the cortex."""

from __future__ import annotations

import time
from functools import cache


class Clock:
    """Wall time for people, boot time for leases.

    A lease must not expire because somebody set the clock: it is counted on CLOCK_BOOTTIME, which only moves forward
    and goes on in suspend, and is worth nothing under another boot id. All users of a cortex share one kernel, since
    network file systems are refused.
    """

    def utc_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    def boot_us(self) -> int:
        """Microseconds since this machine was started."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    def boot_id(self) -> str:
        """A name for this start of the machine."""
        return _boot_id()


@cache
def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
