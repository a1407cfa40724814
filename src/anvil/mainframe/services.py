"""Everything a process of the mainframe works with, opened lazily and in one place.

One ``Services`` belongs to one process: close it before a fork and make a new one after.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anvil.sources
from anvil.cortex.db_interface import CortexDB
from anvil.errors import IntegrityError, OutputForbidden, RecipeError
from anvil.mainframe import liveness
from anvil.mainframe.book import RecipeBook
from anvil.mainframe.home import LEAST_FREE, Home
from anvil.mainframe.plan import node_key
from anvil.mainframe.project import lock_file
from anvil.mainframe.results import LayerRef, StepResult
from anvil.microjson.codec import MicroJSON
from anvil.model import near
from anvil.model.layer import Digest
from anvil.sources import lockfile
from anvil.sources.overlay import lay_over
from anvil.vault.layers import Layers
from anvil.vault.store import Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from anvil.machine.machine import Place
    from anvil.machine.spec import Accelerator
    from anvil.mainframe.estimate import Estimate
    from anvil.mainframe.graph import Graph, Node, StepRef
    from anvil.mainframe.settings import Settings
    from anvil.model.lock import ImageLock, PinnedFile, SourceLock
    from anvil.sources.mirrors import Mirrors

LOCKS = Path(anvil.sources.__file__).parent / "locks"


class Services:
    """The home's parts, and the few things that are made of several of them."""

    def __init__(self, settings: Settings, *, least_free: int = LEAST_FREE) -> None:
        """Opens the home. Raises EnvironmentLack, or DiskFull below ``least_free`` bytes, with the mend."""
        self.settings = settings
        self.home = Home.open(settings.home, least_free=least_free)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        if (vault := self.__dict__.get("vault")) is not None:
            vault.generations.close()
        for name in ("db", "worker"):
            if (part := self.__dict__.pop(name, None)) is not None:
                part.close()

    # ---- the parts

    @cached_property
    def db(self) -> CortexDB:
        """The cortex."""
        return CortexDB(self.home.cortex)

    @cached_property
    def worker(self) -> liveness.Worker:
        """This process's own token."""
        return liveness.Worker(self.home.workers)

    @cached_property
    def vault(self) -> Vault:
        """Everything kept by digest."""
        return Vault(self.home.vault, owner=self.settings.cell_uid)

    @cached_property
    def layers(self) -> Layers:
        """Layers over the vault."""
        return Layers(self.vault)

    @cached_property
    def book(self) -> RecipeBook:
        """Where recipes are found."""
        return RecipeBook(project=self.settings.project)

    @cached_property
    def sources(self) -> SourceLock:
        """The profile's source lock, with the project's own laid over it.

        Raises RecipeError for a profile that does not exist, and for a name that both locks have.
        """
        if not self.lock_path.is_file():
            known = sorted(p.stem for p in LOCKS.glob("*.json"))
            hint = near.hint(self.settings.profile, known, otherwise=f"profiles: {', '.join(known)}")
            raise RecipeError(f"no profile is called {self.settings.profile!r}", hint=hint)
        lock = lockfile.read_source_lock(self.lock_path)
        own = self.project_lock
        return lock if own is None else lay_over(lock, own, str(lock_file(self.settings.project)))

    @cached_property
    def project_lock(self) -> SourceLock | None:
        """The sources that the project pins itself; None where there is no project, or it pins none."""
        path = lock_file(self.settings.project)
        return None if path is None or not path.exists() else lockfile.read_source_lock(path)

    def lock_of(self, source: str) -> Path:
        """The file of the lock that pins a source."""
        path, own = lock_file(self.settings.project), self.project_lock
        return path if path is not None and own is not None and source in own.sources else self.lock_path

    @property
    def lock_path(self) -> Path:
        """The file of the profile's source lock."""
        return LOCKS / f"{self.settings.profile}.json"

    @cached_property
    def image_locks(self) -> dict[str, tuple[str, ImageLock]]:
        """Every base image by name: its digest and its lock."""
        from anvil.image.build import image_digest

        locks = [lockfile.read_image_lock(path) for path in sorted((LOCKS / "images").glob("*.json"))]
        return {lock.name: (image_digest(lock), lock) for lock in locks}

    # ---- what planning asks

    def known(self, node: Node, key: str) -> StepResult | None:
        """The kept result of a node, if its card has been run with this very key and what it left is still there."""
        if node.op == "image":
            from anvil.image.build import find_image

            name = node.extra["name"]
            found = find_image(self.image_locks[name][1], self.home.images)
            return StepResult(facts={"image": name, "digest": found.digest}) if found else None
        if node.op == "fetch":
            files = node.extra["files"]
            if not all(self.vault.claim(Digest(file["sha256"])) for file in files):
                return None
            return StepResult(facts={"files": [{"name": f["name"], "sha256": f["sha256"]} for f in files]})
        stored = self.db.find_result(key)
        return StepResult.from_data(MicroJSON.decode(stored.ret)["data"]) if stored else None

    def reference(self, result: StepResult, ref: StepRef) -> str:
        """The digest of a file or folder that a card left; raises RecipeError when it left no such thing."""
        if ref.tree == "out" and not ref.path:
            return result.out.digest if result.out else ""
        stack = result.stack if ref.tree == "work" else ((result.out,) if result.out else ())
        try:
            return self.layers.reference_digest(stack, ref.path)
        except OutputForbidden as error:
            place = "/work" if ref.tree == "work" else "/out"
            raise RecipeError(
                f"{ref.node} left no {ref.path!r} in its {place}",
                hint=f"{error.hint}; does its script make that file there, and does it keep='all' if it is in /work?",
            ) from error

    def key_of(self, graph: Graph, results: Mapping[str, StepResult], node: Node) -> str:
        """The key of a node of a finished graph."""
        return node_key(node, {need: results[need] for need in graph.nodes[node.id].needs}, self.reference)

    def estimates(self, nodes: Iterable[Node], keys: Mapping[str, str] | None = None) -> dict[str, Estimate]:
        """How long each node will take, in seconds with their spread. keys: of nodes, where they are known."""
        from anvil.mainframe.estimate import estimates

        listed = list(nodes)
        return estimates(listed, self.db.runs(node.id for node in listed), keys)

    def keep_file(self, recipe: str, path: str) -> str:
        """Put a file beside a recipe into the vault; its sha256."""
        return self.vault.put_bytes(self.book.file(recipe, path))

    # ---- the host set

    def mirrors(self) -> Mirrors:
        """Where pinned files may be had: a snapshot archive is asked for the days of the locks."""
        from anvil.sources import mirrors

        settings, own = self.settings, self.project_lock
        return mirrors.find(
            settings=settings.mirrors,
            snapshot=settings.snapshot,
            days=[self.sources.resolved, *([own.resolved] if own else [])],
            project=settings.project,
        )

    def fetch_into_vault(
        self, files: Sequence[PinnedFile], report: Callable[[dict[str, Any]], None], tick: Callable[[], bool]
    ) -> None:
        """Fetch what the vault lacks; every file is verified before it is kept."""
        from anvil.sources.fetch import Fetcher, Progress

        missing = [file for file in files if not self.vault.claim(Digest(file.sha256))]
        if not missing:
            return
        done: dict[str, int] = {}
        total = sum(file.size for file in missing)

        def progress(event: Progress) -> None:
            done[event.file.sha256] = event.done
            so_far = sum(done.values())
            report({"note": f"{so_far // 1_000_000} of {total // 1_000_000} MB", "done": so_far, "of": total})

        fetcher = Fetcher(
            self.mirrors(),
            self.home.downloads,
            offline=self.settings.offline,
            from_dir=self.settings.from_dir,
            progress=progress,
            cancel=tick,
        )

        def deliver(file: PinnedFile, path: Path) -> None:
            self.vault.put_file(path, expect=Digest(file.sha256))

        fetcher.fetch_all(missing, deliver)

    # ---- the vault's keeping

    def kept_layers(self) -> Iterator[LayerRef]:
        """Every layer that a kept result needs."""
        for stored in self.db.all_results():
            result = StepResult.from_data(MicroJSON.decode(stored.ret)["data"])
            yield from result.stack
            if result.out:
                yield result.out

    def damaged_results(self) -> list[str]:
        """The keys of the results that need a blob which the vault lacks; no blob is read but manifests and times."""
        keys = []
        for stored in self.db.all_results():
            result = StepResult.from_data(MicroJSON.decode(stored.ret)["data"])
            layers = [*result.stack, *([result.out] if result.out else [])]
            if not all(self._is_whole(layer) for layer in layers):
                keys.append(stored.key)
        return keys

    def forget_damaged(self) -> int:
        """Forget every result that needs a blob which the vault lacks; how many they were."""
        return sum(self.db.forget_result(key) for key in self.damaged_results())

    def _is_whole(self, layer: LayerRef) -> bool:
        try:
            return all(self.vault.has(digest) for digest in self.layers.closure(layer))
        except IntegrityError:
            return False

    def rootfs(self, digest: str) -> Path:
        """The tree of a base image that has been made."""
        return self.home.images / digest / "rootfs"

    def give_to_cell(self, path: Path) -> None:
        """Let a cell write into a folder that this process made."""
        if os.geteuid() == 0:
            os.chown(path, self.settings.cell_uid, self.settings.cell_uid)

    def accelerator(self) -> Accelerator:
        """How virtual machines run here: KVM only when it has once run a guest since the host was started."""
        return "kvm" if self.db.fact(_accelerator_fact()) == "kvm" else "tcg"

    def distrust_kvm(self) -> None:
        """Use KVM no more until the host is started again."""
        self.db.set_fact(_accelerator_fact(), "tcg")

    def probe_accelerator(self, place: Place, kernel: Path, scratch: Path) -> None:
        """See once, with a real guest, whether KVM runs one; ``accelerator`` remembers."""
        from anvil.machine import kvm

        name = _accelerator_fact()
        kvm.accelerator(
            place,
            kernel=kernel,
            scratch=scratch,
            recall=lambda: self.db.fact(name) or "",
            remember=lambda found: self.db.set_fact(name, found),
        )


def _accelerator_fact() -> str:
    """What a probe found holds until the host is started again: another kernel or another machine may differ."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"accelerator since boot {boot}"
