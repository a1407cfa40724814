"""What the actions print with: progress, tables, JSON."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from anvil.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPEAK_SECONDS = 15


class Teller:
    """Progress: repainted in place on a terminal; elsewhere a line now and then. silent: not at all."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._live = not silent and terminal.is_interactive()
        self._spoke = time.monotonic()

    def note(self, text: str) -> None:
        """Say something that stays."""
        if not self._silent:
            self._clear()
            print(f"  {terminal.plain(text)}", flush=True)
            self._spoke = time.monotonic()

    def report(self, data: dict[str, Any]) -> None:
        """Show how far it is: data as ``Services.fetch_into_vault`` and ``images.ensure_image`` report it."""
        now = time.monotonic()
        if self._silent or "note" not in data or now - self._spoke < (0.1 if self._live else _SPEAK_SECONDS):
            return
        self._spoke = now
        share = f" ({100 * data['done'] // data['of']} %)" if data.get("of") else ""
        text = f"  {terminal.plain(str(data['note']))}{share}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\033[K{text[:width]}")
            sys.stdout.flush()
        else:
            print(text, flush=True)

    def end(self) -> None:
        """Take the repainted line away."""
        self._clear()

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()


def print_json(data: object) -> None:
    """Print it for machines."""
    import json

    print(json.dumps(data, indent=2))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need, the last as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
