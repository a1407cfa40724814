"""Text in a narrow place: trees and paragraphs that fit the terminal, forty columns too, without colour."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

LEAST = 40
MOST = 100


def width() -> int:
    """Columns to fill: the terminal's, or what COLUMNS says, from 40 to 100."""
    return max(LEAST, min(MOST, shutil.get_terminal_size((MOST, 24)).columns))


def branches() -> tuple[str, str, str, str]:
    """What a tree is drawn with, each three columns: a branch, the last one, below a branch, below the last one."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    if encoding == "utf8" and os.environ.get("TERM") != "dumb":
        return "├─ ", "└─ ", "│  ", "   "
    return "|- ", "`- ", "|  ", "   "


def filled(text: str, *, first: str = "", rest: str = "", columns: int | None = None) -> list[str]:
    """A paragraph in lines, with these before the first and the others; words that do not fit are broken."""
    lines = textwrap.wrap(
        text,
        columns or width(),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]


def cut(text: str, columns: int) -> str:
    """A line that fits, with an ellipsis where something was left out."""
    return text if len(text) <= columns else f"{text[: max(0, columns - 1)]}…"
