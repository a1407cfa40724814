"""Why a card runs, or ran: what it is given now beside what it was given last, down to what began it.

Nothing is guessed: both sides are identities, the very things that card keys are hashes of. One is computed for the
plan, the other was noted when the card was last given it, and counts only when its hash is its key.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from anvil.mainframe.difference import Change, changes
from anvil.mainframe.history import Past, Scope
from anvil.mainframe.keys import Identity
from anvil.mainframe.lookup import Pinned
from anvil.mainframe.plan import Fate, node_identity
from anvil.microjson.codec import MicroJSON
from anvil.model.card import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anvil.cortex.records import PastCard
    from anvil.mainframe.graph import Graph
    from anvil.mainframe.plan import Planned
    from anvil.mainframe.services import Services


class Reason(Enum):
    """Why, in a word."""

    CHANGED = "changed"
    NEVER = "never ran"
    FORCED = "forced"
    JAMMED = "jammed"
    COLLECTED = "its result is gone"
    OTHER = "other bytes from the same inputs"
    UNKNOWN = "what it was given is not on record"
    SAME = "nothing changed"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A change, and for the output of another card why that one is, or is to be, another."""

    change: Change
    why: Why | None = None


@dataclass(frozen=True, kw_only=True)
class Why:
    """Why a card is what it is.

    fate: of the plan ("kept", "run", "may run"), or "ran" for a forge that is over. since: the forge whose result of
    the card is compared with ("" for none). now: the forge that is explained ("" for the plan). note: more in words.
    """

    card: str
    fate: str
    reason: Reason
    since: str = ""
    now: str = ""
    note: str = ""
    causes: tuple[Cause, ...] = ()

    @property
    def own(self) -> tuple[Change, ...]:
        """What changed that is no other card's output."""
        return tuple(cause.change for cause in self.causes if cause.change.own)

    def roots(self) -> Iterator[tuple[tuple[str, ...], Change | None, Why]]:
        """What began it: the way of cards down to each change (or reason) that is no other card's output."""
        yield from _roots(self, (self.card,), set())

    def as_data(self) -> dict[str, Any]:
        """As JSON; a card that is met again further down is only named there."""
        data = _as_data(self, set())
        data["roots"] = [
            {
                "cards": list(way),
                "reason": why.reason.value,
                "change": None if change is None else change.as_data(),
            }
            for way, change, why in self.roots()
        ]
        return data


def _roots(why: Why, way: tuple[str, ...], seen: set[str]) -> Iterator[tuple[tuple[str, ...], Change | None, Why]]:
    if why.card in seen:
        return
    seen.add(why.card)
    if not why.causes:
        yield way, None, why
    for cause in why.causes:
        if cause.why is None:
            yield way, cause.change, why
        else:
            yield from _roots(cause.why, (*way, cause.why.card), seen)


def _as_data(why: Why, seen: set[str]) -> dict[str, Any]:
    data: dict[str, Any] = {"card": why.card, "fate": why.fate, "reason": why.reason.value}
    if why.card in seen:
        return data
    seen.add(why.card)
    causes = [
        {**cause.change.as_data(), "why": None if cause.why is None else _as_data(cause.why, seen)}
        for cause in why.causes
    ]
    return {**data, "since": why.since, "now": why.now, "note": why.note, "changes": causes}


def _is_of_its_own(why: Why) -> bool:
    """Whether a card runs for a reason that is not only another card's output."""
    if why.fate == Fate.MAY_RUN.value and why.reason is Reason.UNKNOWN:
        return False
    return bool(why.own) or not why.causes


@dataclass(kw_only=True)
class Explainer:
    """Explains one plan, and the forges before it. scope: which of these are looked at first."""

    services: Services
    graph: Graph
    plan: Mapping[str, Planned]
    scope: Scope
    _past: dict[str, Past] = field(default_factory=dict)
    _met: dict[tuple[str, str, str], Why] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lookup = Pinned(self.services, self.graph.files)

    # ---- the questions

    def why(self, card: str) -> Why:
        """Why a card of the plan runs; of a kept one, why it ran last."""
        if self.plan[card].fate is Fate.KEPT:
            return self._why_it_ran(card)
        return self._why_it_runs(card)

    def all(self) -> list[Why]:
        """Every card that runs, or may run, for a reason of its own; when all is kept, of those that ran last."""
        to_do = [name for name, planned in self.plan.items() if planned.fate is not Fate.KEPT]
        if to_do:
            return [each for each in map(self._why_it_runs, to_do) if _is_of_its_own(each)]
        deck = next((forge.deck for forge in self.scope.forges() if self.past(forge.deck).rows), "")
        ran = [row.id for row in self.past(deck).rows.values() if row.ran and row.id in self.plan]
        return [each for each in map(self._why_it_ran, ran) if _is_of_its_own(each)]

    def past(self, deck: str) -> Past:
        """A forge that was."""
        if deck not in self._past:
            self._past[deck] = Past(self.services.db, deck)
        return self._past[deck]

    # ---- the plan beside the last result

    def _why_it_runs(self, card: str) -> Why:
        planned = self.plan[card]
        fate = planned.fate.value
        history = self.scope.sorted(self.services.db.past_of_card(card))
        last = next((row for row in history if row.stat is Status.PUNCHED), None)
        if history and history[0].stat is Status.JAMMED and history[0].key in {planned.key, ""}:
            return Why(card=card, fate=fate, reason=Reason.JAMMED, since=history[0].deck, note=self._jam(history[0]))
        if last is None:
            if self.services.db.runs([card]):
                note = "it ran before what goes into cards was noted; from its next run on this is known"
                return Why(card=card, fate=fate, reason=Reason.UNKNOWN, note=note)
            return Why(card=card, fate=fate, reason=Reason.NEVER)
        return self._compared(card, self.past(last.deck), None)

    def _jam(self, row: PastCard) -> str:
        ret = self.past(row.deck).rows[row.id].ret
        return str(MicroJSON.decode(ret)["data"].get("message", "")) if ret else ""

    # ---- a forge beside the one before

    def _why_it_ran(self, card: str) -> Why:
        history = self.scope.sorted(self.services.db.past_of_card(card))
        ran = next((row for row in history if row.ran), None)
        if ran is None:
            return Why(card=card, fate="kept", reason=Reason.SAME, note="it is kept, and no forge on record ran it")
        earlier = [row for row in history if row.seq < ran.seq]
        last = next((row for row in earlier if row.stat is Status.PUNCHED), None)
        if last is None:
            jam = next((row for row in earlier if row.stat is Status.JAMMED), None)
            if jam is not None and jam.key == ran.key:
                return Why(
                    card=card, fate="ran", reason=Reason.JAMMED, since=jam.deck, now=ran.deck, note=self._jam(jam)
                )
            return Why(card=card, fate="ran", reason=Reason.NEVER, now=ran.deck)
        return self._compared(card, self.past(last.deck), self.past(ran.deck))

    # ---- both

    def _compared(self, card: str, then: Past, now: Past | None) -> Why:
        """A card in two forges, or (now None) in a forge and the plan, with the cards above it."""
        place = (card, then.deck, now.deck if now else "")
        if place in self._met:
            return self._met[place]
        fate = self.plan[card].fate.value if now is None else ("ran" if now.ran(card) else "kept")
        made = partial(Why, card=card, fate=fate, since=then.deck, now=now.deck if now else "")
        one, two = then.identity(card), now.identity(card) if now else self._identity(card)
        if one is None or two is None:
            absent = card not in (then.rows if one is None else now.rows if now else {})
            reason = Reason.NEVER if absent else Reason.UNKNOWN
            note = "it is not in that forge" if absent else ""
            found = made(reason=reason, note=note)
        elif two.key and one.key == two.key:
            found = made(reason=self._same(card, two.key, now), note=self._when_gone(two.key))
        else:
            causes = []
            for change in changes(one, two, self._lookup):
                above = None
                if change.what == "card" and not change.own:
                    above = self._compared(change.name, then, now)
                causes.append(Cause(change=change, why=above))
            found = made(reason=Reason.CHANGED, causes=tuple(causes))
        self._met[place] = found
        return found

    def _same(self, card: str, key: str, now: Past | None) -> Reason:
        """Why a card whose inputs are the same runs, or gave something else, all the same."""
        if now is None and card in self.services.settings.forced:
            return Reason.FORCED
        if now is None:
            return Reason.OTHER if self.plan[card].fate is Fate.KEPT else Reason.COLLECTED
        if not now.ran(card):
            return Reason.OTHER
        # a forge that is told to run a card forgets its result itself, just before
        return Reason.FORCED if now.began <= self.services.db.forgotten(key) else Reason.COLLECTED

    def _when_gone(self, key: str) -> str:
        gone = self.services.db.forgotten(key)
        return f"forgotten {time.strftime('%F %T', time.localtime(gone / 1e6))}" if gone else ""

    def _identity(self, card: str) -> Identity | None:
        """What a card of the plan is given, as far as that is known now."""
        planned = self.plan.get(card)
        if planned is None or planned.identity is not None:
            return planned.identity if planned else None
        node = planned.node
        results = {name: result for name in node.needs if (result := self.plan[name].result) is not None}
        identity = node_identity(node, results, self.services.reference)
        if node.base and self.plan[node.base].node.keep == "out":  # it never leaves a tree to start from
            return Identity.of(node, base=[], inputs=identity.body["inputs"])
        return identity
