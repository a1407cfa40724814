"""write: a text into the work tree, through a cell like every other change of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import Script, run_card

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import Node
    from anvil.mainframe.results import StepResult


def script(node: Node) -> Script:
    """Put standard input, which is ``extra.text``, to ``extra.path`` with ``extra.mode``."""
    extra = node.extra
    text = f"install -D -m {extra['mode']:o} /dev/stdin {shlex.quote(extra['path'])}"
    return Script(text=text, stdin=extra["text"])


def run(context: Context) -> StepResult:
    """Write the text."""
    return run_card(context, script(context.node))
