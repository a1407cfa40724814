"""forge: a virtual machine on a forged kernel fills disks; they become the card's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.machine import machine
from anvil.machine.spec import Disk, MachineSpec
from anvil.mainframe import vmwork
from anvil.mainframe.cellwork import OUTPUT_BYTES, layer_ref, present
from anvil.mainframe.results import StepResult
from anvil.vault.scan import OutputLimits

if TYPE_CHECKING:
    from anvil.mainframe.context import Context


def run(context: Context) -> StepResult:
    """Boot ``inputs.kernel`` and ``inputs.initrd`` until ``extra.done`` is said and the machine is off.

    The machine is repeatable: one emulated processor, so that the same guest makes the same bytes.
    """
    node, services = context.node, context.services
    disks = tuple(Disk(name=name, size=size) for name, size in node.extra["disks"])
    spec = MachineSpec(
        kernel=present(context, node.inputs["kernel"]),
        initrd=present(context, node.inputs["initrd"]),
        append=node.extra["append"],
        disks=disks,
        memory_bytes=node.memory,
        nic=False,
        repeatable=True,
    )
    place = vmwork.place(context)
    with context.staging() as staging:
        # Here is a kernel that surely boots: the moment to see whether KVM does.
        services.probe_accelerator(place, present(context, node.inputs["kernel"]), staging)
        out = staging / "out"
        verdict = machine.forge(
            spec, place, out=out, done=node.extra["done"], timeout=node.wall,
            transcript=context.log,
        )  # fmt: skip
        vmwork.require_success(context, verdict)
        left = services.layers.collect(out, kind="tree", limits=OutputLimits(total_bytes=OUTPUT_BYTES))
        services.layers.adopt(out, left)
        log = services.vault.put_file(context.log)
        return StepResult(out=layer_ref(left), log=log, facts={"text": verdict.sentence})
