"""What an attack is, and what came of one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from tests.hostile.ground import Ground

HIT, TRIED = "HIT", "TRIED"

Kind = Literal["contained", "jammed", "refused", "lack", "crashed"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of one forge.

    kind: "contained" is a forge that ended well, whatever it tried; "crashed" is a bug of Anvil's. message: the
    error's sentence. log: what its cards printed. facts: whatever else matters, the artifacts' paths among it.
    """

    kind: Kind
    message: str = ""
    log: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hits(self) -> list[str]:
        """The lines in which an attempt says that it got through."""
        return [line for line in self.log.splitlines() if line.startswith(HIT)]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How an attack must end. reason: a regular expression that the message must match."""

    kind: Kind
    reason: str = ""

    def complaint(self, seen: Seen) -> str:
        """Why what was seen is not this verdict; "" when it is."""
        if seen.kind != self.kind:
            return f"{self.kind} was expected, it was {seen.kind}: {seen.message}"
        if not re.search(self.reason, seen.message):
            return f"the reason is not {self.reason!r}: {seen.message}"
        if seen.hits:
            return f"it got through: {seen.hits[0]}"
        if self.kind == "contained" and TRIED not in seen.log:
            return "it was not tried to its end"
        return ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


CONTAINED = Verdict(kind="contained")


def jammed(reason: str) -> Verdict:
    """A card jams, and its message says ``reason`` (a regular expression)."""
    return Verdict(kind="jammed", reason=reason)


def refused(reason: str) -> Verdict:
    """The recipe is refused before anything of it runs."""
    return Verdict(kind="refused", reason=reason)


def lack(reason: str) -> Verdict:
    """The machine lacks something; nothing is kept as the card's failure."""
    return Verdict(kind="lack", reason=reason)


@dataclass(kw_only=True)
class Wire:
    """A tripwire. marks: what stands for ``@KEY@`` in the recipe. harm: looks outside; "" when nothing happened."""

    marks: dict[str, str] = field(default_factory=dict)
    harm: Callable[[], str] = lambda: ""


@contextmanager
def no_wire(_ground: Ground) -> Iterator[Wire]:
    """The standing wires alone: the runner looks at them after every attack."""
    yield Wire()


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack; see the package's docstring."""

    name: str
    verdict: Verdict
    control: Callable[[Ground, Attack, Wire], str]
    script: str = ""
    recipe: str = ""
    cards: tuple[int, ...] = ()
    probe: bool = False
    more: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    wire: Callable[[Ground], AbstractContextManager[Wire]] = no_wire
    limits: Mapping[str, float] = field(default_factory=dict)
    as_user: Verdict | None = None
    attempt: Callable[[Ground, Attack, Wire], Seen] | None = None

    def expected(self, *, root: bool) -> Verdict:
        """The verdict for root or an ordinary user, where they differ (the fences do)."""
        return self.verdict if root or self.as_user is None else self.as_user

    def recipes(self) -> dict[str, str]:
        """The texts of its recipes, its own one first, marks not yet replaced."""
        text = self.recipe or one_card(self.script, probe=self.probe)
        return {self.name: text.replace("@NAME@", self.name), **self.more}


PROBE = "hostile-probe"
"""The recipe that makes the probe; it lies in every project of the suite."""


def one_card(script: str, *, probe: bool = False, more: str = "") -> str:
    """The text of a recipe of one card, ``try``; more: further lines, in which it is called ``t``."""
    inputs = f', inputs={{"probe": r.use("{PROBE}", "probe")}}' if probe else ""
    return (
        'from anvil.recipe import Recipe, archive, elf_static, human_json\nr = Recipe("@NAME@", licence="MIT")\n'
        f't = r.run("try", None, {script!r}, memory=512 * 1024 * 1024, wall=60{inputs})\n{more}\n'
    )
