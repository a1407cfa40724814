"""Layers as directories, and questions to stacks of them.

A stack is a sequence of layers, *topmost first*: the order overlayfs takes its lower directories in, and the order of
``StepResult.stack``. A layer is anything with ``digest`` (of its manifest) and ``times``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anvil.errors import AnvilError, IntegrityError, OutputForbidden, UsageError
from anvil.microjson.codec import canonical, parse_canonical
from anvil.model.layer import Digest, Entry, Manifest
from anvil.model.near import nearest
from anvil.vault.adopt import clean
from anvil.vault.collect import Collected, collect, collect_difference, entries_of
from anvil.vault.compare import difference
from anvil.vault.digests import is_digest
from anvil.vault.discard import discard
from anvil.vault.disk import translated
from anvil.vault.manifest import (
    FIXED_TIME_NS,
    NO_TIMES,
    Layer,
    LayerRef,
    Times,
    manifest_from_bytes,
    manifest_to_bytes,
    times_from_bytes,
    times_to_bytes,
)
from anvil.vault.merge import Index, View
from anvil.vault.plant import Plan, export_file, plant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anvil.vault.batch import Batch
    from anvil.vault.scan import Kind, OutputLimits
    from anvil.vault.store import Vault

TREE = "t"
"""The folder of a cached tree that holds the tree itself. Short: a mount's options must fit into one page."""
LABEL = "of"
"""The file beside it that says which layer it is."""
DAMAGED = "damaged-"
"""What stands in the name of a tree that was found to differ from its layer."""
_ERA = 8
_KEY = 32
_MOST_LOWERS = 20
_CACHED_ENTRIES = 400_000


class Layers:
    """The layers of one vault. Not to be shared between threads; processes may share the vault."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._indexes: dict[Digest, Index] = {}
        self.boot = boot_id()
        # nothing of a cached tree is synced: after a crash or a power cut its names may stand for bytes that never
        # reached the disk. So a tree counts only until the machine starts again, and its name says when it was made
        self._era = hashlib.sha256(self.boot.encode()).hexdigest()[:_ERA]
        self._sound: set[Stamp | None] = set()
        self.throw_stale_away()

    # --- taking in -------------------------------------------------------------------------------------------

    def collect(
        self,
        root: Path,
        *,
        kind: Kind,
        limits: OutputLimits,
        below: Sequence[LayerRef] = (),
        batch: Batch | None = None,
    ) -> Collected:
        """Keep what a card left in ``root``. See ``anvil.vault.collect``.

        below: for kind "changes", the stack that the overlay lay upon. Durable on return or, with ``batch``, when that
        ends: several layers of one card are kept quicker so.
        """
        view = self.view(below)
        with nullcontext(batch) if batch is not None else self.vault.batch() as taking:
            return collect(root, kind=kind, limits=limits, batch=taking, below=view, owner=self.vault.owner)

    def diff_against(self, stack: Sequence[LayerRef], directory: Path, *, limits: OutputLimits) -> Collected:
        """Keep what was changed in a directory that ``materialise`` made of ``stack``; durable on return.

        The same change gives the same manifest as ``collect`` of an overlay's upper directory.
        """
        view, known = self.view(stack), self._mtimes(stack)
        with self.vault.batch() as batch:
            return collect_difference(directory, limits=limits, batch=batch, below=view, known=known)

    def adopt(self, path: Path, collected: Collected) -> Path:
        """Turn the directory that was just collected (on the vault's file system) into its layer's cached tree.

        ``path`` is gone afterwards, whatever happens. Not for what ``diff_against`` collected: discard that.
        """
        home = self.home(collected.layer)
        if self.vault.generations.mark_used(str(home)):
            self.vault.throw_away(path)
            return home / TREE
        try:
            clean(path, collected.cleaning, owner=self.vault.owner)
            with self.vault.workspace() as work:
                fresh = work.path / "tree"
                fresh.mkdir()
                path.rename(fresh / TREE)
                self._publish(fresh, collected.layer)
        except OSError:
            # closed folders of an ordinary user, another file system: the blobs are all here
            self.vault.throw_away(path)
            return self.tree(collected.manifest_digest, collected.times_digest)
        return home / TREE

    def store(self, manifest: Manifest, times: Times | None = None) -> Layer:
        """Keep a manifest, whose blobs are in the vault, as a layer; durable on return."""
        data = manifest_to_bytes(manifest)
        manifest_from_bytes(data)
        with self.vault.batch() as batch:
            digest = batch.put_bytes(data)
            return Layer(digest=digest, times=batch.put_bytes(times_to_bytes(times)) if times else NO_TIMES)

    # --- giving back -----------------------------------------------------------------------------------------

    def tree(self, manifest_digest: Digest, times_digest: Digest = NO_TIMES) -> Path:
        """A layer as a directory in overlay form (whiteouts as character device 0:0), not to be changed.

        It is made from verified blobs when it is not there. One that is there is compared with its layer, byte for
        byte, when this process first asks for it, unless it was made here; a damaged one is made again. Without times
        every file gets the same fixed one. Raises IntegrityError for a missing or damaged blob, DiskFull.
        """
        layer = Layer(digest=manifest_digest, times=times_digest)
        home = self.home(layer)
        if self._is_sound(home, layer) and self.vault.generations.mark_used(str(home)):
            return home / TREE
        manifest = self.manifest(manifest_digest)
        entries, mtimes = entries_of(manifest, self.times(layer))
        plan = Plan(entries=entries, mtimes=mtimes, removed=manifest.removed)
        with self.vault.workspace() as work, translated("making a tree from the vault", home):
            fresh = work.path / "tree"
            fresh.mkdir()
            (fresh / TREE).mkdir(mode=0o755)
            plant(self.vault, plan, fresh / TREE, owner=self.vault.owner)
            self._publish(fresh, layer)
        return home / TREE

    def lowers(self, stack: Sequence[LayerRef]) -> tuple[Path, ...]:
        """The directories that show a stack, topmost first: an overlay's lower directories, at least one.

        Layers that change nothing are left out, and those far down are put together: the options of a mount must fit
        into a page.
        """
        telling = [layer for layer in stack if not self._is_empty(layer)] or list(stack[:1])
        if len(telling) > _MOST_LOWERS:
            telling[_MOST_LOWERS - 1 :] = [self.flattened(telling[_MOST_LOWERS - 1 :])]
        return tuple(self.tree(layer.digest, layer.times) for layer in telling)

    def flattened(self, stack: Sequence[LayerRef]) -> Layer:
        """One layer that shows what a stack shows, its times too."""
        manifest, mtimes = self.merged(stack), self._mtimes(stack)
        return self.store(manifest, Times(mtimes=tuple(mtimes[entry.path] for entry in manifest.entries)))

    def materialise(self, stack: Sequence[LayerRef], dest: Path) -> None:
        """Make the whole tree that a stack shows as a plain copy in ``dest``, made if it is not there, else empty.

        The way without an overlay; ``diff_against`` finds what was changed in it.
        """
        with translated("making a work tree", dest):
            dest.mkdir(mode=0o755, exist_ok=True)
        plan = Plan(entries=self.view(stack).below(""), mtimes=self._mtimes(stack))
        plant(self.vault, plan, dest, owner=self.vault.owner)

    def export(self, stack: Sequence[LayerRef], path: str, dest: Path) -> None:
        """Copy a file or folder out of the vault to ``dest``, modes kept, verified, no link followed.

        A file replaces what is at ``dest`` whole; a folder must not be there yet. Times are the fixed one.
        Raises OutputForbidden when the path is not there or a link.
        """
        view = self.view(stack)
        entry = self._found(view, path)
        if entry.type == "file":
            export_file(self.vault, entry, dest)
            return
        if entry.type == "link":
            raise OutputForbidden(f"{path!r} is a link to {entry.target!r}", where=path, hint="name what it links to")
        with translated("copying a folder out of the vault", dest):
            try:
                dest.mkdir()
            except FileExistsError:
                raise UsageError(f"{dest} is there already", where=str(dest), hint="name a new folder") from None
            try:
                plant(self.vault, Plan(entries=view.subtree(entry.path).entries), dest, owner=None)
                dest.chmod(entry.mode)
            except BaseException:
                discard(dest)
                raise

    def present(self, stack: Sequence[LayerRef], path: str) -> Path:
        """A host path where a file or folder of a stack can be read, for binding into a cell; verified.

        It must not be changed. A file that may not be run is its blob itself. Raises OutputForbidden as ``export``.
        """
        view = self.view(stack)
        entry = self._found(view, path)
        if entry.type == "link":
            raise OutputForbidden(f"{path!r} is a link to {entry.target!r}", where=path, hint="name what it links to")
        if entry.type == "dir":
            if len(stack) == 1 and not entry.path:
                return self.tree(stack[0].digest, stack[0].times)
            return self.tree(self.store(view.subtree(entry.path)).digest)
        if entry.mode & 0o111:
            alone = Entry(path="file", type="file", mode=entry.mode, size=entry.size, sha256=entry.sha256)
            return self.tree(self.store(Manifest(entries=(alone,))).digest) / "file"
        return self.vault.checked(entry.sha256)

    # --- asking ----------------------------------------------------------------------------------------------

    def manifest(self, digest: Digest) -> Manifest:
        """A layer's manifest. Raises IntegrityError when it is missing, damaged or malformed."""
        return self._index(digest).manifest

    def times(self, layer: LayerRef) -> Times:
        """A layer's times; none at all for a layer without them."""
        if not layer.times:
            return Times()
        return times_from_bytes(self.vault.read_bytes(layer.times), self.manifest(layer.digest))

    def view(self, stack: Sequence[LayerRef]) -> View:
        """What a stack shows, for many questions at once."""
        return View([self._index(layer.digest) for layer in stack])

    def lookup(self, stack: Sequence[LayerRef], path: str) -> Entry | None:
        """What is at a path; None for nothing. Links on the way are not followed. "" is the whole tree."""
        if not path or path == ".":
            return Entry(path="", type="dir", mode=0o755)
        return self.view(stack).lookup(path.rstrip("/"))

    def subtree(self, stack: Sequence[LayerRef], path: str) -> Manifest:
        """A folder's content as a tree of its own. Raises OutputForbidden when there is no such folder."""
        view = self.view(stack)
        entry = self._found(view, path)
        if entry.type != "dir":
            raise OutputForbidden(f"{path!r} is a {entry.type}, not a folder", where=path, hint="name its folder")
        return view.subtree(entry.path)

    def merged(self, stack: Sequence[LayerRef]) -> Manifest:
        """The whole tree that a stack shows."""
        return self.view(stack).subtree("")

    def reference_digest(self, stack: Sequence[LayerRef], path: str) -> Digest:
        """The digest of what a card that takes in a path of a stack depends on.

        That is a file's bytes and whether it may be run, a link's target, a folder's whole content. Raises
        OutputForbidden when it is not there.
        """
        view = self.view(stack)
        entry = self._found(view, path)
        what: list[Any]
        if entry.type == "file":
            what = ["file", entry.sha256, bool(entry.mode & 0o111)]
        elif entry.type == "link":
            what = ["link", entry.target]
        else:
            what = ["dir", hashlib.sha256(manifest_to_bytes(view.subtree(entry.path))).hexdigest()]
        return Digest(hashlib.sha256(canonical(what)).hexdigest())

    def closure(self, layer: LayerRef) -> set[Digest]:
        """Every blob that a layer needs, its manifest and times among them."""
        needed = {entry.sha256 for entry in self.manifest(layer.digest).entries if entry.type == "file"}
        needed.update(entry.sha256 for entry, _ in self.times(layer).touched if entry.type == "file")
        needed.add(layer.digest)
        if layer.times:
            needed.add(layer.times)
        return needed

    # --- within ----------------------------------------------------------------------------------------------

    def _found(self, view: View, path: str) -> Entry:
        path = "" if path == "." else path.rstrip("/")
        if not path:
            return Entry(path="", type="dir", mode=0o755)
        entry = view.lookup(path)
        if entry is None:
            near = nearest(path, (other.path for other in view.below("")))
            hint = f"there is: {', '.join(near)}" if near else "look at what the step made: anvil jam"
            raise OutputForbidden(f"the step left no {path!r}", where=path, hint=hint)
        return entry

    def _is_empty(self, layer: LayerRef) -> bool:
        manifest = self.manifest(layer.digest)
        return not (manifest.entries or manifest.removed or self.times(layer).touched)

    def _index(self, digest: Digest) -> Index:
        index = self._indexes.pop(digest, None)
        if index is None:
            index = Index(manifest_from_bytes(self.vault.read_bytes(digest)))
            kept = sum(len(other.paths) for other in self._indexes.values())
            while self._indexes and kept + len(index.paths) > _CACHED_ENTRIES:
                kept -= len(self._indexes.pop(next(iter(self._indexes))).paths)
        self._indexes[digest] = index  # the last used is last
        return index

    def _mtimes(self, stack: Sequence[LayerRef]) -> dict[str, int]:
        """The times that a stack shows (and some of what it hides)."""
        mtimes: dict[str, int] = {}
        for layer in reversed(stack):
            entries, times = entries_of(self.manifest(layer.digest), self.times(layer))
            mtimes.update((entry.path, times.get(entry.path, FIXED_TIME_NS)) for entry in entries)
        return mtimes

    def home(self, layer: LayerRef) -> Path:
        """Where a layer's cached tree is, or would be."""
        identity = canonical([self.boot, layer.digest, layer.times])
        return self.vault.trees / (self._era + hashlib.sha256(identity).hexdigest()[:_KEY])

    def throw_stale_away(self) -> int:
        """Delete the cached trees of earlier starts of the machine, which nobody can be using; how many."""
        with translated("looking for old trees", self.vault.trees):
            stale = [name for name in os.listdir(self.vault.trees) if not name.startswith(self._era)]
        for name in stale:
            self.vault.throw_away(self.vault.trees / name)
        return len(stale)

    def _is_sound(self, home: Path, layer: Layer) -> bool:
        """Whether a layer's tree is there and whole; a damaged one is put out of the way."""
        stamp = _stamp_of(home)
        if stamp is None or stamp in self._sound:
            return stamp is not None
        manifest, times = self.manifest(layer.digest), self.times(layer)
        try:
            sound = not difference(home / TREE, manifest, times)
        except (AnvilError, OSError):  # something that no layer may hold, or that the disk does not give back
            sound = False
        if sound:
            self._sound.add(stamp)
            return True
        # not deleted: a cell may be running on it. Under this name nobody begins on it, and verify tells of it
        with self.vault.generations.hand(), contextlib.suppress(FileNotFoundError):
            if _stamp_of(home) == stamp:  # else another was quicker, and may have made it again
                home.rename(home.with_name(self._era + DAMAGED + secrets.token_hex(8)))
        return False

    def _publish(self, fresh: Path, layer: LayerRef) -> None:
        """Give a finished tree its name; when another process was first, theirs is as good."""
        label = {"boot": self.boot, "manifest": layer.digest, "times": layer.times}
        (fresh / LABEL).write_bytes(canonical(label))
        fresh.chmod(0o755)  # above the vault nobody but its owner gets in
        home, stamp = self.home(layer), _stamp_of(fresh)
        with self.vault.generations.hand():
            self.vault.generations.mark_used(str(fresh))
            try:
                fresh.rename(home)
            except OSError:
                if not self.vault.generations.mark_used(str(home)):
                    raise
            else:
                self._sound.add(stamp)


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a cached tree says of itself: its layer, and during which run of the machine it was made."""

    layer: Layer
    boot: str


def label_of(home: Path) -> Label:
    """The label of a cached tree. Raises AnvilError or OSError when it is malformed or missing."""
    value = parse_canonical((home / LABEL).read_bytes())
    match value:
        case {"boot": str(boot), "manifest": digest, "times": times} if is_digest(digest) and len(value) == 3:
            return Label(layer=Layer(digest=Digest(digest), times=Digest(times)), boot=boot)
    raise IntegrityError("a cached tree has no valid label", where=str(home), hint="anvil vault verify --mend")


Stamp = tuple[int, int]
"""What tells one tree from another that takes its name later: inode and time of change."""


def _stamp_of(home: Path) -> Stamp | None:
    """The stamp of the tree in a folder; None when there is none."""
    try:
        status = os.stat(home / TREE, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (status.st_ino, status.st_ctime_ns) if stat.S_ISDIR(status.st_mode) else None


def boot_id() -> str:
    """What is another after every start of the machine; where the kernel does not tell, another every time."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return secrets.token_hex(16)
