"""A terminal made for a cell: it is a real one, and the caller's own is out of reach."""

from __future__ import annotations

import contextlib
import os
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cell import run
from anvil.cell.terminal import LEAVE_KEY, Caller, Size, converse, raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.spec import CellSpec, Outcome
    from tests.cell.cell_lab import Lab

pytestmark = pytest.mark.cell

WITH_A_TERMINAL = ("setsid", "--ctty", "--wait", "/bin/bash", "-uc")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a caller has after a cell. left: keys that wait at its keyboard. changed: its terminal has other modes."""

    outcome: Outcome
    screen: str
    left: bytes
    changed: bool


def handed_over(spec: CellSpec, log: Any, caller: Caller, size: Size) -> Outcome:
    """The control: the cell gets the caller's own terminal."""
    del size
    with run.enter(spec, log, caller.screen) as cell:
        while (outcome := cell.wait(0.05)) is None:
            caller.idle()
    return outcome


def visit(
    lab: Lab,
    script: str,
    *,
    keys: bytes = b"",
    size: Size | None = None,
    enter: Callable[..., Outcome] = converse,
    weaken: Callable[[], None] | None = None,
    listen: bool = True,
) -> Seen:
    """Be a person with a terminal, in a process apart, and run a script in a cell's terminal.

    keys, size: what that person types, and how large the window is made, when the script says "ready". listen: the
    keyboard is read for the cell; else what comes from it is kept in ``left``.
    """
    folder = lab.folder()
    spec = lab.spec(folder, "", command=(*WITH_A_TERMINAL, script))

    def task() -> Seen:
        person, tty = os.openpty()
        before = termios.tcgetattr(tty)
        screen = bytearray()
        sizes = [size] if size else []
        left = bytearray()

        def look() -> None:
            nonlocal keys
            screen.extend(_waiting(person))
            if not listen:
                left.extend(_waiting(tty))
            if b"ready" in screen and keys:
                os.write(person, keys)
                keys = b""

        caller = Caller(
            keyboard=tty if listen else -1,
            screen=tty,
            resized=lambda: sizes.pop() if sizes and b"ready" in screen else None,
            idle=look,
        )
        with raw(tty, tty):
            mine = termios.tcgetattr(tty)
            outcome = enter(spec, folder / "log", caller, Size(rows=31, columns=97))
            changed = _modes(tty) != mine
        look()
        assert changed or termios.tcgetattr(tty) == before
        return Seen(outcome=outcome, screen=screen.decode("latin-1"), left=bytes(left), changed=changed)

    seen: Seen = lab.apart(task, weaken=weaken, specs=(spec,))
    return seen


def _modes(tty: int) -> list[Any]:
    """The modes of a terminal; none when the cell has hung it up."""
    try:
        return termios.tcgetattr(tty)
    except termios.error:
        return []


def _waiting(fd: int) -> bytes:
    os.set_blocking(fd, False)
    said = b""
    with contextlib.suppress(OSError):
        while block := os.read(fd, 4096):
            said += block
    return said


def test_it_is_a_terminal_of_the_size_that_was_asked_for(lab: Lab) -> None:
    seen = visit(lab, "stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all three; echo here > /dev/tty; exit 5")
    assert seen.outcome.exit_code == 5
    assert "31 97" in seen.screen
    assert "all three" in seen.screen
    assert "here" in seen.screen


def test_a_window_that_changes_is_told(lab: Lab) -> None:
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    assert "12 34" in visit(lab, script, size=Size(rows=12, columns=34)).screen


def test_keys_reach_the_cell(lab: Lab) -> None:
    assert "got hello" in visit(lab, "echo ready; read -r word; echo got $word; exit 0", keys=b"hello\r").screen


def test_ctrl_c_ends_what_is_in_the_foreground(lab: Lab) -> None:
    script = "trap 'echo stopped; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    assert visit(lab, script, keys=b"\x03").outcome.exit_code == 4


STUBBORN = "trap '' INT QUIT TSTP HUP TERM; stty raw; printf '\\033[?1049h'; echo ready; while :; do sleep 1; done"


def test_three_presses_end_what_nothing_else_ends(lab: Lab) -> None:
    seen = visit(lab, STUBBORN, keys=b"\x03\x04\x1c\x1a" + LEAVE_KEY * 3)
    assert seen.outcome.reason == "cancelled"
    assert seen.screen.index("\x1b[?1049l") > seen.screen.index("\x1b[?1049h")  # the person's own screen is back


def test_two_presses_do_not(lab: Lab) -> None:
    seen = visit(lab, "stty raw; echo ready; head -c 2 | od -An -tx1; exit 6", keys=LEAVE_KEY * 2)
    assert seen.outcome.exit_code == 6
    assert "1d 1d" in seen.screen


TYPE_INTO_IT = """python3 - <<'END'
import fcntl, termios
for letter in b'OWNED':
    try:
        fcntl.ioctl(1, termios.TIOCSTI, bytes([letter]))
    except OSError as error:
        print('refused', error.errno)
END
sleep 0.3
"""


def test_no_key_is_pushed_into_the_callers_terminal(lab: Lab, without: Any) -> None:
    """Two walls, each enough: the filter refuses, and the terminal is not the caller's."""
    seen = visit(lab, TYPE_INTO_IT, listen=False)
    assert "refused 1" in seen.screen
    assert seen.left == b""
    unfiltered = visit(lab, TYPE_INTO_IT, listen=False, weaken=without.filter)
    assert "refused" not in unfiltered.screen
    assert unfiltered.left == b""


def test_the_control_pushes_keys(lab: Lab, without: Any) -> None:
    with open("/proc/sys/dev/tty/legacy_tiocsti", encoding="ascii") as file:
        if file.read().strip() == "0":
            pytest.skip("this kernel refuses TIOCSTI to everybody")
    seen = visit(lab, TYPE_INTO_IT, listen=False, enter=handed_over, weaken=without.filter)
    assert seen.left == b"OWNED"


def test_the_modes_of_the_callers_terminal_stay(lab: Lab) -> None:
    script = "stty cooked -echo rows 7 intr x; exit 0"
    assert not visit(lab, script).changed
    assert visit(lab, script, enter=handed_over, listen=False).changed  # the control


def test_nothing_of_the_cell_outlives_it(lab: Lab) -> None:
    seconds = f"1000.{lab.uid}77"
    script = (
        f"setsid sleep {seconds} & (trap '' HUP; exec sleep {seconds}) & sleep 0.2; ps=$(ls -d /proc/[0-9]*); echo $ps"
    )
    assert visit(lab, f"{script}; exit 0").screen.count("/proc/") >= 4  # they did run
    words = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [word for word in words if seconds.encode() in word]


def test_much_output_is_passed_on_whole(lab: Lab) -> None:
    """More than any buffer on the way, read by nobody for a while."""
    folder = lab.folder()
    spec = lab.spec(folder, "", command=(*WITH_A_TERMINAL, "stty -onlcr; seq 1 100000; exit 0"))

    def task() -> bytes:
        with open(folder / "screen", "wb") as screen:
            outcome = converse(spec, folder / "log", Caller(keyboard=-1, screen=screen.fileno()), Size())
        assert outcome.exit_code == 0
        return (folder / "screen").read_bytes()

    said: bytes = lab.apart(task, specs=(spec,))
    assert said == b"".join(b"%d\n" % n for n in range(1, 100001))
