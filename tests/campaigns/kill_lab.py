"""A shard of the campaign: one folder with a deck and a home, in which forges are killed turn by turn."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import pkgutil
import random
import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anvil
from tests.campaigns import kill_checks, kill_plan, kill_run
from tests.campaigns.fault_lab import Fault, State
from tests.campaigns.kill_checks import Books
from tests.campaigns.kill_run import Landed, Run
from tests.campaigns.small_deck import SmallDeck, Turn, empty_home, wrong_artifacts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.campaigns.kill_plan import Kill
    from tests.campaigns.kill_run import Story

JOBS = 2
TURNS_OF_A_HOME = 20
"""After so many turns a home has become big enough to make reading it slow, and another one is begun."""


@dataclass(kw_only=True)
class Turned:
    """What came of a turn. kills: those that hit; missed: runs that ended before theirs. problems: empty when all is
    as it must be. again: runs beyond the one that must end well, until the disk was swept."""

    number: int
    machines: bool
    kills: list[dict[str, Any]] = field(default_factory=list)
    missed: int = 0
    ran: int = 0
    runs: int = 0
    again: int = 0
    slowest_end: float = 0.0
    problems: list[str] = field(default_factory=list)


def import_all() -> None:
    """Import all of Anvil: what is forked from here must not read a file that has changed meanwhile."""
    for module in pkgutil.walk_packages(anvil.__path__, "anvil."):
        if not module.name.startswith("anvil.recipes"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


@dataclass(kw_only=True)
class Usual:
    """What a forge takes when nobody disturbs it: seconds and writing calls, and the same with nothing to do."""

    seconds: float
    calls: int
    least_seconds: float
    least_calls: int

    def rest(self, left: float) -> tuple[float, int]:
        """Seconds and calls of a forge that still has the part ``left`` of its cards to run, 0 to 1."""
        seconds = self.least_seconds + (self.seconds - self.least_seconds) * left
        return seconds, round(self.least_calls + (self.calls - self.least_calls) * left)


class Lab:
    """Forges the small deck in homes that borrow base images, and kills the forges."""

    def __init__(
        self, folder: Path, images: Path, *, state: Path | None = None, first: Callable[[], None] = lambda: None
    ) -> None:
        """state: the shim's file, when this process runs under it. first: called in each forge before it begins."""
        self.folder = folder
        self.home = folder / "home"
        self.output = folder / "build_artifacts"
        self.temporary = folder / "tmp"
        self._images = images
        self._state = State(state) if state else None
        self.first = first
        self.grace = kill_checks.GRACE
        self.longest = kill_run.LONGEST
        self._turns = 0
        self._usual: dict[bool, Usual] = {}
        kill_run.adopt_orphans()
        kill_checks.own_groups(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.deck = SmallDeck(folder)
        self.deck.use_locks()
        self.calibrate()

    def fresh(self) -> None:
        """An empty home and no artifacts."""
        for path in (self.home, self.output, self.temporary):
            shutil.rmtree(path, ignore_errors=True)
        empty_home(self.home, self._images)
        self.output.mkdir()
        self.temporary.mkdir()
        self._books = Books(self.home)
        self._turns = 0

    def calibrate(self) -> None:
        """See what an undisturbed forge takes, and one that has nothing to do."""
        for machines in (False, True):
            self.fresh()
            self.deck.write(Turn(nonce="calibration", machines=machines))
            (seconds, calls), (least_seconds, least_calls) = self._measured(), self._measured()
            self._usual[machines] = Usual(
                seconds=seconds, calls=calls, least_seconds=least_seconds, least_calls=least_calls
            )
        self.fresh()

    def _measured(self) -> tuple[float, int]:
        if self._state:
            self._state.set(Fault(), self.home, self.output)
        story = self._run(Turned(number=-1, machines=False)).finish()
        if story.code:
            raise SystemExit(f"the deck cannot be forged at all: {story.said}")
        calls = self._state.read()[0] if self._state else 0
        if self._state:
            self._state.set(Fault())
        return story.seconds, calls

    def turn(self, seed: int, number: int) -> Turned:
        """Carry out one turn of the seed."""
        made, kills = kill_plan.turn(seed, number)
        return self.carry_out(made, kills, number, random.Random(f"{seed} {number} targets"))

    def carry_out(self, made: Turn, kills: list[Kill], number: int, chance: random.Random) -> Turned:
        """Forge a deck; each run is killed but the last, which must end well."""
        if self._turns >= TURNS_OF_A_HOME:
            self.fresh()
        self._turns += 1
        self.deck.write(made)
        done = Turned(number=number, machines=made.machines)
        stories: list[Story] = []
        for kill in kills:
            punched = {card for story in stories for card in story.finished}
            stories.append(self._killed_run(made, kill, punched, chance, done))
        groups = kill_checks.dead_groups()
        last = self._run(done)
        story = last.finish()
        stories.append(story)
        if story.code or story.verdict != "done":
            done.problems.append(f"the next run ended with {story.code}, {story.verdict!r}: {story.said}")
        elif story.ran == len(made.cards):
            usual = self._usual[made.machines]
            usual.seconds += (story.seconds - usual.seconds) / 8
        done.problems += self._after(stories, made, groups, done)
        done.ran = sum(story.ran for story in stories)
        return done

    def _run(self, done: Turned) -> Run:
        done.runs += 1
        words = self.deck.words(self.home, self.output, jobs=JOBS)
        return Run(words, self.folder, first=self.first, longest=self.longest)

    def _killed_run(self, made: Turn, kill: Kill, punched: set[str], chance: random.Random, done: Turned) -> Story:
        """punched: the cards that need not run any more."""
        left = 1 - len(punched) / len(made.cards)
        seconds, calls = self._usual[made.machines].rest(left)
        if kill.op in {made.cards[card] for card in punched}:
            kill = replace(kill, op="")
        if kill.moment == "call":
            landed, story = self._killed_call(1 + int(kill.part * calls), done)
        else:
            run = self._run(done)
            landed = kill_run.strike(run, kill, usual=seconds, jobs=JOBS, chance=chance)
            hit = run.age
            story = run.finish()
            if landed is not None:
                done.slowest_end = max(done.slowest_end, round(story.seconds - hit, 2))
        if landed is None:
            done.missed += 1
            if story.code or story.verdict != "done":
                done.problems.append(f"a run that nobody killed ended with {story.code}: {story.said}")
        else:
            done.kills.append({**asdict(landed), "run": done.runs, "code": story.code})
            done.problems += ended_badly(landed, story)
        done.problems += kill_checks.processes_left(self.grace)
        done.problems += kill_checks.mounts_left(self.folder) + kill_checks.loops_left(self.folder)
        return story

    def _killed_call(self, at: int, done: Turned) -> tuple[Landed | None, Story]:
        """The shim kills whoever makes the nth call that writes."""
        if self._state is None:
            raise RuntimeError("this process does not run under the shim")
        self._state.set(Fault(at=at, error=-9), self.home, self.output)
        run = self._run(done)
        story = run.finish()
        _, hit, what = self._state.read()
        self._state.set(Fault())
        if not hit:
            return None, story
        where = what.replace(str(self.folder), "")
        who = "main" if story.code == -9 else "worker"
        ops = sorted(set(story.running.values()))
        landed = Landed(target="caller", moment="call", phase=story.phase, ops=ops, what=f"{at} {who} {where}"[:160])
        return landed, story

    def _after(self, stories: list[Story], made: Turn, groups: set[str], done: Turned) -> list[str]:
        """All that must hold after the run that had to end well."""
        found = kill_checks.processes_left(self.grace)
        found += kill_checks.mounts_left(self.folder) + kill_checks.loops_left(self.folder)
        found += kill_checks.groups_left(groups)
        found += wrong_artifacts(made, self.output)
        found += self._books.problems([claim for story in stories for claim in story.claims], vault=True)
        if left := kill_checks.files_left(self.home, self.output, self.temporary):
            # deleting what was thrown away is given a moment at a forge's end, and left to the next one after that
            done.again += 1
            self._run(done).finish()
            if left := kill_checks.files_left(self.home, self.output, self.temporary):
                found += left
        return found


def ended_badly(landed: Landed, story: Story) -> list[str]:
    """A killed run may end as it can, but not with a traceback, and not never."""
    if story.code is None:
        return [f"a run did not end after {landed.target} was killed"]
    if "Traceback" in story.errors or story.code == 70:
        return [f"a traceback after {landed.target} was killed: {story.errors[-3000:]}"]
    return []


def read(book: Path) -> list[Turned]:
    """The turns that a book has; a line that was cut off by a kill of the campaign itself is left out."""
    turns = []
    if book.exists():
        for line in book.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                turns.append(Turned(**json.loads(line)))
    return turns
