"""Making the record by which ``noop`` knows a forge that has nothing to do.

A record is kept only when it is true beyond doubt. So everything is looked at, then the forge's own planning says
once more that every card is kept and every artifact laid, and then everything is looked at again: what looks the same
before and after is what the plan was made from. What was changed while the forge ran, or a moment ago, makes no
record; the next forge tries again.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import PurePath
from typing import TYPE_CHECKING

from anvil.errors import AnvilError
from anvil.image.build import ROOT, STAMP
from anvil.mainframe import noop
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.graph import BlobRef
from anvil.mainframe.home import LEAST_FREE
from anvil.mainframe.services import Services
from anvil.model.layer import Digest
from anvil.release.publish import is_laid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.mainframe.account import Relied
    from anvil.mainframe.outcome import Outcome
    from anvil.mainframe.settings import Settings

_HOST_SET = frozenset({"fetch", "image"})  # what these left has a name of its own, and their results say little
_PATIENCE = 0.2
"""Seconds that are waited for the last change to be long enough ago."""


class Recorder:
    """Make it before a forge begins, which is when it looks at what the forge will read."""

    def __init__(self, settings: Settings, recipe: str) -> None:
        self._settings = settings
        self._recipe = recipe
        self._began = time.time_ns()
        self._before = noop.Seen(files={}, blobs={}, places={})
        self._settled = False
        if not settings.forced and not settings.narrow:
            with contextlib.suppress(OSError):  # a project that cannot be read: the forge says what is wrong
                files, moment = noop.looks(noop.inputs(settings))
                self._before = noop.Seen(files=files, blobs={}, places={})
                self._settled = moment < self._began

    def keep(self, outcome: Outcome, relied: Relied | None) -> bool:
        """After a forge that ended well: keep its record, if that can be done; whether it was.

        relied: what the outcome stands on. A full disk and whatever else is in the way only means that there is none.
        """
        if not self._settled or relied is None or outcome.jams:
            return False
        try:
            with contextlib.closing(Services(self._settings)) as services:
                first = self._look(services, relied)
                if first is None or not _confirmed(services, relied):
                    return False
            if not noop.unchanged(first):
                return False
            noop.write(self._settings, self._recipe, first, outcome, least_free=LEAST_FREE)
        except (OSError, AnvilError, MemoryError):
            return False
        return True

    def _look(self, services: Services, relied: Relied) -> noop.Seen | None:
        """How everything looks now; None when something of it has just changed, or changed while the forge ran."""
        blobs = {path: noop.unmarked(path) for path in _blobs(services, relied)}
        places = {path: noop.place(path) for path in _places(services, relied)}
        end = time.monotonic() + _PATIENCE
        while True:
            # nobody is within a commit now, which is in the file before it is to be seen by others
            with services.db.batch():
                now = time.time_ns()
                files, moment = noop.looks([*self._before.files, *_files(services, relied)])
            if moment < now:
                break
            if time.monotonic() > end:
                return None
            time.sleep(0.01)
        unchanged = self._before.files.items() <= files.items()
        return noop.Seen(files=files, blobs=blobs, places=places) if unchanged else None


def _confirmed(services: Services, relied: Relied) -> bool:
    """Whether a forge would have nothing to do."""
    with services.vault.generations.steady():
        for planned in Architect(services).plan(relied.graph).values():
            result = planned.result
            if result is None or (planned.node.op not in _HOST_SET and result != relied.results[planned.node.id]):
                return False
    return all(is_laid(each.artifact, services.settings.output) for each in relied.artifacts)


def _files(services: Services, relied: Relied) -> Iterator[str]:
    """What nobody changes but the forge, or on purpose: the cortex, stamps of images, and what was laid out."""
    home = services.home
    yield from (str(home.cortex), f"{home.cortex}-wal")
    yield from (str(home.vault / "format"), str(home.vault / "generation"))
    yield from (str(home.images / digest / STAMP) for digest in _images(services, relied))
    for each in relied.artifacts:
        path = services.settings.output / each.artifact.name
        yield from (str(path), f"{path}.json")


def _places(services: Services, relied: Relied) -> Iterator[str]:
    """Folders in which others may work."""
    home = services.home
    yield from (str(home.path), str(home.vault), str(home.vault / "blobs"))
    yield from (str(home.images / digest / ROOT) for digest in _images(services, relied))
    output = services.settings.output
    yield str(output)
    for each in relied.artifacts:
        yield from (str(output / folder) for folder in PurePath(each.artifact.name).parents)


def _images(services: Services, relied: Relied) -> set[str]:
    used = {node.extra["digest"] for node in relied.graph.nodes.values() if node.op == "image"}
    return {*used, services.image_locks["eval"][0]}


def _blobs(services: Services, relied: Relied) -> Iterator[str]:
    """The blobs that planning looks for, and those of the artifacts."""
    found: set[str] = set()
    for node in relied.graph.nodes.values():
        found |= {ref.sha256 for ref in node.inputs.values() if isinstance(ref, BlobRef)}
        if node.op == "fetch":
            found |= {file["sha256"] for file in node.extra["files"]}
    for result in relied.results.values():
        for layer in (*result.stack, *((result.out,) if result.out else ())):
            found |= {layer.digest, layer.times}
    found |= {each.artifact.sha256 for each in relied.artifacts}
    return (os.fspath(services.vault.path(Digest(digest))) for digest in found if digest)
