"""``anvil forge X --check``: make it a second time in an empty vault, in other surroundings, and compare.

The second making is a whole one, in a home of its own below the first: nothing that was made is taken over but
sources, which are named by their digests, and (unless ``images``) base images, whose every byte is compared with the
digest that was taken when they were made. What is varied is in ``check_second``; what is not, ``Checked.same`` says.

The second home is kept while the check is interrupted, and the next one goes on in it. It is taken away when all is
the same; when something differs it stays, to be looked at, and the next check begins anew.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from anvil.cell.process import Launch, start
from anvil.errors import AnvilError, EnvironmentLack
from anvil.mainframe import check_diffoscope, check_second
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.check_compare import Comparison, Difference, Making, image_differences
from anvil.mainframe.check_home import mark_ended, prepare, second_home, stopped, take_away, used_images
from anvil.mainframe.check_second import Surroundings
from anvil.mainframe.context import Context
from anvil.mainframe.forge import Forge
from anvil.mainframe.outcome import Jam, Outcome
from anvil.mainframe.services import Services
from anvil.microjson.codec import canonical, parse_canonical
from anvil.microjson.registry import message_id
from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from anvil.cell.process import Child
    from anvil.mainframe.forge import Face
    from anvil.mainframe.graph import Node
    from anvil.mainframe.settings import Settings

NARROW_SECONDS = 60
"""Cards that took less in the first making see one processor in the second, where nproc and the like then say 1."""

_MOST_TOLD = 20
_STOP_SECONDS = 5.0
_TICK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An artifact in both makings."""

    name: str
    sha256: str
    second: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found.

    first: how the first making ended; when a card jammed in it there was no second. jams: of the second making.
    varied, same: what was another, and what was not, each in words. told: what differs, and the file in which
    diffoscope says how. home: where the second making lies ("" when it was
    taken away). cards, layers, files: how many were compared.
    """

    first: Outcome
    artifacts: tuple[Compared, ...] = ()
    differences: tuple[Difference, ...] = ()
    jams: tuple[Jam, ...] = ()
    varied: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    told: tuple[tuple[str, str], ...] = ()
    home: str = ""
    cards: int = 0
    layers: int = 0
    files: int = 0

    @property
    def ok(self) -> bool:
        """Whether both makings ended well and are the same in every byte."""
        return not (self.first.jams or self.jams or self.differences)


@dataclass(kw_only=True)
class Check:
    """One check. images: base images are made again too. keep: the second home is not taken away."""

    settings: Settings
    face: Face
    stopped: Callable[[], bool]
    images: bool = False
    keep: bool = False
    _ended: dict[str, Any] = field(default_factory=dict)

    def run(self, recipe: str) -> Checked:
        """Make a recipe twice and compare. Raises what ``Forge.run`` does; a jam is in what is returned."""
        before = Surroundings.now()
        first = Forge(self.settings, self.face, stopped=self.stopped).run(recipe)
        if first.jams:
            return Checked(first=first)
        kept = replace(self.settings, forced=frozenset())
        with second_home(self.settings.home, recipe, images=self.images) as home, Services(kept) as ours:
            made = _made(ours, recipe, self.stopped)
            settings = check_second.other_settings(self.settings, home, _short(made))
            prepare(ours, made.graph, settings, images=self.images, tick=self._tick)
            ours.vault.generations.unpin()  # nothing of the first home is in use while the second is made
            began = time.time()
            self.face.note(f"making it a second time, in {home}")
            self._make(settings, before, recipe)
            varied, same = self._told(settings, before, began)
            checked = Checked(first=first, varied=varied, same=same, home=str(home), jams=self._jams())
            if not checked.jams:
                self.face.note("comparing")
                with ours.vault.generations.steady():  # no result is forgotten meanwhile
                    checked = self._compare(checked, ours, settings, recipe)
            mark_ended(home)
            if checked.ok and not self.keep:
                take_away(home)
                checked = replace(checked, home="")
            return checked

    # ---- the second making

    def _make(self, settings: Settings, before: Surroundings, recipe: str) -> None:
        """Run it in another process, its events passed on; what it said at its end is in ``_ended``."""
        taken, told = os.pipe()
        heard, said = os.pipe()
        errors = os.open(settings.home / "errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            launch = Launch(
                argv=check_second.program(),
                env=check_second.ENVIRONMENT,
                fds=(taken, said, errors),
                enter=check_second.leave(before),
            )
            child = start(launch)
        finally:
            for fd in (taken, said, errors):
                os.close(fd)
        try:
            with os.fdopen(told, "wb") as stream:
                stream.write(check_second.request(settings, recipe))
            self._listen(child, heard)
        finally:
            child.kill()
            child.reap()
            os.close(heard)
        self._judge(child, settings)

    def _listen(self, child: Child, heard: int) -> None:
        """Pass on what the second making says until it has ended."""
        pending, asked = b"", 0.0
        while True:
            if select.select([heard], [], [], _TICK_SECONDS)[0]:
                if not (data := os.read(heard, 65536)):
                    break
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._take(parse_canonical(line))
            self.face.idle()
            if self.stopped() and not asked:
                asked = time.monotonic()
                signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
            if asked and time.monotonic() - asked > _STOP_SECONDS:
                child.kill()
        child.reap(_STOP_SECONDS)

    def _take(self, said: Mapping[str, Any]) -> None:
        match said:
            case {"note": text}:
                self.face.note(text)
            case {"begin": told}:
                self.face.begin(**told)
            case {"event": [number, data]}:
                self.face.event(message_id(number), data)
            case _:
                self._ended |= said

    def _judge(self, child: Child, settings: Settings) -> None:
        """Raise what ended the second making early."""
        if self.stopped():
            raise stopped()
        if (error := self._ended.get("error")) is not None:
            kind = EnvironmentLack if 540 <= error["id"] < 550 else AnvilError
            raise kind(
                f"in the second making: {error['message']}",
                where=error.get("where", ""),
                hint=error.get("hint", ""),
                detail=error.get("detail", ""),
            )
        if "ended" not in self._ended:
            told = (settings.home / "errors").read_bytes()[-4000:].decode("utf-8", errors="backslashreplace")
            raise AnvilError(f"the second making ended with {child.exit_code}", detail=told)

    def _jams(self) -> tuple[Jam, ...]:
        return tuple(Jam(**{**jam, "tail": tuple(jam["tail"])}) for jam in self._ended["ended"]["jams"])

    # ---- what was found

    def _compare(self, checked: Checked, home: Services, settings: Settings, recipe: str) -> Checked:
        with Services(settings) as services:
            ours, theirs = (_made(each, recipe, self.stopped) for each in (home, services))
            if [canonical(node.as_data()) for node in theirs.graph.nodes.values()] != [
                canonical(node.as_data()) for node in ours.graph.nodes.values()
            ]:
                raise AnvilError(
                    f"{recipe} became another deck the second time", hint="look for what it takes from chance"
                )
            comparison = Comparison(
                first=ours, second=theirs, context=partial(self._context, ours), stop_if_asked=self._pause
            )
            differences = tuple(comparison.run())
            if self.images:
                differences += tuple(image_differences(ours.services, services, used_images(services, ours.graph)))
        told = tuple(self._diffoscope(ours, settings.home / "diffoscope", differences))
        return replace(
            checked,
            artifacts=tuple(_artifacts(ours, theirs)),
            differences=differences,
            told=told,
            cards=comparison.cards,
            layers=comparison.layers,
            files=comparison.files,
        )

    def _diffoscope(
        self, ours: Making, folder: Path, differences: tuple[Difference, ...]
    ) -> Iterator[tuple[str, str]]:
        """What diffoscope, if the host has it, says of the artifacts that differ and of what began it."""
        program = check_diffoscope.find()
        files = [
            each
            for each in differences
            if each.what == "bytes" and len(each.path) == 1 and (each.cause or each.tree == "artifact")
        ]
        if program is None or not files:
            return
        self.face.note("asking diffoscope")
        folder.mkdir(exist_ok=True)
        path = ours.services.vault.path
        for number, each in enumerate(files[:_MOST_TOLD]):
            context = self._context(ours, ours.graph.nodes[each.card])
            context.log = folder / f"{number}.txt"
            pair = (path(Digest(each.first)), path(Digest(each.second)))
            name = each.card.partition(":")[2] if each.tree == "artifact" else each.path[0].rpartition("/")[2]
            if check_diffoscope.tell(context, program, pair, name):
                yield f"{each.card}: {each.path[0]}", str(context.log)

    def _context(self, ours: Making, node: Node) -> Context:
        """Surroundings in which containers can be opened: for what names no image, the machine's, as in the gate."""
        image = ours.services.image_locks["machine"][0]
        return Context(
            services=ours.services,
            node=replace(node, image=image),
            results=ours.results,
            report=lambda _data: None,
            tick=self._tick,
            log=ours.services.home.logs / "check.log",
        )

    def _tick(self) -> bool:
        self.face.idle()
        return self.stopped()

    def _pause(self) -> None:
        """Let the face breathe. Raises Interrupted when asked to stop."""
        if self._tick():
            raise stopped()

    def _told(self, settings: Settings, before: Surroundings, began: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What was another in the second making, and what was not, in words."""
        after = Surroundings(**self._ended["ended"]["in"])
        zone, tongue = check_second.ENVIRONMENT["TZ"], check_second.ENVIRONMENT["LC_ALL"]
        varied = [
            f"home: {settings.home}",
            f"jobs: {self.settings.jobs}, then {settings.jobs}",
            f"umask: {before.umask:03o}, then {after.umask:03o}",
            f"time zone and locale of Anvil itself: {zone}, {tongue}",
            f"wall clock: the second making began at {time.strftime('%F %T', time.gmtime(began))} UTC",
            "inode numbers, file times of inputs, hash seeds, addresses in memory",
        ]
        same = [
            "the kernel and the processor of this machine, and the order in which its file system lists a folder",
            "the wall clock, but for the time that has passed",
            "what a cell fixes: its user, host name, paths, environment and SOURCE_DATE_EPOCH",
        ]
        if os.geteuid() == 0:
            varied.append(f"cells' uid on the host: {self.settings.cell_uid}, then {settings.cell_uid}")
        else:
            same.append("the user")
        if after.host != before.host:
            varied.append(f"host name: {before.host}, then {after.host}")
        if after.clock != before.clock:
            varied.append(f"monotonic clock: {check_second.AHEAD_SECONDS // 86400} days ahead")
        if settings.narrow and len(os.sched_getaffinity(0)) > 1:
            varied.append(f"processors that a card sees: one, for the {len(settings.narrow)} cards of under a minute")
        if self.images:
            varied.append("base images: made again from the same packages")
        else:
            same.append("base images: shared, and verified (--check-images makes them again)")
        return tuple(varied), tuple(same)


def _made(services: Services, recipe: str, stopped: Callable[[], bool]) -> Making:
    """What a home holds of a recipe that has been forged in it."""
    architect = Architect(services)
    graph = architect.draw(recipe, stopped)
    planned = architect.plan(graph)
    results = {name: each.result for name, each in planned.items() if each.result is not None}
    if lacking := [name for name in graph.nodes if name not in results]:
        raise AnvilError(
            f"{lacking[0]} has no result any more", where=str(services.home.path), hint="run the same command again"
        )
    return Making(services=services, graph=graph, results=results)


def _short(made: Making) -> frozenset[str]:
    """The cards that took less than NARROW_SECONDS."""
    return frozenset(
        name
        for name, node in made.graph.nodes.items()
        if node.op not in {"image", "fetch"} and made.results[name].milliseconds < NARROW_SECONDS * 1000
    )


def _artifacts(ours: Making, theirs: Making) -> Iterator[Compared]:
    for node in ours.graph.nodes.values():
        if node.op == "release":
            one, two = ours.results[node.id].facts, theirs.results[node.id].facts
            yield Compared(name=node.extra["name"], sha256=one["sha256"], second=two["sha256"], size=one["size"])
