"""Layers as directories, and questions to stacks of them.

A stack is a sequence of layers, *topmost first*: the order overlayfs takes its lower directories in, and the order of
``StepResult.stack``. A layer is anything with ``digest`` (of its manifest) and ``times``.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from typing import TYPE_CHECKING, Any

from anvil.errors import IntegrityError, OutputForbidden, UsageError
from anvil.microjson.codec import canonical
from anvil.model.layer import Digest, Entry, Manifest
from anvil.vault.adopt import clean
from anvil.vault.collect import Collected, collect, collect_difference, entries_of
from anvil.vault.discard import discard
from anvil.vault.disk import sync_file_system, translated
from anvil.vault.manifest import Layer, LayerRef, Times, manifest_from_bytes, manifest_to_bytes, times_from_bytes
from anvil.vault.merge import Index, View
from anvil.vault.plant import Plan, export_file, plant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anvil.vault.scan import Kind, OutputLimits
    from anvil.vault.store import Vault

TREE = "t"
"""The folder of a cached tree that holds the tree itself. Short: a mount's options must fit into one page."""
LABEL = "of"
"""The file beside it that says which layer it is."""
_KEY = 40
_CACHED_ENTRIES = 400_000


class Layers:
    """The layers of one vault. Not to be shared between threads; processes may share the vault."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._indexes: dict[Digest, Index] = {}

    # --- taking in -------------------------------------------------------------------------------------------

    def collect(
        self, root: Path, *, kind: Kind, limits: OutputLimits, below: Sequence[LayerRef] = ()
    ) -> Collected:
        """Keep what a card left in ``root``; durable on return. See ``anvil.vault.collect``.

        below: for kind "changes", the stack that the overlay lay upon.
        """
        view = self.view(below)
        with self.vault.batch() as batch:
            return collect(root, kind=kind, limits=limits, batch=batch, below=view, owner=self.vault.owner)

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
        if (home / TREE).is_dir():
            discard(path)
            return home / TREE
        try:
            clean(path, collected.cleaning, owner=self.vault.owner)
            with self.vault.workspace() as work, translated("keeping a tree", path):
                fresh = work.path / "tree"
                fresh.mkdir()
                path.rename(fresh / TREE)
                # the batch that collected it has synced the same file system: the files' bytes are durable
                self._publish(fresh, collected.layer)
        except OSError:
            # closed folders of an ordinary user, another file system: the blobs are all here
            discard(path)
            return self.tree(collected.manifest_digest, collected.times_digest)
        return home / TREE

    def store(self, manifest: Manifest, times: Times | None = None) -> Layer:
        """Keep a manifest, whose blobs are in the vault, as a layer; durable on return."""
        data = manifest_to_bytes(manifest)
        manifest_from_bytes(data)
        with self.vault.batch() as batch:
            digest = batch.put_bytes(data)
            return Layer(digest=digest, times=batch.put_bytes(times_to_bytes(times)) if times else Digest(""))

    # --- giving back -----------------------------------------------------------------------------------------

    def tree(self, manifest_digest: Digest, times_digest: Digest = Digest("")) -> Path:
        """A layer as a directory in overlay form (whiteouts as character device 0:0), not to be changed.

        It is made from verified blobs when it is not there. Without times every file gets the same fixed one.
        Raises IntegrityError for a missing or damaged blob, DiskFull.
        """
        layer = Layer(digest=manifest_digest, times=times_digest)
        home = self.home(layer)
        if (home / TREE).is_dir():
            os.utime(home)  # the time of its last use
            return home / TREE
        manifest = self.manifest(manifest_digest)
        entries, mtimes = entries_of(manifest, self.times(layer))
        plan = Plan(entries=entries, mtimes=mtimes, removed=manifest.removed)
        with self.vault.workspace() as work, translated("making a tree from the vault", home):
            fresh = work.path / "tree"
            fresh.mkdir()
            (fresh / TREE).mkdir(mode=0o755)
            plant(self.vault, plan, fresh / TREE, owner=self.vault.owner)
            # a name that outlives a power cut must not stand for bytes that did not
            sync_file_system(work.fd)
            self._publish(fresh, layer)
        return home / TREE

    def lowers(self, stack: Sequence[LayerRef]) -> tuple[Path, ...]:
        """The directories of a stack, topmost first: an overlay's lower directories."""
        return tuple(self.tree(layer.digest, layer.times) for layer in stack)

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
        self.vault.check(entry.sha256)
        return self.vault.path(entry.sha256)

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
        """What a card that takes in a path of a stack depends on: a file's bytes and whether it may be run, a link's
        target, a folder's whole content. Raises OutputForbidden when it is not there."""
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
            near = difflib.get_close_matches(path, (other.path for other in view.below("")), n=3)
            hint = f"there is: {', '.join(near)}" if near else "look at what the step made: anvil jam"
            raise OutputForbidden(f"the step left no {path!r}", where=path, hint=hint)
        return entry

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
            mtimes.update(entries_of(self.manifest(layer.digest), self.times(layer))[1])
        return mtimes

    def home(self, layer: LayerRef) -> Path:
        """Where a layer's cached tree is, or would be."""
        identity = canonical([layer.digest, layer.times])
        return self.vault.trees / hashlib.sha256(identity).hexdigest()[:_KEY]

    def _publish(self, fresh: Path, layer: LayerRef) -> None:
        """Give a finished tree its name; when another process was first, theirs is as good."""
        (fresh / LABEL).write_bytes(canonical({"manifest": layer.digest, "times": layer.times}))
        fresh.chmod(0o755)  # above the vault nobody but its owner gets in
        home = self.home(layer)
        try:
            fresh.rename(home)
        except OSError:
            if not (home / TREE).is_dir():
                raise


def label_of(home: Path) -> Layer:
    """Which layer a cached tree is of. Raises IntegrityError when its label is malformed."""
    from anvil.microjson.codec import parse_canonical

    value = parse_canonical((home / LABEL).read_bytes())
    if not isinstance(value, dict) or set(value) != {"manifest", "times"}:
        raise IntegrityError("a cached tree has no valid label", where=str(home), hint="anvil vault verify")
    return Layer(digest=Digest(value["manifest"]), times=Digest(value["times"]))
