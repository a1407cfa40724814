"""Small things every command prints with: errors, durations, sizes. Control codes in foreign text are made visible."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from anvil.errors import AnvilError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with control characters (but tab and newline) and direction overrides made visible as escapes."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def show_error(error: AnvilError, stream: TextIO | None = None) -> None:
    """What failed, where, what explains it and what to do next; no traceback."""
    out = stream or sys.stderr
    print(f"anvil: {plain(error.message)}", file=out)
    if error.where:
        print(f"  where: {plain(error.where)}", file=out)
    if error.detail:
        print("".join(f"  | {plain(line)}\n" for line in error.detail.splitlines()), end="", file=out)
    if error.hint:
        print(f"  next:  {plain(error.hint)}", file=out)


def is_interactive(stream: TextIO | None = None) -> bool:
    """Whether a stream (None: standard output) is a terminal that can be repainted."""
    can_repaint = os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("ACCESSIBLE")
    return can_repaint and (stream or sys.stdout).isatty()


def seconds(value: float) -> str:
    """A duration: "8 s", "2:31", "1:02:09"."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s" if value >= 9.5 else f"{value:.1f} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int) -> str:
    """A size: "813 B", "1.2 MB", in powers of ten as disks and downloads are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
