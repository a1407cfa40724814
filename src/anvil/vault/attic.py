"""What nobody needs any more: out of the way at once, deleted behind everyone's back."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from typing import TYPE_CHECKING

from anvil.errors import AnvilError
from anvil.vault.discard import discard
from anvil.vault.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path


class Attic:
    """Deletes directories in a thread of this process.

    What is thrown in is first moved into a workspace: if the process ends before it is deleted, the next sweep of
    ``parent`` does it.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._queue: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def throw(self, path: Path) -> None:
        """Make ``path`` vanish; its space comes back a little later. From another file system: deleted now."""
        work = Workspace(self._parent)
        try:
            path.rename(work.path / "t")
        except OSError:
            work.close()
            discard(path)
            return
        self._queue.put(work)
        # a thread does not survive a fork: the child needs one of its own
        if self._thread is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, name="anvil-attic", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            # what cannot be deleted now is left to a sweep, which reports it to someone
            with contextlib.suppress(AnvilError, OSError):
                work.close()
