"""fetch: pinned files into the vault, by the host set; nothing unverified is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.results import StepResult
from anvil.model.lock import PinnedFile

if TYPE_CHECKING:
    from anvil.mainframe.context import Context


def run(context: Context) -> StepResult:
    """Fetch every file of ``extra.files`` that the vault lacks."""
    files = [PinnedFile(**file) for file in context.node.extra["files"]]
    context.services.fetch_into_vault(files, context.report, context.tick)
    return StepResult(facts={"files": [{"name": file.name, "sha256": file.sha256} for file in files]})
