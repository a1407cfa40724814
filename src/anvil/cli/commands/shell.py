"""A shell in the cell of a card: at its failure if it jammed, else in the state before its script.

Image, tree, inputs, environment and limits of memory are the card's own; its script is in the history and in
/tmp/card.sh. Nothing that is done there is kept, but for one thing: when the configuration of a kernel was changed
(menuconfig), the difference is saved as a fragment.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import options, terminal
from anvil.errors import AnvilError, CardJam, Interrupted, UsageError
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from anvil.cell.spec import Outcome
    from anvil.cell.terminal import Size
    from anvil.mainframe.shellcell import Room

EXAMPLE = "anvil shell kernel/config --menuconfig"

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("card", metavar="CARD", help="its name, as anvil plan and anvil jam show it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--run", metavar="COMMAND", help="run this there, without a terminal; its exit code is passed on"
    )
    what.add_argument("--print", action="store_true", help="print the operations that make the cell; enter nothing")
    what.add_argument("--menuconfig", action="store_true", help="change the options of a kernel, save the difference")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="where the changed options go; must not be there yet"
    )
    parser.add_argument("--after", action="store_true", help="the state after the card's script, if that was kept")
    parser.add_argument(
        "--recipe", default="", help="the card as a forge of this recipe has it (default: the last one)"
    )
    parser.add_argument("--profile", default="debian", help="the source lock: debian (default) or seed")
    parser.add_argument("--project", type=Path, metavar="DIR", help="a folder whose recipes/ come first")
    parser.add_argument("--jobs", type=int, metavar="N", help="compiler jobs at once (default: all cores)")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Enter. 0: it was left. 1: it was ended. With --run: the command's own code (128 + n: by signal n)."""
    from anvil.mainframe import shell, shellcell

    talks = args.run is None and not args.print
    if talks and not (os.isatty(_STDIN) and os.isatty(_STDOUT)):
        raise UsageError("a shell needs a terminal", hint=f"without one: anvil shell {args.card} --run 'COMMAND'")
    if args.save is not None and os.path.lexists(args.save):
        raise UsageError(f"{args.save} is there already", hint="name a new file with --save")
    with _endable(), Services(options.settings(args)) as services:
        found = shell.find(services, args.card, recipe=args.recipe)
        after = args.after or (args.menuconfig and found.result is not None and found.node.keep == "all")
        with shellcell.room(services, found, after=after) as room:
            if args.print:
                print(terminal.plain(room.describe(_term())))
                return 0
            if args.run is not None:
                return _run(room, args.run)
            return _Visit(services, room, args.save).go(only_menu=args.menuconfig)


@contextmanager
def _endable() -> Iterator[None]:
    """Let SIGTERM and a hang-up end it as Ctrl-C does, so that the terminal is as before and the cell gone."""

    def on_signal(number: int, _frame: object) -> None:
        raise Interrupted(f"ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _term() -> str:
    return os.environ.get("TERM", "")


def _run(room: Room, command: str) -> int:
    """Run a command; what it says goes to a pipe or file as it is, and to a terminal without control characters."""
    outcome = room.run(command, _speaker(_STDOUT), _speaker(_STDERR))
    if outcome.exit_code is None:
        raise CardJam(f"the command was ended: {_reason(outcome)}", where=room.found.node.id)
    return outcome.exit_code


def _speaker(fd: int) -> Callable[[bytes], None]:
    sys.stdout.flush()
    show = os.isatty(fd)

    def say(data: bytes) -> None:
        if show:
            data = terminal.plain(data.decode("utf-8", errors="backslashreplace")).encode()
        while data:
            data = data[os.write(fd, data) :]

    return say


def _reason(outcome: Outcome) -> str:
    words = {
        "memory": "it used more memory than it may",
        "processes": "it used more processes than it may",
        "output": "it wrote more than it may",
        "log": "it wrote more errors than it may",
        "disk": "the disk is full",
        "scarce": "the machine's memory is nearly gone",
        "cancelled": "as you wished",
    }
    return words.get(outcome.reason, outcome.reason)


class _Visit:
    """A person in the cell of a card."""

    def __init__(self, services: Services, room: Room, save: Path | None) -> None:
        self._services = services
        self._room = room
        self._save = save
        self._resized = False
        self._before: bytes | None = None

    def go(self, *, only_menu: bool) -> int:
        """Be there until it is left; then see what became of the configuration."""
        from anvil.mainframe.shellcell import MENUCONFIG

        if only_menu:
            outcome = self._menu()
        else:
            self._greet()
            if self._room.has_kconfig and self._has_config():
                self._before = self._room.config()
            while (outcome := self._talk(self._room.interact)).exit_code == MENUCONFIG and self._room.has_kconfig:
                self._menu_or_say_why_not()
                print("back in the shell", file=sys.stderr)
        if self._before is not None:
            self._tell_difference()
        if outcome.exit_code is None:
            print(f"anvil: the cell was ended: {_reason(outcome)}", file=sys.stderr)
        return 0 if outcome.exit_code is not None else 1

    def _greet(self) -> None:
        room = self._room
        lines = [
            f"the cell of {room.found.node.id}, {room.state}; nothing that you do here is kept",
            "its script: arrow-up runs it (/tmp/card.sh); its inputs: /in; what it gives: /out",
            "exit or Ctrl-D leaves; Ctrl-] three times ends the cell, whatever it does",
        ]
        if room.has_kconfig:
            lines.append("menuconfig changes its options; at the end the difference is saved as a fragment")
        print("".join(f"  {terminal.plain(line)}\n" for line in lines), end="", file=sys.stderr)

    def _has_config(self) -> bool:
        said: list[bytes] = []
        return self._room.run("test -f .config", said.append, said.append).exit_code == 0

    def _menu(self) -> Outcome:
        from anvil.mainframe.images import ensure_image
        from anvil.mainframe.shellcell import MENU_IMAGE

        if not self._room.has_kconfig:
            raise UsageError(
                f"the tree of {self._room.found.node.id} has no Kconfig", hint="anvil shell kernel/config --menuconfig"
            )
        print("making ready for menuconfig …", file=sys.stderr)
        ensure_image(self._services, MENU_IMAGE)
        config = self._room.config()  # made by the card's script where there is none
        self._before = self._before or config
        return self._talk(self._room.menuconfig)

    def _menu_or_say_why_not(self) -> None:
        """From a shell, which goes on whatever comes of it."""
        try:
            self._menu()
        except Interrupted:
            raise
        except AnvilError as error:
            terminal.show_error(error)

    def _talk(self, enter: Callable[..., Outcome]) -> Outcome:
        """Give the cell the keyboard and the screen."""
        from anvil.cell.terminal import Caller, Size, raw

        def on_resize(_number: int, _frame: object) -> None:
            self._resized = True

        sys.stderr.flush()
        handler = signal.signal(signal.SIGWINCH, on_resize)
        try:
            with raw(_STDIN, _STDOUT):
                caller = Caller(keyboard=_STDIN, screen=_STDOUT, resized=self._new_size)
                return enter(caller, Size.of(_STDOUT), _term())
        finally:
            signal.signal(signal.SIGWINCH, handler)

    def _new_size(self) -> Size | None:
        from anvil.cell.terminal import Size

        if not self._resized:
            return None
        self._resized = False
        return Size.of(_STDOUT)

    def _tell_difference(self) -> None:
        from anvil.mainframe import shellconfig

        before = shellconfig.parse_config(self._before or b"")
        changed = shellconfig.difference(before, shellconfig.parse_config(self._room.config()))
        if not changed:
            print("  the configuration is as it was: nothing to save", file=sys.stderr)
            return
        card = self._room.found.node.id
        text = shellconfig.fragment(changed, title=f"The options that differ from those of {card}.")
        path = self._save or self._place()
        path = _write_new(path, text)
        print(f"  {len(changed)} options differ; saved: {path}", file=sys.stderr)
        self._tell_use(path)

    def _place(self) -> Path:
        """Where the fragment goes: beside the project's recipe, else here."""
        name = f"{self._room.found.node.recipe}.fragment"
        recipe = self._own_recipe()
        project = self._services.settings.project
        return project / "recipes" / recipe / name if project and recipe else Path(name)

    def _own_recipe(self) -> str:
        """The project's recipe that is being forged; the only one there is; else none."""
        project = self._services.settings.project
        own = sorted(path.stem for path in (project / "recipes").glob("*.py")) if project else []
        wanted = self._room.found.recipe
        return wanted if wanted in own else own[0] if len(own) == 1 else ""

    def _tell_use(self, path: Path) -> None:
        project = self._services.settings.project
        if self._room.found.node.recipe != "kernel":
            return
        recipe = self._own_recipe()
        beside = project / "recipes" if project else None
        if beside and path.is_relative_to(beside):
            where, name = f"recipes/{recipe}.py" if recipe else "your recipe", path.relative_to(beside)
        else:
            where, name = "your recipe, with the file beside it", Path(path.name)
        print(f'  add to {where}:  os.kernel_fragment(os.file("{name}"))', file=sys.stderr)
        if path.suffix != ".fragment":
            print(f"  or add its lines to those of {path.with_suffix('').name}, and remove it", file=sys.stderr)


def _write_new(path: Path, text: str) -> Path:
    """Write a file that is not there yet: under this name, or with the first free number behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        place = path if number == 0 else path.with_name(f"{path.name}.{number}")
        try:
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text)
        return place
    raise UsageError(f"there are a thousand files called {path.name}", where=str(path.parent), hint="--save FILE")
