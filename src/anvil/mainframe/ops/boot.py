"""boot: a check that boots a medium and waits for a line on its serial console."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anvil.machine import machine
from anvil.machine.spec import MachineSpec
from anvil.mainframe import vmwork
from anvil.mainframe.cellwork import present
from anvil.mainframe.results import StepResult

if TYPE_CHECKING:
    from anvil.machine.spec import Accelerator
    from anvil.machine.verdict import BootVerdict
    from anvil.mainframe.context import Context


def run(context: Context) -> StepResult:
    """Boot ``inputs.medium`` with ``extra.firmware``, attached as ``extra.attach``, until ``extra.expect`` is said."""
    node, services = context.node, context.services
    spec = MachineSpec(
        medium=present(context, node.inputs["medium"]),
        firmware=node.extra["firmware"],
        attach=node.extra["attach"],
        memory_bytes=node.memory,
    )

    def attempt(accelerator: Accelerator) -> BootVerdict:
        return machine.boot(
            replace(spec, accelerator=accelerator), vmwork.place(context), expect=node.extra["expect"],
            timeout=node.wall, transcript=context.log,
        )  # fmt: skip

    verdict = vmwork.as_the_host_can(services, attempt)
    vmwork.require_success(context, verdict)
    log = services.vault.put_file(context.log)
    said = verdict.as_data()
    said.pop("tail")
    return StepResult(log=log, facts={"text": verdict.sentence, "verdict": {"card": node.id, **said}})
