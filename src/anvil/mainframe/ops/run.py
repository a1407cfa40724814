"""run: a bash script in a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import bash, run_card

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.results import StepResult


def run(context: Context) -> StepResult:
    """Run the card's script; its work tree and output become layers."""
    return run_card(context, bash(context.node.script))
