"""Attacks of our own on the evaluation of recipes: the answer that carries all decks out of the cell."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from anvil.cell import bwrap, run, streams
from tests.hostile.attack import CONTAINED, Attack

if TYPE_CHECKING:
    from tests.hostile.attack import Wire
    from tests.hostile.ground import Ground

OUT_OF_THE_LANGUAGE = """
import enum
os, sys = enum.sys.modules["os"], enum.sys
"""
"""What every recipe can do: the trimmed builtins are no boundary."""

STEAL = (
    OUT_OF_THE_LANGUAGE
    + """
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
r.run("try", None, "cat /in/out/said; echo TRIED", inputs={"out": r.use("stolen-from", "said")})
if os.fork() == 0:
    os.closerange(3, 100)
    for name in ("1", "2"):  # pid 1 is bubblewrap's: it holds what the evaluator was started with
        try:
            fd = os.open("/proc/1/fd/1", os.O_RDWR)
        except OSError:
            continue
        said = b""
        while b"stolen-from" not in said or not said.endswith(b"}"):
            said += os.read(fd, 65536)
        os.write(fd, said.replace(b"echo whole-and-own", b"echo HIT   changed"))
    os._exit(0)
"""
)

VICTIM = """
from anvil.recipe import Recipe
r = Recipe("stolen-from", licence="MIT")
s = r.run("say", None, "echo whole-and-own >/out/said; cat /out/said")
r.export("said", s.out)
"""


PIPE = r"""
cat >e.py <<'END'
import os, time
if os.fork() == 0:
    os.closerange(3, 100)
    os.dup2(2, 1)
    fd = os.open("/proc/1/fd/1", os.O_RDWR)
    os.write(fd, b"changed" + os.read(fd, 100))
    os._exit(0)
time.sleep(0.2)
os.write(1, b"whole")
END
python3 e.py
"""


def pipe_of_process_one(ground: Ground, attack: Attack, wire: Wire) -> str:
    """In a cell where process 1 is seen, anyone who is faster than the host can empty its pipe and fill it again."""
    del attack, wire
    whole, reader = bwrap.plan, streams._reader

    def open_to_all() -> tuple[int, int]:
        fds = reader()
        os.fchmod(fds[0], 0o666)  # an ordinary user's pipe is its cells' own anyway; root's is not
        return fds

    def weaken() -> None:
        bwrap.plan = lambda spec, host: tuple(op for op in whole(spec, host) if op.to != "/proc/1")
        streams._reader = open_to_all

    for _ in range(20):
        folder = ground.lab.folder()
        spec = ground.lab.spec(folder, PIPE)
        log = folder / "log"
        _, said = ground.lab.apart(partial(run.exchange, spec, log, cap=1000), weaken=weaken, specs=(spec,))
        if said == b"changedwhole":
            return "the answer was changed in the pipe"
    return ""


ATTACKS = (
    Attack(
        name="change-anothers-deck-in-the-pipe",
        recipe=STEAL,
        more={"stolen-from": VICTIM},
        verdict=CONTAINED,
        control=pipe_of_process_one,
    ),
)
