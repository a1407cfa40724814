"""Cards that run a virtual machine: the place it runs in, and what its end means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.errors import CardJam, Interrupted, LimitExceeded
from anvil.machine.machine import Place

if TYPE_CHECKING:
    from anvil.machine.verdict import BootVerdict
    from anvil.mainframe.context import Context


def place(context: Context) -> Place:
    """Where a card's machine runs: in a cell of the card's image, stopped when the card is."""
    services = context.services
    settings = services.settings
    rootfs = services.rootfs(context.node.image)
    return Place(image=rootfs, cancelled=context.tick, bwrap=settings.bwrap, host_uid=settings.cell_uid)


def require_success(context: Context, verdict: BootVerdict) -> None:
    """Turn a machine's end into the right error, if it was not a success."""
    if verdict.ok:
        return
    context.stop_if_asked()  # a stop while the guest powered off reads like a timeout
    if verdict.reason == "cancelled":
        raise Interrupted(f"{context.node.id} was stopped")
    detail = "\n".join(verdict.tail)
    if verdict.reason == "timeout":
        raise LimitExceeded(verdict.sentence, detail=detail, hint="raise wall= in the recipe, or look at the console")
    raise CardJam(verdict.sentence, detail=detail)
