"""A jam told in full: what failed, where in the recipe, why, and what of the machine may matter."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.mainframe import shellstate
from anvil.mainframe.book import RecipeBook
from anvil.mainframe.forge import describe_jam, forge_command
from anvil.mainframe.graph import Node
from anvil.mainframe.shell import forge_of
from anvil.mainframe.symptoms import Symptom, pick, script_line
from anvil.microjson.codec import MicroJSON, parse_canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.mainframe.outcome import Jam
    from anvil.mainframe.services import Services
    from anvil.model.card import Card

_LOG_BYTES = 256 * 1024 * 1024
_RECIPE_BYTES = 4 * 1024 * 1024
_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class JamReport:
    """A jammed card.

    op: what kind of card it is. attempts: how often it was tried. line: where its recipe names the step, 0 if that was
    not found. script_line: the line of its script that bash complained about, number and text ((0, "") for none).
    symptoms: lines of the log that are likely to say why. state_kept: its tree is as the failure left it, for
    ``anvil shell``. memory, wall: what it may use, bytes and seconds. disk_free, memory_free: bytes, now. jobs: of its
    forge. recipe, profile, project: what was being forged.
    """

    jam: Jam
    op: str
    attempts: int
    line: int
    script_line: tuple[int, str]
    symptoms: tuple[Symptom, ...]
    state_kept: bool
    memory: int
    wall: int
    disk_free: int
    memory_free: int
    jobs: int
    recipe: str
    profile: str
    project: str

    def as_data(self) -> dict[str, Any]:
        """For a program."""
        number, text = self.script_line
        return {
            **vars(self.jam),
            "tail": list(self.jam.tail),
            "op": self.op,
            "attempts": self.attempts,
            "line": self.line,
            "script_line": {"line": number, "text": text} if number else None,
            "symptoms": [vars(symptom) for symptom in self.symptoms],
            "state_kept": self.state_kept,
            "limits": {"memory": self.memory, "wall": self.wall},
            "machine": {"disk_free": self.disk_free, "memory_free": self.memory_free, "jobs": self.jobs},
            "forge": {"recipe": self.recipe, "profile": self.profile, "project": self.project},
        }


def report(services: Services, card: Card) -> JamReport:
    """All that is known of a jammed card."""
    node = Node.from_data(MicroJSON.decode(card.pld)["data"])
    forge = forge_of(services, card.deck)
    machine = parse_canonical(forge.machine) if forge else {}
    wanted = forge.recipe if forge else node.recipe
    profile, project = machine.get("profile", "debian"), machine.get("project", "")
    jam = describe_jam(services, card, forge_command(wanted, profile, project))
    if found := RecipeBook(project=Path(project) if project else None).paths.get(node.recipe):
        jam = replace(jam, recipe=str(found))  # where the forge found it, wherever it is asked for
    log = Path(jam.log) if jam.log else None
    with shellstate.held(services, card.deck, card.id) as kept:
        state_kept = kept is not None
    return JamReport(
        jam=jam,
        op=card.op,
        attempts=card.attempts,
        line=_line_of(Path(jam.recipe), card.id.partition("/")[2]),
        script_line=script_line(_lines(log), node.script) if log else (0, ""),
        symptoms=pick(_lines(log)) if log else (),
        state_kept=state_kept,
        memory=node.memory,
        wall=node.wall,
        disk_free=shutil.disk_usage(services.home.path).free,
        memory_free=_memory_free(),
        jobs=machine.get("jobs", services.settings.jobs),
        recipe=wanted,
        profile=profile,
        project=project,
    )


def _lines(log: Path) -> Iterator[str]:
    """A log's lines, or its first quarter of a gigabyte; a line that is longer than 64 KiB is taken for several."""
    with log.open("rb") as file:
        read = 0
        while read < _LOG_BYTES and (line := file.readline(_LINE_BYTES)):
            read += len(line)
            yield line.decode("utf-8", errors="backslashreplace")


def _line_of(recipe: Path, step: str) -> int:
    """The first line of a recipe that has a step's name in quotes; 0 for none. It is only read as text."""
    name = re.escape(step.partition(":")[2] or step)
    quoted = re.compile(rf"""(["']){name}\1""")
    try:
        fd = os.open(recipe, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file.read(_RECIPE_BYTES).splitlines(), start=1):
                if quoted.search(line):
                    return number
    except OSError:
        return 0
    return 0


def _memory_free() -> int:
    """MemAvailable of proc(5), bytes."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
