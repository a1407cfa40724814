"""What nobody needs any more: out of the way at once, deleted behind everyone's back."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

from anvil.errors import AnvilError
from anvil.vault.discard import discard
from anvil.vault.workspace import Workspace, abandoned, make_workspace

if TYPE_CHECKING:
    from pathlib import Path


class Attic:
    """Deletes directories in a thread of this process.

    What is thrown in is first moved into a workspace: if the process ends before it is deleted, the next one sweeps.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._queue: queue.Queue[Workspace] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def throw(self, path: Path) -> None:
        """Make ``path`` vanish; its space comes back a little later. From another file system: deleted now."""
        if not os.path.lexists(path):
            return
        try:
            work = make_workspace(self._parent)
        except AnvilError:  # no room even for a folder: all the more reason to delete
            discard(path)
            return
        try:
            path.rename(work.path / "t")
        except OSError:
            work.close()
            discard(path)
            return
        self._put(work)

    def sweep(self) -> None:
        """Delete what dead writers left."""
        for work in abandoned(self._parent):
            self._put(work)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait, at most so long, until everything thrown in by this process is deleted; whether it is."""
        if self._pid != os.getpid():
            return True
        works = self._queue
        with works.all_tasks_done:
            return works.all_tasks_done.wait_for(lambda: not works.unfinished_tasks, seconds)

    def _put(self, work: Workspace) -> None:
        # a thread does not survive a fork: the child needs one of its own, and the parent's work is the parent's
        if self._thread is None or self._pid != os.getpid():
            self._pid, self._queue, self._thread = os.getpid(), queue.Queue(), None
            thread = threading.Thread(target=self._run, args=(self._queue,), name="anvil-attic", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no memory, or no process, is left for one
                work.close()
                return
            self._thread = thread
        self._queue.put(work)

    @staticmethod
    def _run(works: queue.Queue[Workspace]) -> None:
        while True:
            works.get().close()
            works.task_done()
