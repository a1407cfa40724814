"""What is killed when: drawn from a seed, so that a turn of the campaign can be done again alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.campaigns.small_deck import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

Target = Literal["main", "worker", "host worker", "evaluation", "cell", "machine", "all", "caller"]
"""main: the forge's first process. worker, host worker: one that runs cards, one that fetches. evaluation, cell: a
process of the cell in which recipes are evaluated, of a card's cell. machine: QEMU. all: every process of the forge at
once. caller: whichever process makes the nth call that writes."""

_TARGETS: Mapping[Target, int] = {
    "main": 20, "worker": 18, "host worker": 6, "evaluation": 7, "cell": 16, "machine": 9, "all": 12, "caller": 30,
}  # fmt: skip
_EVENTS = ("plan", "claimed", "claimed", "claimed", "punched", "punched", "released")
_MACHINES_IN = 0.4
"""The part of turns that have machines."""
_AGAIN = 0.68
"""How often the run after a kill is killed too."""
_MOST = 8


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill. moment: "time" (a part of the run's usual time), "event" (right after a message of the forge), or
    "call". part: which part of the time or of the calls, 0 to 1. event, op: the message, and the operation of its card
    ("": any). later: seconds after the moment."""

    target: Target
    moment: str
    part: float
    event: str = ""
    op: str = ""
    later: float = 0.0


def turn(seed: int, number: int) -> tuple[Turn, list[Kill]]:
    """The deck of a turn, and the kills: one, and those of the runs after it."""
    chance = random.Random(f"{seed} {number}")
    made = Turn(nonce=f"s{seed}n{number}", machines=chance.random() < _MACHINES_IN)
    kills = [_kill(chance, made, first=True)]
    while len(kills) < _MOST and chance.random() < _AGAIN:
        kills.append(_kill(chance, made, first=False))
    return made, kills


def _kill(chance: random.Random, made: Turn, *, first: bool) -> Kill:
    weights = dict(_TARGETS)
    if not made.machines:
        del weights["machine"]
    if not first:
        weights["evaluation"] = 1  # recipes are evaluated once, unless that was what was killed
    (target,) = chance.choices(list(weights), list(weights.values()))
    part = chance.random()
    if target == "caller":
        return Kill(target=target, moment="call", part=part)
    if target == "evaluation":
        return Kill(target=target, moment="time", part=0, later=chance.uniform(0, 0.08))
    if target == "machine":
        return Kill(target=target, moment="time", part=0, later=chance.uniform(0, 0.4))
    if chance.random() < 0.5:
        return Kill(target=target, moment="time", part=part)
    event = chance.choice(_EVENTS)
    op = chance.choice(sorted(set(made.cards.values()))) if event in {"claimed", "punched"} else ""
    later = chance.choice((0.0, chance.uniform(0, 0.03)))
    return Kill(target=target, moment="event", part=part, event=event, op=op, later=later)
