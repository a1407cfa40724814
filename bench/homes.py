"""Fresh homes and trivial projects, and forging in them as a person does: by the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cortex.db_interface import CortexDB
from anvil.mainframe.images import ensure_image
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.part import Scale

RECIPE = '''"""Cards that do nothing, each with a key of its own."""
from anvil.recipe import Recipe

r = Recipe("trivial", licence="MIT")
for n in range({cards}):
    r.export(f"e{{n}}", r.run(f"c{{n}}", None, f"true {{n}}", keep="out").out)
'''


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a command took, in seconds. cpu: of all its processes."""

    wall: float
    cpu: float


def timed(
    argv: list[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    watch: Callable[[int], None] = lambda _pid: None,
) -> Took:
    """Run a command to its end, its output thrown away; SystemExit with what it said when it fails.

    watch: is given its pid, and returns when it has ended (it is not waited for yet).
    """
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            text = said.read()[-4000:].decode(errors="replace")
            raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}:\n{text}")
    return Took(wall=wall, cpu=usage.ru_utime + usage.ru_stime)


@contextlib.contextmanager
def folder(scale: Scale) -> Iterator[Path]:
    """A scratch folder, gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix="anvil-bench-", dir=scale.scratch))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def images(scale: Scale) -> Path:
    """The folder of base images to borrow; the images that the cards need are made there if they are not there yet.

    It is that of ``scale.images_from``, else of the home that $ANVIL_BENCH_HOME or $ANVIL_HOME names, else of the
    user's own.
    """
    named = os.environ.get("ANVIL_BENCH_HOME") or os.environ.get("ANVIL_HOME")
    home = scale.images_from or (Path(named) if named else Path.home() / ".local" / "share" / "anvil")
    settings = Settings(home=home, output=home / "unused")
    with Services(settings) as services:
        for name in ("eval", "build"):
            ensure_image(services, name)
    return home / "images"


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project below ``top`` and an empty home. recipe: what is forged."""

    top: Path
    scale: Scale
    recipe: str

    @classmethod
    def make(
        cls, top: Path, scale: Scale, borrowed: Path | None, *, recipe: str = "trivial", text: str = ""
    ) -> Project:
        """Write the recipe ("": one that Anvil has) and make the home, which borrows base images if there are any."""
        (top / "project" / "recipes").mkdir(parents=True)
        if recipe == "trivial":
            text = RECIPE.format(cards=scale.cards)
        if text:
            (top / "project" / "recipes" / f"{recipe}.py").write_text(text, encoding="utf-8")
        (top / "home").mkdir(mode=0o700)
        if borrowed:
            (top / "home" / "images").symlink_to(borrowed)
        return cls(top=top, scale=scale, recipe=recipe)

    @property
    def home(self) -> Path:
        """Anvil's home."""
        return self.top / "home"

    @property
    def settings(self) -> Settings:
        """What a forge here is told."""
        return Settings(home=self.home, output=self.top / "out", project=self.top / "project", jobs=self.scale.lanes)

    @property
    def command(self) -> list[str]:
        """The command line of a forge here."""
        told = self.settings
        words = ["--home", str(told.home), "--output", str(told.output), "--project", str(told.project)]
        return [sys.executable, "-m", "anvil.cli.main", "forge", self.recipe, *words, "--jobs", str(told.jobs)]

    def forge(self) -> Took:
        """Forge it."""
        return timed(self.command, cwd=self.top)

    def push_to_stamp(self) -> float:
        """Seconds from the push of the deck to the last stamp of a card, by the ledger's own times."""
        with contextlib.closing(CortexDB(self.home / "cortex.db")) as db:
            pushed = db.events(kind=MessageID.CARD_PUSHED)
            stamped = db.events(kind=MessageID.CARD_PUNCHED)
        if len(stamped) < self.scale.cards:
            raise SystemExit(f"only {len(stamped)} of {self.scale.cards} cards were stamped")
        return (max(event.at_us for event in stamped) - min(event.at_us for event in pushed)) / 1e6
