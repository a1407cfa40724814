"""The ASCII_OSS tree: what was forged and what it was made from, as plain folders that a person can walk through.

    DIR/
        README.md                  what this is and where everything comes from
        src/TOOL/MANIFEST.md       versions, licences, digests, every card with its key
        src/TOOL/origin/           the upstream archives, as they were published
        src/TOOL/sovereign/        the trees that were compiled: unpacked, patched, configured by our own steps
        src/TOOL/buildroot/        what each card left in /out
        bin/                       the released programs
        lib/                       the static libraries
        etc/                       what configures it all: the files beside the recipes, by recipe, and kernel options

A view of the vault, written from it and verified on the way; nothing reads it again. A tool is a recipe with sources.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import DiskFull, EnvironmentLack, UsageError
from anvil.mainframe.finished import Finished
from anvil.mainframe.graph import BlobRef
from anvil.model.layer import Digest
from anvil.vault.discard import discard
from anvil.vault.disk import translated
from anvil.vault.plant import export_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anvil.mainframe.graph import Node
    from anvil.mainframe.services import Services
    from anvil.model.layer import Entry
    from anvil.model.lock import Source

DEFAULT = Path("/mnt/anvil_temp/ascii_oss")
"""Where the seed has it."""

MARK = "# ASCII_OSS: a view of Anvil's vault\n"
"""The first line of README.md; a folder without it is not replaced."""

_PROGRAMS = ("bin/", "sbin/")


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A recipe with sources. kept: its cards that left a tree to be shown, by the source that it began with."""

    name: str
    nodes: Sequence[Node]
    sources: Sequence[Source]
    kept: Mapping[str, Node]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was exported. size: bytes of all files."""

    path: Path
    tools: tuple[str, ...]
    programs: tuple[str, ...]
    libraries: tuple[str, ...]
    size: int


def write_view(services: Services, recipe: str, target: Path, *, trees: bool, tell: Callable[[str], None]) -> Written:
    """Write the tree of a forged recipe to ``target``, which is empty, absent, or an earlier one that is replaced.

    trees: with ``sovereign/``, which for the ISO's kernel is a gigabyte and a half. Raises UsageError for a folder
    with anything else in it, AnvilError when the recipe is not forged, DiskFull before anything is written.
    """
    _refuse_foreign(target)
    finished = Finished.of(services, recipe)
    tools = tools_of(services, finished)
    with _staging(target) as fresh:
        writer = _Writer(services, finished, fresh, tell)
        needed = writer.bytes_of(tools, trees=trees)
        if needed > (free := shutil.disk_usage(target.parent).free):
            raise DiskFull(
                f"the tree takes {needed >> 20} MiB, and {free >> 20} are free at {target.parent}",
                hint="free some space, or leave the source trees out with --without-trees",
            )
        for name in ("src", "bin", "lib", "etc"):
            (fresh / name).mkdir()
        for tool in tools:
            writer.tool(tool, trees=trees)
        writer.programs()
        writer.configuration()
        writer.readme(recipe, tools, trees=trees)
        tell("putting it in place")
        _put(fresh, target)
    return Written(
        path=target,
        tools=tuple(tool.name for tool in tools),
        programs=tuple(sorted(writer.bin)),
        libraries=tuple(sorted(writer.lib)),
        size=needed,
    )


def tools_of(services: Services, finished: Finished) -> list[Tool]:
    """The recipes of a graph that take in sources, in its order."""
    tools = []
    for recipe in finished.graph.recipes:
        nodes = [node for node in finished.graph.nodes.values() if node.recipe == recipe]
        names = finished.sources(nodes)
        if names:
            sources = [services.sources.sources[name] for name in names]
            tools.append(Tool(name=recipe, nodes=nodes, sources=sources, kept=_last_trees(finished, nodes)))
    return tools


def _last_trees(finished: Finished, nodes: Sequence[Node]) -> dict[str, Node]:
    """For each source that is unpacked: the last card of the chain from there whose work tree was kept."""
    begun: dict[str, str] = {}
    kept: dict[str, Node] = {}
    for node in nodes:
        if node.op == "unpack":
            ref = node.inputs["source"]
            begun[node.id] = ref.node.partition("/")[2]
        elif node.base in begun and node.op != "check":
            begun[node.id] = begun[node.base]
        if node.id in begun and finished.result(node).stack:
            kept[begun[node.id]] = node
    return kept


class _Writer:
    def __init__(self, services: Services, finished: Finished, root: Path, tell: Callable[[str], None]) -> None:
        self._services = services
        self._finished = finished
        self._root = root
        self._tell = tell
        self.bin: set[str] = set()
        self.lib: set[str] = set()

    def bytes_of(self, tools: Sequence[Tool], *, trees: bool) -> int:
        """About what the tree takes."""
        total = 0
        for tool in tools:
            total += sum(source.files[0].size for source in tool.sources)
            if trees:
                total += sum(entry.size for node in tool.kept.values() for entry in self._tree(node))
            total += sum(entry.size for node in tool.nodes for entry in self._out(node))
        return total

    def tool(self, tool: Tool, *, trees: bool) -> None:
        """One folder below src/."""
        folder = self._root / "src" / tool.name
        for name in ("origin", "sovereign", "buildroot"):
            (folder / name).mkdir(parents=True)
        for source in tool.sources:
            self._tell(f"{tool.name}/origin/{source.files[0].name}")
            self._blob(Digest(source.files[0].sha256), folder / "origin" / source.files[0].name)
        for name, node in tool.kept.items() if trees else ():
            self._tell(f"{tool.name}/sovereign/{name}")
            self._services.layers.export(self._finished.result(node).stack, "", folder / "sovereign" / name)
        for node in tool.nodes:
            if node.op != "release" and self._out(node):
                self._tell(f"{node.id}")
                self._export_out(node, "", folder / "buildroot" / node.id.partition("/")[2])
            self._libraries(tool, node)
        (folder / "MANIFEST.md").write_text(self._manifest(tool, trees=trees), encoding="utf-8")

    def programs(self) -> None:
        """bin/: every released program, by its own name."""
        for node in self._finished.graph.nodes.values():
            if node.op == "release" and node.extra["name"].startswith(_PROGRAMS):
                name = node.extra["name"].rpartition("/")[2]
                self._export_out(node, "artifact", self._root / "bin" / name)
                self.bin.add(name)

    def configuration(self) -> None:
        """etc/RECIPE/: the files beside the recipes, as they went into the cards; and the options of a kernel."""
        for node in self._finished.graph.nodes.values():
            place = self._root / "etc" / node.recipe
            given = {ref.name: ref.sha256 for ref in node.inputs.values() if isinstance(ref, BlobRef) and not ref.node}
            for name, sha256 in given.items():
                place.mkdir(exist_ok=True)
                self._blob(Digest(sha256), place / name)
            if node.op == "run" and any(entry.path == "config" and entry.type == "file" for entry in self._out(node)):
                place.mkdir(exist_ok=True)
                self._export_out(node, "config", place / "config")

    def readme(self, recipe: str, tools: Sequence[Tool], *, trees: bool) -> None:
        """README.md."""
        rows = [
            f"| [{tool.name}](src/{tool.name}/MANIFEST.md) | "
            + ", ".join(f"{source.name} {source.version}" for source in tool.sources)
            + f" | {'; '.join(sorted({source.licence for source in tool.sources}))} |"
            for tool in tools
        ]
        lines = [
            "This folder was written by `anvil vault export-oss`. It shows what was forged for the recipe",
            f"`{recipe}` (profile {self._services.sources.profile}) and what it was made from. Nothing reads it:",
            "a change here changes nothing that Anvil makes, and the next export replaces the whole folder.",
            "",
            "## Provenance",
            "",
            "Every archive in `src/*/origin` is pinned by its sha256 in the lock of the profile, which was made from",
            "signed indexes; it was compared with that pin when it was fetched and again when it was copied here.",
            "Every other file here is from Anvil's vault, where it is kept by its sha256, and was made in a sandbox",
            "without a network by a card that the tool's `MANIFEST.md` names with the key that its inputs give.",
            "`anvil sources verify --tree DIR` compares an unpacked source with its archive.",
            "",
            "| tool | made from | licences |",
            "|---|---|---|",
            *rows,
            "",
            "- `src/TOOL/origin`: the upstream archives, unchanged.",
            "- `src/TOOL/sovereign`: the trees as they were compiled, patched and configured by the tool's own cards."
            if trees
            else "- `src/TOOL/sovereign`: left out of this export.",
            "- `src/TOOL/buildroot`: what each card left. Links in it are as the cards made them.",
            "- `bin`: the released programs; `lib`: static libraries; `etc`: what configures them, by recipe.",
        ]
        (self._root / "README.md").write_text(MARK + "\n" + "\n".join(lines) + "\n", encoding="utf-8")

    def _libraries(self, tool: Tool, node: Node) -> None:
        for entry in self._out(node):
            folder, _, name = entry.path.rpartition("/")
            if entry.type == "file" and name.endswith(".a") and folder.rpartition("/")[2] == "lib":
                name = f"{tool.name}-{name}" if name in self.lib else name
                self._export_out(node, entry.path, self._root / "lib" / name)
                self.lib.add(name)

    def _out(self, node: Node) -> Sequence[Entry]:
        out = self._finished.result(node).out
        return self._services.layers.manifest(out.digest).entries if out else ()

    def _tree(self, node: Node) -> Sequence[Entry]:
        return self._services.layers.merged(self._finished.result(node).stack).entries

    def _export_out(self, node: Node, path: str, target: Path) -> None:
        out = self._finished.result(node).out
        if out is not None:
            self._services.layers.export((out,), path, target)

    def _blob(self, digest: Digest, target: Path) -> None:
        from anvil.model.layer import Entry

        size = self._services.vault.size(digest)
        export_file(self._services.vault, Entry(path="blob", type="file", size=size, sha256=digest), target)

    def _manifest(self, tool: Tool, *, trees: bool) -> str:
        images = {digest: (name, lock) for name, (digest, lock) in self._services.image_locks.items()}
        used = sorted({images[node.image][0] for node in tool.nodes if node.image in images})
        lines = [f"# {tool.name}", "", "## Origin", "", "| source | version | licence | archive | sha256 |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {source.name} | {source.version} | {source.licence} | {source.files[0].name} | "
            f"{source.files[0].sha256} |"
            for source in tool.sources
        ]
        lines += ["", "## Sovereign", ""]
        if trees and tool.kept:
            lines += [f"- `sovereign/{name}`: the tree that `{node.id}` left" for name, node in tool.kept.items()]
        else:
            lines += ["Left out of this export." if tool.kept else "Its cards keep no tree."]
        lines += ["", "## Buildroot", "", "| card | operation | key | tree of /out |", "|---|---|---|---|"]
        for node in tool.nodes:
            out = self._finished.result(node).out
            left = out.digest if out and self._out(node) else ""
            lines.append(f"| {node.id} | {node.op} | {self._finished.plan[node.id].key} | {left} |")
        lines += ["", "## Tools", ""]
        lines += [
            f"- base image `{name}`, {len(self._services.image_locks[name][1].packages)} packages, "
            f"digest {self._services.image_locks[name][0]}"
            for name in used
        ]
        return "\n".join(lines) + "\n"


def _refuse_foreign(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is no folder", hint="name another one")
    if not target.is_dir() or not any(target.iterdir()):
        return
    try:
        mine = (target / "README.md").read_bytes()[: len(MARK)] == MARK.encode()
    except OSError:
        mine = False
    if not mine:
        raise UsageError(f"{target} holds something else", hint="name a folder that is empty or not there yet")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, whose lock its writer holds; gone at the end. What a dead one left goes."""
    fresh = target.with_name(f".{target.name}.anvil-new")
    with translated("writing the tree", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        guard = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EnvironmentLack(f"another export writes into {target.parent}", hint="wait for its end") from None
            discard(fresh)
            fresh.mkdir()
            yield fresh
        finally:
            discard(fresh)
            os.close(guard)


def _put(fresh: Path, target: Path) -> None:
    """Put the new tree in the place of the old one; both are whole at any time."""
    old = target.with_name(f".{target.name}.anvil-old")
    discard(old)
    if target.is_dir():
        target.rename(old)
    fresh.rename(target)
    discard(old)
