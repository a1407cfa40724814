"""Negative controls: the same attempt where it must succeed. Each answers with what was seen of the success."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hostile.attack import HIT, TRIED
from tests.hostile.ground import replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hostile.attack import Attack, Verdict, Wire
    from tests.hostile.ground import Ground

    Control = Callable[[Ground, Attack, Wire], str]


def without(*layers: Callable[[], None], ends: Verdict | None = None, fresh: bool = False) -> Control:
    """The same recipe, forged in another home with some layers taken away.

    Its success is a HIT, or harm that the wire sees, or that it is no longer refused, or an end as ``ends`` says.
    fresh: in a home of its own, which may be harmed.
    """

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        seen = ground.forge(attack, wire, home=ground.fresh_home() if fresh else ground.weak, weaken=layers)
        passes = seen.kind == "contained" != attack.verdict.kind and TRIED in seen.log
        ground.note = f"{seen.kind}: {seen.message}\n{seen.log[-1000:]}"
        if ends and not ends.complaint(seen):
            return str(ends)
        return "\n".join(seen.hits) or wire.harm() or ("it passes" if passes else "")

    return control


def outside(*, as_root: bool = False, shell: str = "ulimit -c 0") -> Control:
    """The same script, on the host; shell: what bash does first, a bound on what could harm."""

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        said = ground.outside(attack.script, wire.marks, as_root=as_root, shell=shell)
        return "\n".join(line for line in said.splitlines() if line.startswith(HIT)) or wire.harm()

    return control


def left(look: Callable[[Ground, Path], str]) -> Control:
    """What the script leaves in ``/out`` of a bare cell, before anything of it is collected; look: (ground, out)."""

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        result = ground.lab.cell(replaced(attack.script, wire.marks))
        return look(ground, result.out)

    return control


def all_of(*controls: Control) -> Control:
    """Several controls, each of which must be red; their evidence together."""

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        seen = [one(ground, attack, wire) for one in controls]
        return "\n".join(seen) if all(seen) else ""

    return control


def by_user(*, root: Control, user: Control) -> Control:
    """Another control for each kind of user."""

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        return (root if ground.root else user)(ground, attack, wire)

    return control
