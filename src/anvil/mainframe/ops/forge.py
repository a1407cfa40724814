"""forge: a virtual machine on a forged kernel fills disks; they become the card's output."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anvil.machine import machine
from anvil.machine.spec import Disk, MachineSpec
from anvil.mainframe import vmwork
from anvil.mainframe.cellwork import OUTPUT_BYTES, layer_ref, present
from anvil.mainframe.results import StepResult
from anvil.vault.scan import OutputLimits

if TYPE_CHECKING:
    from anvil.machine.spec import Accelerator
    from anvil.machine.verdict import BootVerdict
    from anvil.mainframe.context import Context


def run(context: Context) -> StepResult:
    """Boot ``inputs.kernel`` and ``inputs.initrd`` until ``extra.done`` is said and the machine is off.

    With ``extra.deterministic`` the machine is repeatable, so that the same guest makes the same bytes.
    """
    node, services = context.node, context.services
    kernel, initrd = (present(context, node.inputs[name]) for name in ("kernel", "initrd"))
    place = vmwork.place(context)
    with context.staging() as staging:
        # Here is a kernel that surely boots: the moment to see whether KVM does.
        services.probe_accelerator(place, kernel, staging)
        repeatable = node.extra["deterministic"]
        spec = MachineSpec(
            kernel=kernel,
            initrd=initrd,
            append=vmwork.kernel_line(node.extra["append"], initrd),
            disks=tuple(Disk(name=name, size=size) for name, size in node.extra["disks"]),
            memory_bytes=node.memory,
            nic=False,
            repeatable=repeatable,
        )

        def attempt(accelerator: Accelerator) -> BootVerdict:
            return machine.forge(
                replace(spec, accelerator=accelerator), place, out=staging / accelerator, done=node.extra["done"],
                timeout=node.wall, transcript=context.log,
            )  # fmt: skip

        verdict = attempt("tcg") if repeatable else vmwork.as_the_host_can(services, attempt)
        vmwork.require_success(context, verdict)
        out = staging / verdict.accelerator
        left = services.layers.collect(out, kind="tree", limits=OutputLimits(total_bytes=OUTPUT_BYTES))
        services.layers.adopt(out, left)
        log = services.vault.put_file(context.log)
        return StepResult(out=layer_ref(left), log=log, facts={"text": verdict.sentence})
