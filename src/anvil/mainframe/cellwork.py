"""Cards that run in a cell: inputs in, the cell, layers out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cell import run as cell
from anvil.cell.spec import Bind, CellSpec, Limits, WorkTree
from anvil.errors import AnvilError, CardJam, DiskFull, EnvironmentLack, Interrupted, LimitExceeded, RecipeError
from anvil.mainframe import shellstate
from anvil.mainframe.evaluation import EVALUATE, place_language
from anvil.mainframe.graph import BlobRef
from anvil.mainframe.images import ability
from anvil.mainframe.results import LayerRef, StepResult
from anvil.model.layer import Digest
from anvil.vault.scan import OutputLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anvil.cell.spec import Outcome
    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import NodeRef, StepRef
    from anvil.mainframe.services import Services
    from anvil.vault.collect import Collected

OUTPUT_BYTES = 16 * 1024**3
"""What one card may leave, apparent sizes."""

BACKGROUND_NICENESS = 10
"""A tenth of the processor where another cell wants all of it; all of it where none does."""

EVALUATION_SECONDS = 60
ANSWER_BYTES = 64 * 1024 * 1024


def bash(script: str) -> tuple[str, ...]:
    """The command of a script card."""
    return ("/bin/bash", "-euo", "pipefail", "-c", script)


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a card runs in its cell: a bash script, and its standard input (None: there is none)."""

    text: str
    stdin: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a card's cell is made from. folder: a staging folder of its own. stack: the layers of its work tree."""

    folder: Path
    stack: Sequence[LayerRef]
    jobserver: Path


def base_stack(context: Context) -> Sequence[LayerRef]:
    """The layers that a card begins with."""
    node = context.node
    return context.results[node.base].stack if node.base else ()


def card_cell(context: Context, stage: Stage, command: tuple[str, ...], stdin: bytes | None = None) -> CellSpec:
    """The cell of a card: its tree in ``stage.folder / "upper"``, its output in ``/ "out"``, its inputs under /in."""
    services, node = context.services, context.node
    overlay = ability(services).overlay
    upper = stage.folder / "upper"
    if not overlay:
        services.layers.materialise(stage.stack, upper)
        services.give_to_cell(upper)
    return CellSpec(
        rootfs=services.rootfs(node.image),
        command=command,
        work=WorkTree(
            lower=services.layers.lowers(stage.stack) if overlay else (),
            upper=upper,
            scratch=stage.folder / "scratch",
        ),
        out=stage.folder / "out",
        inputs=tuple(Bind(name=name, source=present(context, ref)) for name, ref in node.inputs.items()),
        env={"JOBS": str(services.settings.jobs)},
        limits=Limits(memory_bytes=node.memory, wall_seconds=node.wall, output_bytes=OUTPUT_BYTES),
        jobserver=stage.jobserver,
        niceness=BACKGROUND_NICENESS if context.background else 0,
        stdin=stdin,
        host_uid=services.settings.cell_uid,
        bwrap=services.settings.bwrap,
    )


def run_card(context: Context, script: Script, *, collect: bool = True) -> StepResult:
    """Run a script on the card's tree and inputs; with ``collect``, keep what it left.

    Raises CardJam or LimitExceeded when the script failed, OutputForbidden when what it left may not be kept; then
    what it left stays for ``anvil shell``.
    """
    stdin = None if script.stdin is None else script.stdin.encode()
    with context.staging() as staging, context.jobs(staging) as jobserver:
        stage = Stage(folder=staging, stack=base_stack(context), jobserver=jobserver)
        spec = card_cell(context, stage, bash(script.text), stdin)
        try:
            outcome = cell.run(spec, context.log, cancel=context.tick)
            require_success(context, outcome)
            if not collect:
                return StepResult(log=context.services.vault.put_file(context.log))
            return _collected(context, stage)
        except CardJam:
            deck = context.log.parent.name
            overlay = ability(context.services).overlay
            shellstate.keep(context.services, deck, context.node.id, staging, overlay=overlay)
            raise


def _collected(context: Context, stage: Stage) -> StepResult:
    """What the card left, kept."""
    services, node, stack = context.services, context.node, tuple(stage.stack)
    overlay = ability(services).overlay
    upper, out = stage.folder / "upper", stage.folder / "out"
    keep = OutputLimits(total_bytes=OUTPUT_BYTES)
    with services.vault.batch() as batch:  # one wait for the disk for all of it
        log = batch.put_file(context.log)
        left = services.layers.collect(out, kind="tree", limits=keep, batch=batch)
        if node.keep == "all" and overlay:
            changed = services.layers.collect(upper, kind="changes", limits=keep, below=stack, batch=batch)
    if node.keep == "all":
        if not overlay:
            changed = services.layers.diff_against(stack, upper, limits=keep)
        stack = (layer_ref(changed), *stack)
    context.stop_if_asked()
    if node.keep == "all" and overlay:
        services.layers.adopt(upper, changed)
    services.layers.adopt(out, left)
    return StepResult(stack=stack if node.keep == "all" else (), out=layer_ref(left), log=log)


def present(context: Context, ref: NodeRef) -> Path:
    """A host path where an input can be read."""
    services = context.services
    if isinstance(ref, BlobRef):
        return services.vault.checked(Digest(ref.sha256))
    return services.layers.present(stack_of(context, ref), ref.path)


def stack_of(context: Context, ref: StepRef) -> Sequence[LayerRef]:
    """The layers that show the tree which a reference leads into."""
    result = context.results[ref.node]
    return result.stack if ref.tree == "work" else ((result.out,) if result.out else ())


def require_machine(outcome: Outcome, name: str) -> None:
    """Raise DiskFull or EnvironmentLack when a cell ended because the machine had too little left."""
    if outcome.reason == "disk":
        raise DiskFull(f"the disk was full while {name} ran", hint="free some space, then run the same command again")
    if outcome.reason == "scarce":
        raise EnvironmentLack(
            f"the machine's memory was nearly gone while {name} ran",
            hint="end other programs, or forge with fewer --jobs; then run the same command again",
        )


def require_success(context: Context, outcome: Outcome) -> None:
    """Turn a cell's end into the right error, if it was not a success."""
    if outcome.ok:
        return
    name = context.node.id
    if outcome.reason == "cancelled":
        raise Interrupted(f"{name} was stopped")
    require_machine(outcome, name)
    took = f"after {outcome.wall_s:.0f} s"
    if outcome.reason == "exit":
        if outcome.signal:
            raise CardJam(f"the command was killed by signal {outcome.signal} {took}")
        raise CardJam(f"the command ended with exit code {outcome.exit_code} {took}")
    if outcome.reason == "signal":
        raise CardJam(f"the command was killed by signal {outcome.signal} {took}")
    words = {
        "wall": f"more than its {context.node.wall} s",
        "memory": f"more than its {context.node.memory // 1024**2} MiB of memory",
        "cpu": "more CPU time than a card may",
        "processes": "more processes than a card may",
        "log": "more log than a card may write",
        "output": "more output than a card may leave",
    }
    hint = f"raise {outcome.reason}= in the recipe" if outcome.reason in {"wall", "memory"} else ""
    raise LimitExceeded(f"the card used {words[outcome.reason]} ({took})", hint=hint)


def run_evaluator(services: Services, stopped: Callable[[], bool], request: bytes) -> bytes:
    """Evaluate recipes in a cell: a MicroJSON request in, the evaluator's answer out.

    Raises RecipeError when a recipe took too long or too much, AnvilError when the evaluator itself broke.
    """
    digest, _ = services.image_locks["eval"]
    with tempfile.TemporaryDirectory(prefix=f"{services.worker.token}-", dir=services.home.cells) as folder:
        spec = CellSpec(
            rootfs=services.rootfs(digest),
            command=EVALUATE,
            first=True,
            inputs=(Bind(name="language", source=place_language(services.home.language)),),
            env={"PYTHONHASHSEED": "0"},
            limits=Limits(memory_bytes=1024**3, wall_seconds=EVALUATION_SECONDS, processes=64),
            stdin=request,
            host_uid=services.settings.cell_uid,
            bwrap=services.settings.bwrap,
        )
        errors = Path(folder) / "errors"
        outcome, data = cell.exchange(spec, errors, cap=ANSWER_BYTES, cancel=stopped)
        if outcome.reason == "cancelled":
            raise Interrupted("stopped while the recipes were evaluated", hint="run the same command to go on")
        require_machine(outcome, "the evaluation of the recipes")
        if outcome.reason not in {"exit", "signal"}:
            raise RecipeError(
                f"the recipes took too much while they were evaluated ({outcome.reason})",
                hint=f"a recipe is data: all together have {EVALUATION_SECONDS} s and 1 GiB; look for an endless loop",
            )
        if not outcome.ok:
            text = errors.read_bytes()[-4000:].decode("utf-8", errors="backslashreplace")
            raise AnvilError(f"the evaluation cell ended with {outcome.exit_code or outcome.signal}", detail=text)
        return data


def layer_ref(collected: Collected) -> LayerRef:
    """The name of a layer that was just collected."""
    return LayerRef(digest=collected.manifest_digest, times=collected.times_digest)
