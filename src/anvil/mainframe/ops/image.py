"""image: a base image from its lock, by the host set; its maintainer scripts run in a bootstrap cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.mainframe.images import ensure_image
from anvil.mainframe.results import StepResult

if TYPE_CHECKING:
    from anvil.mainframe.context import Context


def run(context: Context) -> StepResult:
    """Make the image called ``extra.name`` where it is not there yet."""
    name = context.node.extra["name"]
    ensure_image(context.services, name, context.report, context.tick)
    return StepResult(facts={"image": name, "digest": context.node.extra["digest"]})
