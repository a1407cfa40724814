"""check: a script that must pass; what it leaves is thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import run_card
from anvil.mainframe.ops.run import script

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.results import StepResult

__all__ = ["run", "script"]


def run(context: Context) -> StepResult:
    """Run the script; keep nothing but the verdict."""
    return run_card(context, script(context.node), collect=False)
