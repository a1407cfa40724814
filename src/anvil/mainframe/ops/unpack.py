"""unpack: a source's archive into the work tree, inside a cell, since an archive is as hostile as who wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.cellwork import Script, run_card

if TYPE_CHECKING:
    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import Node
    from anvil.mainframe.results import StepResult

# Owners are the cell's one user; a tarball's top folder is stripped, as every source has one.
SCRIPT = "tar --extract --file=/in/source --strip-components=1 --no-same-owner --delay-directory-restore"


def script(_node: Node) -> Script:
    """The same for every archive."""
    return Script(text=SCRIPT)


def run(context: Context) -> StepResult:
    """Unpack the input called ``source``."""
    return run_card(context, script(context.node))
