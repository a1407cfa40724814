"""The cell of a card, made for a person: the same image, tree, inputs and environment, and nothing of it is kept.

The tree is an overlay's upper folder (or a copy) in a staging folder of this process's own, which is thrown away at
the end, or swept by the next command when this process was killed. What is below it is only read.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from anvil.cell import limits as fences
from anvil.cell import run as cell
from anvil.cell import terminal
from anvil.cell.jobserver import JobServer
from anvil.cell.running import TICK
from anvil.cell.spec import Bind, GiB, Limits
from anvil.errors import AnvilError, EnvironmentLack, UsageError
from anvil.mainframe import leftovers, shellstate
from anvil.mainframe.cellwork import OUTPUT_BYTES, Stage, base_stack, bash, card_cell, require_machine
from anvil.mainframe.context import Context
from anvil.mainframe.images import ability, ensure_image
from anvil.mainframe.shellconfig import CONFIG_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from anvil.cell.spec import CellSpec, Outcome
    from anvil.cell.terminal import Caller, Size
    from anvil.mainframe.results import LayerRef
    from anvil.mainframe.services import Services
    from anvil.mainframe.shell import Found
    from anvil.mainframe.shellstate import KeptState

MENUCONFIG = 97
"""The exit code by which the shell's word ``menuconfig`` asks for that program."""

MENU_IMAGE = "shell"
"""The build image with the headers of ncurses, an editor and a pager: cards do not run on it."""

_YEARS = 10 * 365 * 24 * 3600
_LOG_BYTES = 1 * GiB
_TAIL_BYTES = 4000
_BLOCK = 1 << 16
_WORD_BYTES = 120 * 1024
"""A word of a command has at most 128 KiB; what is longer cannot be handed to the shell in this way."""

_TERMINAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
_TERMINFO = ("etc/terminfo", "lib/terminfo", "usr/lib/terminfo", "usr/share/terminfo")
_ORDINARY_TERMINAL = "xterm-256color"
_PROMPT = re.compile(r"[A-Za-z0-9._/:+-]+")

# Its words: the card's script, its standard input, the history, the start-up file; then a command.
_SET_UP = """
printf '%s' "$1" > /tmp/card.sh
printf '%s' "$2" > /tmp/stdin
printf '%s\\n' "$3" > ~/.bash_history
printf '%s' "$4" > ~/.bashrc
shift 4
exec "$@"
"""
_WITH_A_TERMINAL = ("setsid", "--ctty", "--wait")
"""What makes its standard streams the controlling terminal of a command: for Ctrl-C, job control and /dev/tty."""

_SHELL = (*_WITH_A_TERMINAL, "/bin/bash")

_START_UP = """
PS1='[anvil {prompt}] \\w\\$ '
HISTFILE=~/.bash_history
menuconfig() {{ {menuconfig}; }}
"""

_MENU = "make menuconfig || read -r -p 'menuconfig did not work; the lines above say why. Enter goes on. '"

_CONFIG = """
[ -f .config ] || bash -euo pipefail -c "$1" >&2
cat .config
"""

_COPY = """
for tree in work out; do
    [ ! -d /in/$tree ] || cp --archive /in/$tree/. /$tree/
done
"""


@dataclass(kw_only=True)
class Room:
    """A card's cell, as often as it is entered: what is done in it is seen the next time, and gone with the room.

    state: in words, what it shows. has_kconfig: its tree is one that ``make menuconfig`` is for.
    """

    services: Services
    found: Found
    context: Context
    folder: Path
    spec: CellSpec
    state: str
    has_kconfig: bool
    jobs: JobServer
    _entered: int = field(default=0, init=False)

    def describe(self, term: str) -> str:
        """The operations that make the cell, one a line, and the script that the card runs in it."""
        return cell.describe(self._cell(self._set_up(_SHELL), TERM=self._known(term)))

    def interact(self, caller: Caller, size: Size, term: str) -> Outcome:
        """A shell in it, with a terminal of its own."""
        return self._converse(self._cell(self._set_up(_SHELL), TERM=self._known(term)), caller, size)

    def menuconfig(self, caller: Caller, size: Size, term: str) -> Outcome:
        """``make menuconfig`` on its tree, in the image that has what this needs."""
        image = ensure_image(self.services, MENU_IMAGE)
        spec = self._cell((*_WITH_A_TERMINAL, "/bin/bash", "-c", _MENU), TERM=self._known(term))
        return self._converse(replace(spec, rootfs=image.rootfs), caller, size)

    def run(self, command: str, out: Callable[[bytes], None], err: Callable[[bytes], None]) -> Outcome:
        """Run a command in it without a terminal; out, err: get what it says, while it says it."""
        spec = self._cell(self._set_up(("/bin/bash", "-c", command)))
        log = self.folder / "log"
        said = 0

        def errors() -> None:
            nonlocal said
            with log.open("rb") as file:
                file.seek(said)
                while block := file.read(_BLOCK):
                    said += len(block)
                    err(block)

        with cell.start(spec, log) as running:
            os.close(running.take_stdin())
            outcome = None
            while outcome is None:
                outcome = running.tick(TICK, also=running.stdout)
                while block := running.read(_BLOCK):
                    out(block)
                errors()
                self.jobs.tick()
        errors()
        return outcome

    def config(self) -> bytes:
        """Its ``.config``, as the cell gives it; where there is none, the card's script makes it first.

        Raises AnvilError with the end of what the script said when it did not.
        """
        log = self.folder / "log"
        spec = self._cell(("/bin/bash", "-euc", _CONFIG, "config", self.found.script.text))
        outcome, data = cell.exchange(spec, log, cap=CONFIG_BYTES, cancel=self._tick_jobs)
        require_machine(outcome, self.found.node.id)
        if not outcome.ok:
            said = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", errors="backslashreplace")
            raise AnvilError(
                f"{self.found.node.id} gives no .config",
                detail=said,
                hint="a shell there: anvil shell, without --menuconfig",
            )
        return data

    def _converse(self, spec: CellSpec, caller: Caller, size: Size) -> Outcome:
        idle = caller.idle

        def tick() -> None:
            self.jobs.tick()
            idle()

        return terminal.converse(spec, self.folder / "log", replace(caller, idle=tick), size)

    def _tick_jobs(self) -> bool:
        self.jobs.tick()
        return False

    def _cell(self, command: tuple[str, ...], **env: str) -> CellSpec:
        """The cell with another command. An overlay's scratch folder serves once ("volatile" marks it as used)."""
        self._entered += 1
        work = self.spec.work
        if work is not None:
            work = replace(work, scratch=self.folder / f"scratch-{self._entered}")
        return replace(self.spec, command=command, work=work, env={**self.spec.env, **env})

    def _set_up(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """A command, with the card's script, its input, a history and a start-up file laid ready for it."""
        script = self.found.script
        again = "bash -euo pipefail /tmp/card.sh" + ("" if script.stdin is None else " < /tmp/stdin")
        words = (script.text, script.stdin or "", again, self._start_up())
        if any(len(word.encode()) > _WORD_BYTES for word in words):
            raise UsageError(
                f"the text of {self.found.node.id} is too long to be handed to a shell",
                hint="a shell in the card after it has it in its tree",
            )
        return ("/bin/bash", "-euc", _SET_UP, "anvil-shell", *words, *command)

    def _start_up(self) -> str:
        name = self.found.node.id
        menuconfig = f"exit {MENUCONFIG}" if self.has_kconfig else "echo 'this tree has no Kconfig'; false"
        return _START_UP.format(prompt=name if _PROMPT.fullmatch(name) else "card", menuconfig=menuconfig)

    def _known(self, term: str) -> str:
        """The caller's kind of terminal, if the image knows it."""
        places = (self.spec.rootfs / place / term[:1] / term for place in _TERMINFO)
        return term if _TERMINAL.fullmatch(term) and any(map(os.path.lexists, places)) else _ORDINARY_TERMINAL


@contextmanager
def room(services: Services, found: Found, *, after: bool = False) -> Iterator[Room]:
    """Make the cell of a card ready. after: as its script left it, where that is kept.

    While the block lasts no garbage collection takes what it shows; the cortex is closed, so nobody waits for it.
    """
    if after and found.result is None:
        raise UsageError(f"{found.node.id} has left nothing that is kept", hint=f"anvil forge {found.recipe}")
    if after and found.node.keep != "all":
        raise UsageError(
            f"the work tree of {found.node.id} is not kept (keep={found.node.keep!r} in its recipe)",
            hint=f"before its script: anvil shell {found.node.id}",
        )
    leftovers.sweep(services)
    fences.sweep()
    _require_image(services, found.node.image)
    context, jobs = _context(services, found)
    with ExitStack() as stack:
        kept = stack.enter_context(shellstate.held(services, found.deck, found.node.id)) if found.jam else None
        folder = stack.enter_context(context.staging())
        fifo = stack.enter_context(context.jobs(folder))
        stack.callback(jobs.close)
        use = None if after else _usable(kept, overlay=ability(services).overlay)
        layers = _layers(context, found, after=after)
        # a whole tree is copied, nothing below it is shown
        stage = Stage(folder=folder, stack=() if use and use.tree else layers, jobserver=fifo)
        with services.vault.generations.steady():
            spec = _for_a_person(card_cell(context, stage, ("/bin/true",)), found)
            copies = _copies(services, found, use, after=after)
            kconfig = any(services.layers.lookup(layers, name) is not None for name in ("Kconfig", "Config.in"))
        if use and use.changes and spec.work:
            spec = replace(spec, work=replace(spec.work, lower=(use.changes, *spec.work.lower)))
        services.db.close()
        del services.__dict__["db"]
        made = Room(
            services=services,
            found=found,
            context=context,
            folder=folder,
            spec=spec,
            state=_state(found, use, after=after),
            has_kconfig=kconfig,
            jobs=jobs,
        )
        if copies:
            _copy(made, copies)
        yield made


def _context(services: Services, found: Found) -> tuple[Context, JobServer]:
    """The surroundings of a card that nobody counts, and a jobserver that feeds it alone."""
    jobs = JobServer(services.settings.jobs)

    def report(data: dict[str, Any]) -> None:
        if path := data.get("jobs"):
            jobs.add("shell", services.home.cells / path)
        elif "jobs" in data:
            jobs.remove("shell")

    context = Context(
        services=services,
        node=found.node,
        results=found.results,
        report=report,
        tick=lambda: False,
        log=services.home.logs / "shell",
    )
    return context, jobs


def _layers(context: Context, found: Found, *, after: bool) -> Sequence[LayerRef]:
    if after and found.result is not None:
        return found.result.stack
    return base_stack(context)


def _usable(kept: KeptState | None, *, overlay: bool) -> KeptState | None:
    """What was kept of a jam, if this machine's cells can show it: changes need an overlay."""
    return None if kept is None or (kept.changes is not None and not overlay) else kept


def _state(found: Found, use: KeptState | None, *, after: bool) -> str:
    if after:
        return "as its script left it"
    if use is not None:
        return f"at its failure ({found.jam})"
    if found.jam:
        return "before its script: what it had left when it failed is not kept"
    return "before its script"


def _for_a_person(spec: CellSpec, found: Found) -> CellSpec:
    """The same cell without the limits of time: nobody thinks against a clock."""
    memory = max(found.node.memory, 4 * GiB)
    limits = Limits(
        memory_bytes=memory,
        cpu_seconds=_YEARS,
        wall_seconds=_YEARS,
        output_bytes=OUTPUT_BYTES,
        log_bytes=_LOG_BYTES,
    )
    return replace(spec, limits=limits)


def _copies(services: Services, found: Found, use: KeptState | None, *, after: bool) -> dict[str, Path]:
    """What must be copied into the cell before anybody enters it: where it is to be, and what it is copied from."""
    copies = {}
    if use is not None and use.tree is not None:
        copies["work"] = use.tree
    if use is not None and use.out is not None and any(use.out.iterdir()):
        copies["out"] = use.out
    if after and found.result is not None and found.result.out is not None:
        copies["out"] = services.layers.present((found.result.out,), "")
    return copies


def _copy(made: Room, copies: dict[str, Path]) -> None:
    """Copy them, in a cell: they are a recipe's files."""
    inputs = tuple(Bind(name=name, source=source) for name, source in copies.items())
    spec = replace(made._cell(bash(_COPY)), inputs=inputs)  # noqa: SLF001 -- the room is being made here
    log = made.folder / "log"
    outcome = cell.run(spec, log)
    require_machine(outcome, made.found.node.id)
    if not outcome.ok:
        said = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", errors="backslashreplace")
        raise EnvironmentLack(
            f"what {made.found.node.id} left could not be copied",
            detail=said,
            hint="anvil vault gc, or free some space",
        )


def _require_image(services: Services, digest: str) -> None:
    """Have the base image of a card."""
    names = {made: name for name, (made, _) in services.image_locks.items()}
    if digest in names:
        ensure_image(services, names[digest])
    elif not services.rootfs(digest).is_dir():
        raise EnvironmentLack(
            "the base image of this card is not there, and no lock names it any more",
            where=digest,
            hint="forge it again with the locks of now: anvil retry",
        )
