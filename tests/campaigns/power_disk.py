"""A simulated disk under SQLite and the cortex: what was not synced may be lost, torn or reordered.

Programs see a real folder (what the kernel holds in memory). Beside it the simulator keeps, for each file, the bytes
that are on the platter and the writes that are not yet; and for the folder, the names that are on the platter.
``image`` makes the folder that a power cut would leave: of every write that was not synced any sectors may be there,
in any combination (so they are torn and reordered), and a name that was not synced may be the new one, the old one or
none. A sector is either old or new. ``on_step`` may fail any call; after a failed sync the writes it should have made
durable never will be, though they can be read, as Linux has it.

Sound for one thread; other connections act inside ``on_sync``, as other processes would.
"""

from __future__ import annotations

# ruff: noqa: N802, FBT001 (the names and shapes of apsw's methods)
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import apsw

from anvil.cortex.disk import Disk

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

SECTOR = 512
_names = itertools.count()
_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


@dataclass(frozen=True, kw_only=True)
class Change:
    """A write of ``data`` at ``offset``, or, without data, a truncation to ``offset``."""

    number: int
    offset: int
    data: bytes | None


@dataclass(kw_only=True, eq=False)
class Inode:
    """A file. durable: its bytes on the platter. pending: changes that are not there yet."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def synced(self, upto: int) -> None:
        """All changes up to a number are on the platter."""
        for change in self.pending:
            if change.number <= upto:
                _apply(self.durable, change)
        self.pending = [change for change in self.pending if change.number > upto]

    def forget(self) -> None:
        """A sync failed: the kernel holds the pages for clean, and the platter will never get them."""
        self.pending.clear()


@dataclass(kw_only=True)
class SimulatedDisk(Disk):
    """One folder. on_step: told the name of every change and sync before it; on_sync: called in each sync.

    lying: syncs do nothing.
    """

    folder: Path
    lying: ClassVar[bool] = False
    on_step: Callable[[str], None] = lambda _: None
    on_sync: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.vfs = f"power-{next(_names)}"
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self._number = 0
        for path in self.folder.iterdir():
            self.names[str(path)] = self.durable_names[str(path)] = Inode(durable=bytearray(path.read_bytes()))
        self._keep = _Vfs(self)

    def close(self) -> None:
        """Take the VFS away."""
        self._keep.unregister()

    # -- what the cortex does itself ----------------------------------------------------------------------------

    def make(self, path: str) -> bool:
        self.on_step("make")
        if made := super().make(path):
            self.names[path] = Inode()
        return made

    def sync(self, path: str) -> None:
        if path == str(self.folder):
            self.on_step("sync folder")
            self.sync_folder()
        else:
            self.sync_file(self.names[path], "sync file")

    def replace(self, old: str, new: str) -> None:
        self.on_step("rename")
        super().replace(old, new)
        self.names[new] = self.names.pop(old)

    def remove(self, path: str) -> None:
        if os.path.exists(path):
            self.on_step("remove")
            super().remove(path)
            self.names.pop(path, None)

    # -- what SQLite does ---------------------------------------------------------------------------------------

    def opened(self, path: str) -> Inode:
        """The inode of a file that is being opened."""
        return self.names.setdefault(path, Inode())

    def change(self, inode: Inode, offset: int, data: bytes | None) -> None:
        """Note a change that was made."""
        self._number += 1
        inode.pending.append(Change(number=self._number, offset=offset, data=data))

    def sync_file(self, inode: Inode, step: str = "xSync") -> None:
        """Sync a file: what was written before is on the platter afterwards."""
        upto = self._number
        self.on_sync()
        try:
            self.on_step(step)
        except BaseException:
            inode.forget()
            raise
        if not self.lying:
            inode.synced(upto)

    def sync_folder(self) -> None:
        """Sync the folder: its names are on the platter."""
        if not self.lying:
            self.durable_names = dict(self.names)

    # -- the cut ------------------------------------------------------------------------------------------------

    def image(self, out: Path, chance: random.Random) -> str:
        """Write what a cut now might leave to ``out``; in a word, how it was chosen."""
        how = chance.choice(("nothing", "everything", "writes", "sectors", "sectors", "first"))
        share = chance.random()
        last = chance.randrange(self._number + 1)
        for path in self.names.keys() | self.durable_names.keys():
            inode = self._named(path, how, chance)
            if inode is None:
                continue
            content = bytearray(inode.durable)
            for change in inode.pending:
                for piece in _pieces(change) if how == "sectors" else (change,):
                    if _survives(how, change, chance, share, last):
                        _apply(content, piece)
            (out / os.path.basename(path)).write_bytes(content)
        return how

    def _named(self, path: str, how: str, chance: random.Random) -> Inode | None:
        new, old = self.names.get(path), self.durable_names.get(path)
        if how == "everything":
            return new
        return old if how == "nothing" or chance.random() < 0.5 else new


def _survives(how: str, change: Change, chance: random.Random, share: float, last: int) -> bool:
    match how:
        case "nothing":
            return False
        case "everything":
            return True
        case "first":
            return change.number <= last
        case _:
            return chance.random() < share


def _pieces(change: Change) -> list[Change]:
    if change.data is None:
        return [change]
    end = change.offset + len(change.data)
    cuts = [change.offset, *range((change.offset // SECTOR + 1) * SECTOR, end, SECTOR), end]
    return [
        Change(number=change.number, offset=a, data=change.data[a - change.offset : b - change.offset])
        for a, b in itertools.pairwise(cuts)
    ]


def _apply(content: bytearray, change: Change) -> None:
    if change.data is None:
        del content[change.offset :]
        return
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


class _Vfs(apsw.VFS):
    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        super().__init__(disk.vfs, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return apsw.VFSFile("", name, flags) if name is None else _File(self._disk, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        self._disk.on_step("xDelete")
        super().xDelete(name, syncdir=False)
        self._disk.names.pop(name, None)
        if syncdir:
            self._disk.on_step("xDelete, the folder")
            self._disk.sync_folder()


class _File(apsw.VFSFile):
    def __init__(self, disk: SimulatedDisk, name: str | apsw.URIFilename, flags: list[int]) -> None:
        path = name if isinstance(name, str) else name.filename()
        # The unix VFS syncs the folder at the first sync of a journal that it made.
        self._new_journal = bool(flags[0] & _JOURNALS) and not os.path.exists(path)
        self._disk = disk
        disk.on_step("xOpen")
        super().__init__("", name, flags)
        self._inode = disk.opened(path)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.on_step("xWrite")
        super().xWrite(data, offset)
        self._disk.change(self._inode, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self._disk.on_step("xTruncate")
        super().xTruncate(newsize)
        self._disk.change(self._inode, newsize, None)

    def xSync(self, flags: int) -> None:
        self._disk.sync_file(self._inode)
        if self._new_journal:
            self._disk.on_step("xSync, the folder")
            self._disk.sync_folder()
            self._new_journal = False
