"""Attacks of our own with recipes: the decks they give, the names in them, and what lies in a stranger's project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anvil.cell.spec import Limits
from anvil.mainframe import book, cellwork, evaluation
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.services import Services
from anvil.release import publish
from tests.apart import apart
from tests.hostile.attack import CONTAINED, HIT, Attack, Seen, Wire, lack, refused
from tests.hostile.controls import without
from tests.hostile.ground import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hostile.ground import Ground

# A recipe that changes its own deck behind the language's back: the last lines of its text say how.
BEHIND = """
from anvil.recipe import Recipe, human_json
r = Recipe("@NAME@", licence="MIT")
t = r.run("try", None, "printf '{\\\\n \\"a\\": 1\\\\n}\\\\n' >/out/f; echo TRIED")
step, steps, artifacts = r._steps["try"], r._steps, r._artifacts
def released(name):
    artifacts[name] = {"ref": (t.out / "f").data, "kind": human_json, "licence": "MIT", "redistribution": "",
                       "opener": {}}
"""


def unchecked() -> None:
    """No deck is checked on the host."""
    vars(evaluation)["check_deck"] = lambda *_words: None


def comes_further(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Without the host's check such a deck is planned as it is, or breaks what reads it."""
    ground.write(attack, wire)

    def draw() -> str:
        unchecked()
        with Services(ground.settings(ground.weak)) as services:
            try:
                return f"planned: {list(Architect(services).draw(attack.name).nodes)[-2:]}"[:300]
            except Exception as error:  # noqa: BLE001 -- whatever it breaks
                told = str(error)
        return "" if re.search(attack.verdict.reason, told) else f"it came as far as: {told}"[:300]

    return str(apart(draw))


def deck(name: str, change: str, reason: str) -> Attack:
    """A deck that the language would not make; the host must refuse it before anything of it runs."""
    return Attack(name=f"deck-{name}", recipe=BEHIND + change + "\n", verdict=refused(reason), control=comes_further)


DECKS = (
    deck("step-named-like-a-path", 'steps["x"] = {**step, "name": "../../../tmp/x"}', "is no name"),
    deck("artifact-outside-of-the-folder", 'released("../escaped")', "not a plain relative path"),
    deck("artifact-at-the-root", 'released("/tmp/anvil-hostile-escaped")', "not a plain relative path"),
    deck("artifact-with-a-newline", 'released("a\\nb")', "not a plain relative path"),
    deck("artifact-with-a-direction", 'released("exe.\\u202egpj")', "not a plain relative path"),
    deck("artifact-with-a-long-name", 'released("n" * 300)', "at most 200 characters"),
    deck("input-named-like-a-path", 'step["inputs"] = {"../../etc/passwd": t.out.data}', "cannot be called|earlier"),
    deck("operation-of-the-host", 'steps["x"] = {**step, "name": "x", "op": "fetch"}', "no operation of a recipe"),
    deck("result-of-another-recipe", 'step["base"] = "../@NAME@/try"', "no earlier step"),
    deck("file-beside-another-recipe", 'step["inputs"] = {"f": {"file": "../../../../etc/shadow"}}',
         "at most 200 characters"),
    deck("disk-with-an-option-of-qemu",
         'steps["v"] = {**step, "name": "v", "op": "forge", "script": "", "inputs": {"kernel": t.out.data, '
         '"initrd": t.out.data}, "extra": {"disks": [["a,file=/in/kernel", 512]], "append": "", "done": "x", '
         '"deterministic": False}}', "a disk cannot be called"),
    deck("disk-of-an-exabyte",
         'steps["v"] = {**step, "name": "v", "op": "forge", "script": "", "inputs": {"kernel": t.out.data, '
         '"initrd": t.out.data}, "extra": {"disks": [["a", 1 << 50]], "append": "", "done": "x", '
         '"deterministic": False}}', "no number from 1 to"),
    deck("number-that-fits-nowhere", 'step["limits"] = {"memory": 10 ** 15, "wall": 10 ** 12}', "no number from 1"),
    deck("set-uid-file", 'steps["w"] = {**step, "name": "w", "op": "write", "inputs": {}, "script": "", '
         '"extra": {"path": "x", "text": "x", "mode": 0o4755}}', "no number from 0 to 511"),
    deck("script-that-ends-early", 'step["script"] = "true\\0--bind / /host"', "a NUL"),
    deck("steps-without-number",
         'steps.update((f"s{n}", {**step, "name": f"s{n}"}) for n in range(10_001))', "more than 10000"),
    deck("of-another-recipe", 'r.name = "@NAME@"\nr.deck = None\n'
         'Recipe.deck = lambda self: {"recipe": "hostile-probe", "licence": "", "summary": "", "steps": [], '
         '"exports": {}, "artifacts": {}}\ndel r.__dict__["deck"]', "the deck is of"),
)  # fmt: skip

# What a recipe does to the process that evaluates it, besides what is tried in cards_evaluation.
OUT = """
import enum
os, sys = enum.sys.modules["os"], enum.sys
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
t = r.run("try", None, "echo TRIED")
"""


def evaluation_attack(name: str, change: str, reason: str, control: Callable[[], None]) -> Attack:
    """Something that the evaluation must end with a refusal."""
    return Attack(
        name=f"evaluation-{name}", recipe=OUT + change + "\n", verdict=refused(reason), control=without(control)
    )  # fmt: skip


def generous() -> None:
    """The evaluation cell may have ten times as much."""

    def more(**given: Any) -> Limits:
        return Limits(**{**given, "memory_bytes": 10 * given.get("memory_bytes", 1 << 30), "processes": 1000})

    vars(cellwork)["Limits"] = more
    cellwork.ANSWER_BYTES *= 4
    evaluation._DECK_LIMIT *= 4


EVALUATIONS = (
    evaluation_attack("memory", 'kept = [b"x" * (1 << 20) for _ in range(1200)]', r"took too much.*memory|MemoryError",
                      generous),
    evaluation_attack(
        "processes",
        "import itertools\nkept = []\nfor n in range(100):\n    pid = os.fork()\n    if pid == 0:\n"
        "        os.closerange(3, 64)\n        sys.modules['time'].sleep(2)\n        os._exit(0)\n"
        "    kept.append(pid)\n"
        "for pid in kept:\n    os.waitpid(pid, 0)", r"took too much.*processes|BlockingIOError", generous,
    ),
)  # fmt: skip

TWICE = (
    OUT
    + """
for fd in range(3, 64):  # one of them leads to the evaluator: an answer of the recipe's own, and then the real one
    try:
        os.write(fd, b'{"deck":{"artifacts":{},"exports":{},"licence":"","recipe":"@NAME@","steps":[],"summary":""}}')
    except OSError:
        pass
"""
)

TEXTS = {
    "evaluation-a-lone-surrogate": (OUT + 'r._steps["try"]["script"] = "echo \\ud800"', "surrogate|UTF-8|text"),
    "evaluation-a-giant-number": (OUT + 'r._steps["try"]["expect"] = 10 ** 6000', "number|integer|digits|2\\*\\*53"),
    "evaluation-a-deep-deck": (
        OUT + 'x = []\nfor n in range(100_000):\n    x = [x]\nr._steps["try"]["extra"] = {"x": x}',
        "deep|nest|recursion|Recursion|ended its own",
    ),
    "evaluation-an-answer-of-its-own": (TWICE, "took too long, or ended its own evaluation"),
    "evaluation-end-at-once": (OUT + "os._exit(0)", "ended its own evaluation"),
    "evaluation-threads-that-stay": (
        OUT + "import functools\nstart = sys.modules['_thread'].start_new_thread\n"
        "def spin():\n    while True:\n        pass\nstart(spin, ())\nwhile True:\n    pass", "took too long",
    ),
}  # fmt: skip


def same_in_python(ground: Ground, attack: Attack, wire: Wire) -> str:
    """An evaluator that called the recipe in its own process would be ended, hung or fooled by it."""
    from anvil.recipe import language

    body = replaced(attack.recipe, {"NAME": attack.name, **wire.marks})
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom anvil.recipe import language\n"
        "language.provide('debian', {})\n"
        f"exec(compile({body!r}, 'r.py', 'exec'), {{'__name__': 'r'}})\n"
        "import json; json.dumps(language.made()[0].deck()).encode()[:9]; print('done', flush=True)"
    )
    folder = ground.folder()
    source = str(os.path.dirname(os.path.dirname(os.path.dirname(language.__file__))))
    command = [sys.executable, "-c", program, source]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=5)
    except subprocess.TimeoutExpired:
        return "it never ended"
    if b"done" not in done.stdout:
        return f"it ended with {done.returncode}: {done.stderr.decode(errors='replace')[-100:]}"
    return "it gave such a deck"


ODD = tuple(
    Attack(name=name, recipe=text, verdict=refused(reason), control=same_in_python)
    for name, (text, reason) in TEXTS.items()
)

SURROUNDINGS = """
import enum
os, sys = enum.sys.modules["os"], enum.sys
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
found = [name for name in os.environ if "HOSTILE" in name or name in {"SSH_AUTH_SOCK", "ANVIL_HOME", "VIRTUAL_ENV"}]
for name in ("/etc/hostname", "/root", "/home", "/var/tmp"):
    try:
        found += [f"{name}/{inside}" for inside in os.listdir(name)]
    except OSError:
        pass
found += [str(fd) for fd in range(3, 64) if os.path.exists(f"/dev/fd/{fd}") and fd > 20]
if os.uname().nodename != "anvil":
    found.append("the host's name")
r.run("try", None, "".join(f"echo 'HIT {what}'\\n" for what in found) + "echo TRIED")
"""


def in_the_hosts_surroundings(ground: Ground, attack: Attack, wire: Wire) -> str:
    """The same lines, run by a Python of the host's, see them."""
    lines = attack.recipe.partition("found = ")[2].partition("r.run")[0]
    program = f"import os, sys\nfound = {lines}\nprint('HIT', *found[:3])"
    del ground, wire
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip() if len(done.stdout.split()) > 1 else ""


LOOT = """
import enum
sys = enum.sys
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
said = ""
frame = sys._getframe()
while frame:  # every recipe is handed the texts of all
    request = frame.f_locals.get("request")
    if isinstance(request, dict):
        said = "".join(request["recipes"].values())
    frame = frame.f_back
r.run("try", None, f"echo {'HIT it has the key' if 'PRIVATE' + ' KEY' in said else 'nothing'}; echo TRIED")
"""


@contextmanager
def linked_recipe(ground: Ground) -> Iterator[Wire]:
    """A secret of the user's, to which a link in the project leads that is called a recipe."""
    secret = ground.folder() / "id_ed25519"
    secret.write_text('"""BEGIN PRIVATE KEY"""\n', encoding="utf-8")
    link = ground.project / "recipes" / "loot.py"
    link.symlink_to(secret)
    yield Wire()
    link.unlink()


@contextmanager
def endless_recipe(ground: Ground) -> Iterator[Wire]:
    """A FIFO in the project that is called a recipe: who opens it waits."""
    fifo = ground.project / "recipes" / "waits.py"
    os.mkfifo(fifo)
    yield Wire()
    fifo.unlink()


def reads_through_links() -> None:
    """Recipes are read whatever they are."""

    def texts(self: book.RecipeBook) -> dict[str, str]:
        return {name: path.read_text("utf-8") for name, path in self.paths.items()}

    book.RecipeBook.texts = texts  # type: ignore[method-assign]


def opening_waits(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Who opens it as one opens a file waits for ever."""
    del attack, wire
    command = ["timeout", "2", "cat", str(ground.project / "recipes" / "waits.py")]
    return "it waited" if subprocess.run(command, check=False).returncode == 124 else ""


RELEASE = """
from anvil.recipe import Recipe, human_json
r = Recipe("@NAME@", licence="MIT")
t = r.run("try", None, "printf '{\\\\n \\"a\\": 1\\\\n}\\\\n' >/out/f; echo TRIED")
r.artifact("deep/key.json", t.out / "f", kind=human_json)
"""


def away(ground: Ground) -> Path:
    """Where links in the output lead."""
    return ground.place / "away"


@contextmanager
def linked_output(ground: Ground) -> Iterator[Wire]:
    """In the folder for artifacts there is a link that leads out of it."""
    away(ground).mkdir(exist_ok=True)
    for home in (ground.home, ground.weak):
        output = ground.settings(home).output
        output.mkdir(exist_ok=True)
        (output / "deep").symlink_to(away(ground))

    def harm() -> str:
        return ", ".join(path.name for path in away(ground).iterdir())

    yield Wire(harm=harm)
    for home in (ground.home, ground.weak):
        (ground.settings(home).output / "deep").unlink()


def follows_links() -> None:
    """What is published goes wherever a link leads."""
    vars(publish)["_refuse_detour"] = lambda _folder, _target: None


def by_command(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """Forge on the command line, in a project whose build_artifacts is a link."""
    ground.write(attack, wire)
    link, elsewhere = ground.project / "build_artifacts", ground.folder()
    link.symlink_to(elsewhere)
    words = ["forge", attack.name, "--project", str(ground.project), "--home", str(ground.home), "--offline"]
    done = subprocess.run(
        [sys.executable, "-m", "anvil.cli.main", *words, *wire.marks.get("MORE", "").split()], cwd=ground.project,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    link.unlink()
    found = sorted(path.name for path in elsewhere.rglob("*.json"))
    log = "\n".join(f"{HIT} {name} went elsewhere" for name in found)
    return Seen(kind="refused" if done.returncode == 2 else "contained", message=done.stderr, log=log)


def when_it_is_meant(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Who says that the link is meant gets what is asked for."""
    seen = by_command(ground, attack, Wire(marks={**wire.marks, "MORE": "--output build_artifacts"}))
    return "\n".join(seen.hits)


PROJECTS = (
    Attack(name="recipe-that-is-a-link-to-a-secret", recipe=LOOT, wire=linked_recipe,
           verdict=refused("loot cannot be read"), control=without(reads_through_links)),
    Attack(name="recipe-that-is-a-fifo", recipe=LOOT, wire=endless_recipe, verdict=refused("waits is not a file"),
           control=opening_waits),
    Attack(name="evaluation-looks-around", recipe=SURROUNDINGS, verdict=CONTAINED, control=in_the_hosts_surroundings),
    Attack(name="output-through-a-link", recipe=RELEASE, wire=linked_output, verdict=lack("leads .* elsewhere"),
           control=without(follows_links)),
    Attack(name="output-folder-that-is-a-link", recipe=RELEASE.replace("deep/", ""), attempt=by_command,
           verdict=refused("build_artifacts is a link"), control=when_it_is_meant),
)  # fmt: skip

ATTACKS = (*DECKS, *EVALUATIONS, *ODD, *PROJECTS)
