"""run: a bash script in a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import Script, run_card

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import Node
    from anvil.mainframe.results import StepResult


def script(node: Node) -> Script:
    """The card's own."""
    return Script(text=node.script)


def run(context: Context) -> StepResult:
    """Run the card's script; its work tree and output become layers."""
    return run_card(context, script(context.node))
