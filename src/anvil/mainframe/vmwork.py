"""Cards that run a virtual machine: the place it runs in, and what its end means."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from anvil.cell.bwrap import FIXED_ENV
from anvil.errors import CardJam, DiskFull, EnvironmentLack, Interrupted, LimitExceeded
from anvil.machine.machine import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anvil.machine.spec import Accelerator
    from anvil.machine.verdict import BootVerdict
    from anvil.mainframe.context import Context
    from anvil.mainframe.services import Services


def place(context: Context) -> Place:
    """Where a card's machine runs: in a cell of the card's image, stopped when the card is."""
    services = context.services
    settings = services.settings
    rootfs = services.rootfs(context.node.image)
    return Place(image=rootfs, cancelled=context.tick, bwrap=settings.bwrap, host_uid=settings.cell_uid)


def kernel_line(append: str, initrd: Path) -> str:
    """A recipe's kernel line with ``$SOURCE_DATE_EPOCH`` and ``$SEED`` filled in.

    The seed is made of what the guest is given, so that another payload gets other identifiers, and is never 0.
    """
    with initrd.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    seed = int.from_bytes(digest[:8], "big") >> 1 or 1
    return append.replace("$SOURCE_DATE_EPOCH", FIXED_ENV["SOURCE_DATE_EPOCH"]).replace("$SEED", str(seed))


def as_the_host_can(services: Services, attempt: Callable[[Accelerator], BootVerdict]) -> BootVerdict:
    """Run a machine under KVM where that is known to run guests, else emulated.

    What is known was said by a guest, and its kernel may be a hostile recipe's: so where a guest fails under KVM it is
    tried once more without, and when it does well there KVM is not believed again.
    """
    first = services.accelerator()
    verdict = attempt(first)
    if verdict.ok or first != "kvm" or verdict.reason in {"cancelled", "disk", "scarce"}:
        return verdict
    verdict = attempt("tcg")
    if verdict.ok:
        services.distrust_kvm()
    return verdict


def require_success(context: Context, verdict: BootVerdict) -> None:
    """Turn a machine's end into the right error, if it was not a success."""
    if verdict.ok:
        return
    context.stop_if_asked()  # a stop while the guest powered off reads like a timeout
    if verdict.reason == "cancelled":
        raise Interrupted(f"{context.node.id} was stopped")
    if verdict.reason == "disk":
        raise DiskFull(f"the disk was full while {context.node.id} ran", hint="free some space, then go on")
    if verdict.reason == "scarce":
        raise EnvironmentLack(
            f"the machine's memory was nearly gone while {context.node.id} ran", hint="end other programs, then go on"
        )
    detail = "\n".join(verdict.tail)
    if verdict.reason == "timeout":
        raise LimitExceeded(verdict.sentence, detail=detail, hint="raise wall= in the recipe, or look at the console")
    raise CardJam(verdict.sentence, detail=detail)
