"""The evaluation cell: a recipe's own Python tries to reach the evaluator and the recipes evaluated beside it.

What it achieved there it writes into its deck, so that the log of its card tells it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cell import bwrap
from anvil.mainframe import cellwork
from anvil.mainframe.evaluation import EVALUATE
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, Attack, refused
from tests.hostile.controls import without

if TYPE_CHECKING:
    from tests.hostile.attack import Seen, Wire
    from tests.hostile.ground import Ground

ESCAPE = """
from anvil.recipe import Recipe
builtins = Recipe.deck.__globals__["__builtins__"]
bring = builtins["__import__"]
os, signal, time, ctypes, socket = (bring(name) for name in ("os", "signal", "time", "ctypes", "socket"))
found = []
"""

REPORT = """
r = Recipe("@NAME@", licence="MIT")
r.run("try", None, "".join(f"echo 'HIT {what}'\\n" for what in found) + "echo TRIED")
"""

FIRST_PROCESS = (
    ESCAPE
    + """
for path in ("/proc/1/mem", "/proc/1/task/1/mem", f"/proc/{os.getppid()}/mem"):
    try:
        with builtins["open"](path, "r+b"):
            found.append(path)
    except OSError:
        pass
for path in ("/proc/1/fd", f"/proc/{os.getppid()}/fd", "/proc/1/map_files"):
    try:
        for name in os.listdir(path):
            os.readlink(f"{path}/{name}")
            found.append(f"{path}/{name}")
    except OSError:
        pass
os.kill(1, signal.SIGKILL)
"""
    + REPORT
)

SURVIVOR = (
    ESCAPE
    + """
me = os.getpid()
if os.fork() == 0:
    os.setsid()
    os.close(2)
    while os.getppid() == me:
        time.sleep(0.001)
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
"""
    + REPORT
    + """
r.export("x", r.run("other", None, "cp /in/x /out/", inputs={"x": r.use("@NAME@-victim", "x")}).out)
"""
)

VICTIM = """
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
r.export("x", r.run("x", None, "echo x >/out/x").out / "x")
for n in range(200_000):
    n = n * n
"""

# An older brother that lives on and waits for the next recipe's process, to write into it.
BROTHER = (
    ESCAPE
    + """
me, evaluator = os.getpid(), os.getppid()
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 8
    while time.monotonic() < end:
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (me, evaluator, os.getpid()):
                try:
                    with builtins["open"](f"/proc/{name}/mem", "r+b"):
                        with builtins["open"]("/tmp/reached", "w"):
                            os._exit(0)
                except OSError:
                    pass
"""
    + REPORT
    + """
r.export("x", r.run("other", None, "cp /in/x /out/", inputs={"x": r.use("@NAME@-victim", "x")}).out)
"""
)

WATCHER = (
    ESCAPE
    + """
time.sleep(0.5)
if os.path.exists("/tmp/reached"):
    found.append("an older recipe could write into the memory of this one")
"""
    + REPORT
    + """
r.export("x", r.run("x", None, "echo x >/out/x").out / "x")
"""
)

LANGUAGE = (
    ESCAPE
    + """
for path in ("/in/language/anvil/recipe/evaluate.py", "/in/language/anvil/x.py", "/usr/lib/python3/x.py", "/etc/x"):
    try:
        with builtins["open"](path, "a"):
            found.append(path)
    except OSError:
        pass
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        socket.socket(family, socket.SOCK_DGRAM).connect(("192.0.2.1", 53) if family == 2 else ("2001:db8::1", 53))
        found.append("a network")
    except OSError:
        pass
"""
    + REPORT
)

ENDLESS = (
    ESCAPE
    + """
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.alarm(0)
while True:
    pass
"""
)


def evaluator(change: str) -> None:
    """Run the evaluator with something in it changed first."""
    start = "import sys; sys.path.insert(0, '/in/language'); from anvil.recipe import evaluate; "
    vars(cellwork)["EVALUATE"] = (*EVALUATE[:-1], f"{start}{change}; evaluate.main()")


def not_the_first() -> None:
    """The evaluator is not the first process, and that one is not covered: bubblewrap's own, of the same uid."""
    real = bwrap._ARGUMENTS["isolate"]
    bwrap._ARGUMENTS["isolate"] = lambda op, at: [word for word in real(op, at) if word != "--as-pid-1"]
    for act in ("tmpfs", "freeze"):
        Without.operation(act, "/proc/1")()
    evaluator("evaluate._end_all_others = lambda: None")


def survivors_live() -> None:
    """What a recipe leaves running lives on beside the next one."""
    evaluator("evaluate._end_all_others = lambda: None")


def open_to_each_other() -> None:
    """And processes do not bar their memory."""
    evaluator("evaluate._end_all_others = evaluate._close_to_children = lambda: None")


def a_minute_for_each() -> None:
    """No bound on one recipe but the cell's; which is lowered here, for the control to end."""
    evaluator("evaluate.RECIPE_SECONDS = 3600")
    cellwork.EVALUATION_SECONDS = 4


def shortly(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """With two seconds for a recipe in the place of ten."""
    return ground.forge(attack, wire, weaken=(lambda: evaluator("evaluate.RECIPE_SECONDS = 2"),))


def writable_language() -> None:
    """Inputs and root are not read-only, and there is a network."""
    bwrap._ARGUMENTS["read-only"] = bwrap._ARGUMENTS["read-write"]
    for path in ("/in", "/dev"):
        Without.operation("freeze", path)()
    Without.isolation("--unshare-net")()


def victim(name: str, text: str) -> dict[str, str]:
    """The recipe that is evaluated after an attack's own."""
    return {f"{name}-victim": text.replace("@NAME@", f"{name}-victim")}


ATTACKS = (
    Attack(
        name="evaluation-write-into-the-first-process", recipe=FIRST_PROCESS, verdict=CONTAINED,
        control=without(not_the_first),
    ),
    Attack(
        name="evaluation-kill-the-next-recipe", recipe=SURVIVOR, verdict=CONTAINED,
        more=victim("evaluation-kill-the-next-recipe", VICTIM),
        control=without(survivors_live, ends=refused("ended its own")),
    ),
    Attack(
        name="evaluation-write-into-the-next-recipe", recipe=BROTHER, verdict=CONTAINED,
        more=victim("evaluation-write-into-the-next-recipe", WATCHER),
        control=without(open_to_each_other),
    ),
    Attack(
        name="evaluation-change-the-language", recipe=LANGUAGE, verdict=CONTAINED, control=without(writable_language)
    ),
    Attack(
        name="evaluation-without-end", recipe=ENDLESS, verdict=refused("took too long"), attempt=shortly,
        control=without(a_minute_for_each, ends=refused("took too much.*wall")),
    ),
)  # fmt: skip
