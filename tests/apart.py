"""Work done in a process of its own: as another user, or with modules patched."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def apart(task: Callable[[], Any]) -> Any:
    """Do something in a forked process; its answer, which must pickle, or its error raised here.

    Raises RuntimeError when the process died without an answer.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(reader)
            try:
                answer = (True, task())
            except BaseException as error:  # noqa: BLE001 -- it is raised again by the caller
                traceback.print_exc()
                answer = (False, error)
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    good, value = pickle.loads(said) if said else (False, RuntimeError("the process died"))
    if not good:
        raise value
    return value


def speak_into(out: int, errors: int) -> None:
    """In a forked process: make these its standard output and error, of the process and of Python.

    The parent's objects would take them for what its own were: a file with a position, say, where a pipe is now.
    """
    os.dup2(out, 1)
    os.dup2(errors, 2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))
