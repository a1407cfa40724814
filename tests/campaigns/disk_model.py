"""What a disk may show after the power was cut: a model of a file system that owes nothing but what was synced.

Weaker than any real one on purpose. Of a file: what was written before its last fsync is there; every later piece of
512 bytes is there, or is what it was before, or is zeros; its length is any that it has had since. Of a folder: the
names as of its last fsync; each later change of a name is there or not, whatever its order (a rename is two changes).
syncfs makes everything durable. A name may lead to a file whose bytes never came.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path

    from tests.campaigns.disk_trace import Event

SECTOR = 512


@dataclass(eq=False)
class File:
    """A file: its bytes now, those that are durable, and every length since."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    lengths: list[int] = field(default_factory=list)

    def sync(self) -> None:
        """What is now is durable."""
        self.durable = bytes(self.data)
        self.lengths = []

    def after_cut(self, chance: random.Random) -> bytes:
        """Bytes that it may have after a cut."""
        if not self.lengths:
            return self.durable
        way = chance.randrange(4)
        if way == 0:
            return self.durable
        if way == 1:
            return bytes(self.data)
        length = chance.choice([*self.lengths, len(self.durable)])
        old, new = self.durable.ljust(length, b"\0"), bytes(self.data).ljust(length, b"\0")
        pieces = []
        for start in range(0, length, SECTOR):
            end = min(start + SECTOR, length)
            # a piece that was not changed since the last sync stays: it is durable
            changed = old[start:end] != new[start:end] or start >= len(self.durable)
            pick = chance.choice((old[start:end], new[start:end], bytes(end - start))) if changed else old[start:end]
            pieces.append(pick)
        return b"".join(pieces)


@dataclass(eq=False)
class Folder:
    """A folder: its names now, the durable ones, and the changes since."""

    names: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    changes: list[tuple[str, Node | None]] = field(default_factory=list)

    def change(self, name: str, node: Node | None) -> None:
        """Bind a name, or (None) take it away."""
        self.changes.append((name, node))
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node

    def sync(self) -> None:
        """What is now is durable."""
        self.durable, self.changes = dict(self.names), []

    def after_cut(self, chance: random.Random) -> dict[str, Node]:
        """Names that it may have after a cut."""
        kept = dict(self.durable)
        way = chance.randrange(4)
        upto = {0: 0, 1: len(self.changes), 2: chance.randint(0, len(self.changes))}.get(way)
        for number, (name, node) in enumerate(self.changes):
            if number < upto if upto is not None else chance.random() < 0.5:
                if node is None:
                    kept.pop(name, None)
                else:
                    kept[name] = node
        return kept


@dataclass(eq=False)
class Other:
    """A link, a device or a FIFO."""

    kind: str
    target: bytes = b""


Node = File | Folder | Other


class Disk:
    """Everything below one folder, which is empty and durable when the recording begins.

    without: syncs that the disk forgets ("file", "folder", "syncfs"): the control that they are needed.
    """

    def __init__(self, root: Path, *, without: Iterable[str] = ()) -> None:
        self.root = os.fspath(root)
        self.top = Folder()
        self._without = frozenset(without)

    def apply(self, event: Event) -> None:
        """Do what an event did."""
        inside, to_inside = self._is_inside(event.path), self._is_inside(event.to)
        if event.call == "rename":
            assert inside == to_inside, f"a rename across the border: {event}"
            folder, name = self._place(event.path)
            node = folder.names[name]
            folder.change(name, None)
            folder, name = self._place(event.to)
            folder.change(name, node)
        elif inside:
            getattr(self, f"_{event.call}")(event)

    def is_durable(self, path: str) -> bool:
        """Whether a file is sure to be there, with the bytes it has now, whatever is cut."""
        node: Node = self.top
        for part in self._parts(path):
            if not isinstance(node, Folder) or part not in node.durable or any(n == part for n, _ in node.changes):
                return False
            node = node.durable[part]
        return isinstance(node, File) and not node.lengths

    def cut(self, place: Path, chance: random.Random) -> None:
        """Write what may be there after a cut into an empty folder."""
        seen: set[int] = set()

        def write(folder: Folder, path: Path) -> None:
            seen.add(id(folder))
            for name, node in folder.after_cut(chance).items():
                if isinstance(node, Folder):
                    # a folder under two names cannot be: the one that is met first has it
                    if id(node) not in seen:
                        (path / name).mkdir(mode=0o700)
                        write(node, path / name)
                elif isinstance(node, File):
                    (path / name).write_bytes(node.after_cut(chance))
                elif node.kind == "symlink":
                    (path / name).symlink_to(os.fsdecode(node.target))

        write(self.top, place)

    # --- the calls

    def _open(self, event: Event) -> None:
        folder, name = self._place(event.path)
        node = folder.names.get(name)
        if node is None and event.creates:
            folder.change(name, File())
        elif event.truncates and isinstance(node, File):
            self._set_length(node, 0)

    def _write(self, event: Event) -> None:
        node = self._node(event.path)
        if not isinstance(node, File):
            return  # it has no name any more: nobody will see it
        at = len(node.data) if event.at < 0 else event.at
        node.data[len(node.data) :] = bytes(max(0, at - len(node.data)))
        node.data[at : at + len(event.data)] = event.data
        node.lengths.append(len(node.data))

    def _truncate(self, event: Event) -> None:
        node = self._node(event.path)
        if isinstance(node, File):
            self._set_length(node, event.size)

    def _fallocate(self, event: Event) -> None:
        node = self._node(event.path)
        if isinstance(node, File) and event.size > len(node.data):
            self._set_length(node, event.size)

    def _fsync(self, event: Event) -> None:
        node = self._node(event.path)
        if (isinstance(node, File) and "file" not in self._without) or (
            isinstance(node, Folder) and "folder" not in self._without
        ):
            node.sync()

    _fdatasync = _fsync

    def _syncfs(self, _event: Event) -> None:
        if "syncfs" not in self._without:
            _sync_all(self.top)

    def _mkdir(self, event: Event) -> None:
        folder, name = self._place(event.path)
        folder.change(name, Folder())

    def _mknod(self, event: Event) -> None:
        folder, name = self._place(event.path)
        folder.change(name, Other(kind="mknod"))

    def _symlink(self, event: Event) -> None:
        folder, name = self._place(event.path)
        folder.change(name, Other(kind="symlink", target=event.data))

    def _link(self, event: Event) -> None:
        node = self._node(event.path)
        assert node is not None
        folder, name = self._place(event.to)
        folder.change(name, node)

    def _unlink(self, event: Event) -> None:
        folder, name = self._place(event.path)
        folder.change(name, None)

    _rmdir = _unlink

    # --- within

    @staticmethod
    def _set_length(node: File, size: int) -> None:
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))
        node.lengths.append(size)

    def _is_inside(self, path: str) -> bool:
        return path == self.root or path.startswith(self.root + "/")

    def _parts(self, path: str) -> list[str]:
        return [part for part in path.removeprefix(self.root).split("/") if part]

    def _node(self, path: str) -> Node | None:
        node: Node | None = self.top
        for part in self._parts(path):
            node = node.names.get(part) if isinstance(node, Folder) else None
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        *parts, name = self._parts(path)
        node: Node = self.top
        for part in parts:
            assert isinstance(node, Folder), f"{path}: {part} is in no folder"
            node = node.names[part]
        assert isinstance(node, Folder)
        return node, name


def _sync_all(node: Node) -> None:
    if isinstance(node, File | Folder):
        node.sync()
    if isinstance(node, Folder):
        for below in node.names.values():
            _sync_all(below)
