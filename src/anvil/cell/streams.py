"""The descriptors between a cell and its owner: status, log, and the streams of the command."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.cell import seccomp

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.cell.spec import CellSpec


@dataclass
class Opened:
    """The owner's descriptors of a cell (-1: none), and those that the child is to get."""

    status: int = -1
    output: int = -1
    log: int = -1
    stdin: int = -1
    stdout: int = -1
    child: list[int] = field(default_factory=list)

    def close_child(self) -> None:
        """Close what the child has got copies of."""
        for fd in set(self.child):
            os.close(fd)
        self.child = []

    def close(self) -> None:
        """Close everything: the cell was not made."""
        self.close_child()
        for fd in (self.status, self.output, self.log, self.stdin, self.stdout):
            if fd >= 0:
                os.close(fd)


def open_streams(spec: CellSpec, log: Path, arguments: bytes, *, streams: bool, terminal: int | None = None) -> Opened:
    """Open everything that a cell needs.

    The child's descriptors are standard input, output and error, then bubblewrap's status, filter and arguments.
    streams: standard input and output are the owner's; else output and errors both go to the log, and input is
    ``spec.stdin`` or nothing. terminal: all three are this descriptor, and nothing goes to the log.
    """
    opened = Opened()
    try:
        opened.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        opened.output, error = _reader()
        if terminal is not None:
            os.close(error)  # an output that has ended: the cell has none but the terminal
            opened.child = [os.dup(terminal) for _ in range(3)]
        else:
            opened.child = [-1, error, error]
            if streams:
                opened.stdout, opened.child[1] = _reader()
            opened.child[0], opened.stdin = _stdin(spec, streams=streams)
        opened.status, status = _reader()
        opened.child += [status, sealed(seccomp.program()), sealed(arguments)]
    except BaseException:
        opened.child = [fd for fd in opened.child if fd >= 0]
        opened.close()
        raise
    return opened


def _reader() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    return reader, writer


def _stdin(spec: CellSpec, *, streams: bool) -> tuple[int, int]:
    if spec.stdin is not None:
        return sealed(spec.stdin), (os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC) if streams else -1)
    if not streams:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    return reader, writer


def sealed(data: bytes) -> int:
    """A descriptor from which ``data`` can be read, and that cannot be written or opened again for writing."""
    fd = os.memfd_create("anvil", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(
        fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    return fd
