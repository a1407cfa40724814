"""A forge from beginning to end: evaluate, plan, run, publish. Interrupted anywhere, the next one goes on."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anvil.cell import limits, probe
from anvil.errors import Interrupted, UsageError
from anvil.image.build import find_image
from anvil.mainframe import leftovers, liveness, preflight, shellstate
from anvil.mainframe.account import Accounted, Relied, account
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.crew import Crew
from anvil.mainframe.forecast import forecast
from anvil.mainframe.home import log_path
from anvil.mainframe.images import ensure_image
from anvil.mainframe.outcome import Jam, Outcome, Published, Verdict
from anvil.mainframe.plan import Fate
from anvil.mainframe.results import StepResult
from anvil.mainframe.services import Services
from anvil.microjson.codec import MicroJSON, canonical, parse_canonical
from anvil.microjson.registry import MessageID
from anvil.model.card import Status
from anvil.model.layer import Digest
from anvil.release.publish import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anvil.mainframe.graph import Graph
    from anvil.mainframe.plan import Planned
    from anvil.mainframe.settings import Settings
    from anvil.model.card import Card

LOG_LINES = 20
LINE_CHARACTERS = 500
_LOGS_KEPT = 10
_FORGES_LOOKED_AT = 1000
_SETTLE_SECONDS = 0.3
_LONG_SECONDS = 300
"""From so much work on a forge says what may make it go wrong late."""


class Face(Protocol):
    """Who watches a forge."""

    def note(self, text: str) -> None:
        """Something that is no card's."""

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """A plan is about to be carried out; estimates: of the cards that will or may run, see ``forecast``."""

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Something happened."""

    def idle(self) -> None:
        """Called about ten times a second."""


class Quiet:
    """A face that says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, *, total: int, kept: int, estimates: Mapping[str, Sequence[int]]) -> None:
        """Nothing."""

    def event(self, number: MessageID, data: dict[str, Any]) -> None:
        """Nothing."""

    def idle(self) -> None:
        """Nothing."""


class Forge:
    """One forge. ``stopped`` is asked often; when it says yes, everything ends within two seconds.

    Only a card that another forge awaits goes on, in a process of its own, unless ``insisted`` says yes too.
    """

    def __init__(
        self,
        settings: Settings,
        face: Face,
        *,
        stopped: Callable[[], bool],
        insisted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._face = face
        self._stopped = stopped
        self._insisted = insisted
        self.relied: Relied | None = None

    def run(self, recipe: str) -> Outcome:
        """Make a recipe. Raises RecipeError, EnvironmentLack and Interrupted; a jam is in the outcome."""
        with preflight.explained(self._settings), Services(self._settings) as services:
            recover(services)
            graph = self._draw(services, recipe)
            # what is kept must stay until the deck that says so is on the stack
            with services.vault.generations.steady():
                plan = _planned(services, graph)
                to_do = [planned for planned in plan.values() if planned.fate is not Fate.KEPT]
                if not to_do:
                    return self._finish(services, graph, {n: p.result for n, p in plan.items() if p.result}, ran=0)
                deck = f"{recipe}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{services.worker.token[:6]}"
                estimates = forecast(services, graph, to_do)
                self._look_first(services, to_do, sum(times[1] for times in estimates.values()) / 1000)
                clear_past_decks(services)
                machine = canonical(self._machine(services)).decode()
                services.db.begin_forge(deck, deck=deck, recipe=recipe, machine=machine)
                Architect(services).push(deck, graph, plan)
            services.vault.generations.unpin()
            services.db.close()
            del services.__dict__["db"]
            self._face.begin(total=len(plan), kept=len(plan) - len(to_do), estimates=estimates)
            verdict = "interrupted"
            try:
                self._carry_out(services, deck)
                outcome = self._settle(services, graph, deck)
                verdict = "jammed" if outcome.jams else "done"
            finally:
                self._close(services, deck, verdict)
            return outcome

    @contextlib.contextmanager
    def planned(self, recipe: str) -> Iterator[tuple[Services, Graph, Mapping[str, Planned]]]:
        """What ``run`` would do, without doing it; the image that evaluates recipes is made where it lacks."""
        with Services(self._settings) as services:
            graph = self._draw(services, recipe)
            yield services, graph, _planned(services, graph)

    def _look_first(self, services: Services, to_do: list[Planned], seconds: float) -> None:
        """Raise what the machine lacks for these cards, before any runs; say what may make long work go wrong."""
        nodes = [planned.node for planned in to_do]
        doubts = preflight.before_build(services, preflight.lacking(services, nodes))
        if seconds > _LONG_SECONDS:
            for doubt in doubts:
                self._face.note(f"warning: {doubt.message}; {doubt.hint}")

    def _machine(self, services: Services) -> dict[str, Any]:
        """What the cortex is told of this forge."""
        return {
            "worker": services.worker.token,
            "jobs": self._settings.jobs,
            "profile": self._settings.profile,
            "project": str(self._settings.project or ""),
        }

    def _carry_out(self, services: Services, deck: str) -> None:
        """Have the deck's cards run, with the database closed. Raises Interrupted, and what ended it early."""
        crew = Crew(self._settings, deck, observer=self._face.event, parent=services.worker)
        crew.start()
        crew.watch(self._stopped, self._face.idle, insisted=self._insisted)

    def _close(self, services: Services, deck: str, verdict: str) -> None:
        """Note how the forge ended, and take its cards off the stack unless one jammed."""
        if verdict == "interrupted":
            recover(services)
        counts = services.db.counts(deck)
        if counts[Status.JAMMED]:
            verdict = "jammed"  # also when something else ended it: the jam is worth keeping
        services.db.end_forge(deck, verdict=verdict)
        if verdict != "jammed" and not counts[Status.PROCESSING]:  # a worker that was left clears it itself
            Architect(services).clear_deck(deck)
        services.vault.settle(_SETTLE_SECONDS)

    def _draw(self, services: Services, recipe: str) -> Graph:
        Architect(services).require(recipe)
        probe.refuse_if_forbidden("bwrap")
        said: list[str] = []

        def report(_data: dict[str, Any]) -> None:
            if not said:
                said.append("")
                self._face.note("making the image in which recipes are evaluated …")
            self._face.idle()
            if self._stopped():
                raise Interrupted("stopped", hint="run the same command to go on")

        if not find_image(services.image_locks["eval"][1], services.home.images):
            files = [package.file for package in services.image_locks["eval"][1].packages]
            preflight.before_build(services, [file for file in files if not services.vault.has(Digest(file.sha256))])
            ensure_image(services, "eval", report, self._stopped)
        return Architect(services).draw(recipe, self._stopped, self._face.note)

    def _settle(self, services: Services, graph: Graph, deck: str) -> Outcome:
        """Everything has been run, or a card jammed."""
        cards = services.db.cards(deck)
        services.db.touch([card.key for card in cards if card.key])
        ran = sum(1 for card in cards if card.attempts and card.stat is Status.PUNCHED)
        command = forge_command(graph.wanted, self._settings.profile, str(self._settings.project or ""))
        jams = tuple(describe_jam(services, card, command) for card in cards if card.stat is Status.JAMMED)
        if jams:
            kept = sum(1 for card in cards if card.stat is Status.PUNCHED) - ran
            return Outcome(deck=deck, ran=ran, kept=kept, jams=jams)
        results = {card.id: StepResult.from_data(MicroJSON.decode(card.ret)["data"]) for card in cards}
        return self._finish(services, graph, results, ran=ran, deck=deck)

    def _finish(
        self, services: Services, graph: Graph, results: Mapping[str, StepResult], *, ran: int, deck: str = ""
    ) -> Outcome:
        """Put the artifacts into the output folder."""
        published: list[Published] = []
        contested: list[str] = []
        artifacts = list(account(services, graph, results))
        for artifact in artifacts:
            self._face.idle()
            if self._stopped():
                raise Interrupted("stopped; everything is forged", hint="run the same command to publish the rest")
            path = self._settings.output / artifact.artifact.name
            written = publish(artifact.artifact, self._settings.output, partial(_export, services, artifact))
            services.db.note_release(artifact.release(path))
            if written:
                said = {
                    "name": artifact.artifact.name,
                    "sha256": artifact.artifact.sha256,
                    "size": artifact.artifact.size,
                }
                services.db.log_event(MessageID.ARTIFACT_RELEASED, said)
            published.append(
                Published(path=path, sha256=artifact.artifact.sha256, size=artifact.artifact.size, written=written)
            )
            if artifact.artifact.redistribution == "contested":
                contested.append(artifact.artifact.name)
        self.relied = Relied(graph=graph, results=results, artifacts=artifacts)
        verdicts = [
            Verdict(card=node.id, text=str(results[node.id].facts.get("text", "")))
            for node in graph.nodes.values()
            if node.op == "boot"
        ]
        return Outcome(
            deck=deck, ran=ran, kept=len(graph.nodes) - ran, artifacts=tuple(published), verdicts=tuple(verdicts),
            contested=tuple(contested),
        )  # fmt: skip


def _planned(services: Services, graph: Graph) -> Mapping[str, Planned]:
    """What is kept, of which it is noted that it was of use, and what would run."""
    plan = Architect(services).plan(graph)
    services.db.touch([planned.key for planned in plan.values() if planned.fate is Fate.KEPT])
    return plan


def _export(services: Services, artifact: Accounted, path: Path) -> None:
    services.layers.export(artifact.stack, artifact.path, path)


def recover(services: Services) -> None:
    """Take up after processes that died: their cards, their cells, their staging folders, their forges."""
    home = services.home

    def dead(token: str) -> bool:
        return liveness.is_dead(home.workers, token)

    services.db.reclaim(dead)
    for forge in services.db.forges(_FORGES_LOOKED_AT):
        machine = parse_canonical(forge.machine)
        # the standing mainframe takes its own up itself when it is there again
        if not forge.ended and "standing" not in machine and dead(machine.get("worker", "nobody")):
            with contextlib.suppress(UsageError):  # another forge, which began just now too, has said so already
                services.db.end_forge(forge.id, verdict="killed")
    leftovers.sweep(services)
    limits.sweep()
    _trim_logs(services)


def _trim_logs(services: Services) -> None:
    """Keep the logs of the last forges, of all that have not ended and of all that have cards on the stack."""
    needed = {forge.deck for forge in services.db.forges(_FORGES_LOOKED_AT) if not forge.ended}
    needed |= {state.deck for state in services.db.decks()}
    ages: list[tuple[float, Path]] = []
    for folder in services.home.logs.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another forge trims too
            ages.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(ages)[:-_LOGS_KEPT]:
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def clear_past_decks(services: Services, *, jammed: bool = True) -> None:
    """Take the decks of forges that have ended off the stack; a jammed one has stayed until now for ``anvil jam``.

    One of which a card is still under work stays: what that card needs is known by the others. jammed: these too.
    """
    ended = {forge.deck for forge in services.db.forges(_FORGES_LOOKED_AT) if forge.ended}
    for state in services.db.decks():
        if state.deck in ended and not state.claimed and (jammed or not state.jammed):
            services.db.clear_deck(state.deck)
    shellstate.sweep(services)


def forge_command(recipe: str, profile: str, project: str) -> str:
    """What a person types to forge this again."""
    words = ["anvil", "forge", recipe]
    words += [] if profile == "debian" else ["--profile", profile]
    return shlex.join(words + (["--project", project] if project else []))


def _short(line: str) -> str:
    return line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"


def describe_jam(services: Services, card: Card, command: str) -> Jam:
    """All that is known of a jammed card; command: what forges it again."""
    data = MicroJSON.decode(card.ret)["data"]
    recipe, _, name = card.id.partition("/")
    log = log_path(services.home, card.deck, card.id)
    tail: tuple[str, ...] = ()
    if log.is_file():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            lines = file.read().decode("utf-8", errors="backslashreplace").splitlines()
        tail = tuple(_short(line) for line in lines[-LOG_LINES:])
    return Jam(
        card=card.id,
        message=data["message"],
        where=data.get("where", ""),
        hint=data.get("hint", ""),
        detail=data.get("detail", ""),
        recipe=str(services.lock_of(name) if recipe == "sources" else services.book.paths.get(recipe, recipe)),
        log=str(log) if log.is_file() else "",
        tail=tail,
        command=command,
    )
