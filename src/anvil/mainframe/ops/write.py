"""write: a text into the work tree, through a cell like every other change of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import bash, run_card

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.results import StepResult


def run(context: Context) -> StepResult:
    """Write ``extra.text`` to ``extra.path`` with ``extra.mode``."""
    extra = context.node.extra
    script = f"install -D -m {extra['mode']:o} /dev/stdin {shlex.quote(extra['path'])}"
    return run_card(context, bash(script), stdin=extra["text"].encode())
