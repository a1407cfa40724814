"""check: a script that must pass; what it leaves is thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import bash, run_card

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.results import StepResult


def run(context: Context) -> StepResult:
    """Run the script; keep nothing but the verdict."""
    return run_card(context, bash(context.node.script), collect=False)
