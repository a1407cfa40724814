"""What a long command is doing, on standard error; and a way to stop it between two steps."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from anvil.cli import terminal
from anvil.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Mapping

_TELL_SECONDS = 2.0
_REPAINT_SECONDS = 0.1
_CLEAR = "\r\033[K"


class Progress:
    """A line that is repainted on a terminal, else a line now and then. Within it Ctrl-C takes effect in ``tell``."""

    def __init__(self, *, stopped: str, quiet: bool = False) -> None:
        """stopped: what is said when it was stopped. quiet: nothing is printed."""
        self._stopped_words = stopped
        self._quiet = quiet
        self._live = terminal.is_interactive(sys.stderr)
        self._said = time.monotonic()
        self._stopped = False
        self._before: Mapping[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def tell(self, text: str) -> None:
        """What is being done. Raises Interrupted once it is to stop."""
        if self._stopped:
            raise Interrupted(self._stopped_words)
        now = time.monotonic()
        if self._quiet or now - self._said < (_REPAINT_SECONDS if self._live else _TELL_SECONDS):
            return
        self._said = now
        text = terminal.plain(text)
        if self._live:  # one that is longer than the terminal is wide could not be taken back
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # 0: the terminal does not know
            text = text[: max(0, columns - len("   …") - 1)]
        line = f"{_CLEAR}  {text} …" if self._live else f"  {text} …\n"
        print(line, end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line empty, for what is printed next."""
        if self._live and not self._quiet:
            print(_CLEAR, end="", file=sys.stderr, flush=True)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopped = True
