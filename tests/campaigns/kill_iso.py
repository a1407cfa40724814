"""``make campaign-kill-iso``: kill -9 in a forge of the real ISO, twice in the kernel's build, in one home to the end.

Each run is killed some time after a drawn number of cards have begun: the forge, all its processes, a worker, a
process of a cell, QEMU where it runs. What a kill throws away is made again, and nothing else. The last run must end
well, with all that the campaign of the small deck asks for.
"""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from anvil.microjson.registry import MessageID
from tests.campaigns import kill_checks, kill_run
from tests.campaigns.kill_checks import Books
from tests.campaigns.kill_lab import ended_badly
from tests.campaigns.kill_run import Run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from tests.campaigns.kill_plan import Target
    from tests.campaigns.kill_run import Story

KERNEL = "kernel/build"
_KERNEL_KILLS = 2
_KERNEL_FROM = 3
"""How many kills come before those."""
_LONGEST = 3 * 3600.0
_LATEST = 20.0
"""Seconds after a card's start at the latest: what runs long should not be thrown away late."""
_MISSES = 10
_PATIENCE = 10.0
"""Seconds to wait for a process of the kind that is to be killed, before the forge itself is killed instead."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Where a run is to be killed: so many seconds after a card, or so many cards, have begun.

    claims: 0 for a run that has none left.
    """

    target: Target
    later: float
    card: str = ""
    claims: int = 0

    def is_met(self, story: Story) -> bool:
        """Whether what is to have begun has."""
        return self.card in story.running if self.card else len(story.claims) >= self.claims


class Killing:
    """The forge of one recipe in one home; what was done is kept in a book and is not done again."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._recipe = args.recipe
        self._wanted = args.iso
        self._jobs = len(os.sched_getaffinity(0))
        self.folder = args.folder / f"iso-{args.recipe}"
        self._home = self.folder / "home"
        self._output = self.folder / "build_artifacts"
        self._temporary = self.folder / "tmp"
        self._book = self.folder / "kills.json"
        self._missed = 0
        self._chance = random.Random(f"{args.seed} {args.recipe}")
        self._books = Books(self._home)
        for path in (self._home, self._output, self._temporary):
            path.mkdir(parents=True, exist_ok=True)
        self._home.chmod(0o700)
        if args.images and not (self._home / "images").exists():
            (self._home / "images").symlink_to(args.images)
        kept = json.loads(self._book.read_text()) if self._book.exists() else {}
        self.done: dict[str, Any] = {
            "recipe": args.recipe,
            "kills": [],
            "runs": 0,
            "claims": [],
            "problems": [],
            **kept,
        }

    def carry_out(self) -> dict[str, Any]:
        """All kills, and the run that must end well."""
        while len(self.done["kills"]) < self._wanted:
            self._killed_run()
        groups = kill_checks.dead_groups()
        story = self._run().finish()
        self._note(story)
        problems = self.done["problems"]
        if story.code or story.verdict != "done":
            problems.append(f"the last run ended with {story.code}, {story.verdict!r}: {story.said}")
        problems += kill_checks.processes_left(kill_checks.GRACE)
        problems += kill_checks.mounts_left(self.folder) + kill_checks.loops_left(self.folder)
        problems += kill_checks.groups_left(groups)
        claims = [kill_run.Claim(**claim) for claim in self.done["claims"]]
        problems += self._books.problems(claims, vault=True)
        problems += kill_checks.files_left(self._home, self._output, self._temporary)
        problems += kill_checks.accounts_wrong(self._output, story.released)
        self.done["cards_run"] = self._books.ran
        self._keep()
        return {key: value for key, value in self.done.items() if key != "claims"}

    def _run(self) -> Run:
        self.done["runs"] += 1
        words = ["forge", self._recipe, "--home", str(self._home), "--output", str(self._output), "--json"]
        return Run(words, self.folder, longest=_LONGEST)

    def _killed_run(self) -> None:
        run = self._run()
        while not run.ended and not run.endless and run.story.phase == "start":
            run.pump(0.1)
        plan: dict[str, Any] = next((data["estimates"] for number, data in run.seen if number is MessageID.PLAN), {})
        estimates = {card: span["expected"] / 1000 for card, span in plan.items()}
        aim = self._aim(estimates, self._missed)
        due = None
        while not run.ended and not run.endless and (due is None or run.age < due):
            if due is None and aim.is_met(run.story):
                due = run.age + aim.later
            run.pump(0.05)
        target: Target = "machine" if {"forge", "boot"} & set(run.story.running.values()) else aim.target
        landed = kill_run.hit(run, target, jobs=self._jobs, chance=self._chance, patience=_PATIENCE)
        landed = landed or kill_run.hit(run, "main", jobs=self._jobs, chance=self._chance)
        story = run.finish()
        self._note(story)
        if landed is not None:
            landed.moment = aim.card or f"{aim.claims} cards had begun"
            self.done["kills"].append({**asdict(landed), "running": sorted(story.running), "code": story.code})
            self.done["problems"] += ended_badly(landed, story)
            self._missed = 0
        else:
            self._missed += 1
            if story.code:
                self.done["problems"].append(f"a run that nobody killed ended with {story.code}: {story.said}")
            if self._missed > _MISSES:
                raise SystemExit(f"{self._recipe} is forged too quickly to be killed")
        self.done["problems"] += kill_checks.processes_left(kill_checks.GRACE)
        self.done["problems"] += kill_checks.mounts_left(self.folder) + kill_checks.loops_left(self.folder)
        self._keep()
        _say(f"kill {len(self.done['kills'])}: {aim} {landed}")

    def _aim(self, estimates: Mapping[str, float], missed: int) -> Aim:
        """The kernel's build in its turn, else any number of the cards that are still to be run; in seconds."""
        chance, killed = self._chance, len(self.done["kills"])
        in_kernel = sum(KERNEL in kill["running"] for kill in self.done["kills"])
        if KERNEL in estimates and in_kernel < _KERNEL_KILLS and killed >= _KERNEL_FROM:
            return Aim(card=KERNEL, target=("all", "main")[in_kernel], later=chance.uniform(5, 40))
        # on the whole so many that the last kill comes when little is left
        claims = chance.randint(1, max(1, round(2 * len(estimates) / (self._wanted - killed + 1)))) if estimates else 0
        target: Target = chance.choice(("main", "all", "worker", "cell"))
        latest = min(_LATEST, sum(estimates.values()) / 4) / 2**missed
        return Aim(claims=claims, target=target if estimates else "main", later=chance.uniform(0, latest))

    def _note(self, story: Story) -> None:
        self.done["claims"] += [asdict(claim) for claim in story.claims]

    def _keep(self) -> None:
        fresh = self._book.with_suffix(".new")
        fresh.write_text(json.dumps(self.done, indent=1) + "\n", encoding="utf-8")
        fresh.replace(self._book)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
