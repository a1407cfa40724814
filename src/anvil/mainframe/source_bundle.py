"""The corresponding source of an artifact: all that it was made from and all that controlled its making, in one tar.

    NAME.source/
        README.md           what this is, and how to make the artifact from it
        artifact.json       the artifact's own account
        sources/            the upstream archives, as they were fetched
        recipes/            the recipes, and the files beside them that were used, where Anvil finds them
        cards/              every card behind the artifact in its order: its script, and its whole payload as JSON
        locks/              which sources and which base images (every package by version and sha256)

It is what the GPL calls the complete corresponding source (version 2, section 3: "all the source code for all modules
it contains, plus … the scripts used to control compilation and installation"). The same artifact gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anvil
from anvil.errors import AnvilError, IntegrityError, UsageError
from anvil.mainframe.finished import Finished
from anvil.mainframe.graph import BlobRef
from anvil.mainframe.services import LOCKS
from anvil.model.layer import Digest
from anvil.release.publish import PUBLISHED_TIME
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.mainframe.graph import Node
    from anvil.mainframe.services import Services

_SIDECAR_LIMIT = 16 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was written. sources: their names. size: bytes of the tar; sha256: its digest."""

    path: Path
    sources: tuple[str, ...]
    cards: int
    size: int
    sha256: str


def read_sidecar(artifact: Path) -> dict[str, Any]:
    """An artifact's account, once its bytes are seen to be those that it speaks of.

    Raises UsageError where there is none, IntegrityError when the file is another one.
    """
    path = artifact.with_name(f"{artifact.name}.json")
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_SIDECAR_LIMIT))
        said, recipe, cards = data["sha256"], data["recipe"], data["cards"]
        [(card["card"], card["key"]) for card in cards]
    except OSError as error:
        raise UsageError(
            f"{artifact} has no account beside it: {error.strerror}",
            where=str(path),
            hint="name an artifact as anvil forge left it, for instance build_artifacts/bzImage",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is no account of an artifact", detail=f"{error!r:.200}") from error
    with artifact.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != said or not isinstance(recipe, str):
        raise IntegrityError(
            f"{artifact} is not the file that its account speaks of",
            where=f"sha256 {found[:16]}, not {str(said)[:16]}",
            hint="forge it again: anvil forge",
        )
    return dict(data)


def write_bundle(
    services: Services, artifact: Path, output: Path, *, recipe: str, tell: Callable[[str], None]
) -> Bundle:
    """Write the bundle of an artifact to ``output``, whole or not at all.

    recipe: what was forged; "" for the recipe that the account names, which is right unless another one extends it.
    Raises AnvilError when the cards of today's recipes are not the ones that made the artifact.
    """
    said = read_sidecar(artifact)
    wanted = recipe or said["recipe"]
    finished = Finished.of(services, wanted)
    node = finished.graph.nodes.get(f"{said['recipe']}/artifact:{said['name']}")
    keys = {card["card"]: card["key"] for card in said["cards"]}
    now = {} if node is None else {one.id: finished.plan[one.id].key for one in finished.behind(node)}
    if node is None or now != keys:
        other = sorted({*(now.items() ^ keys.items())})
        raise AnvilError(
            f"{artifact} was not made by {wanted} as it is now: {other[0][0] if other else said['name']} differs",
            hint=f"forge it again, or say what was forged with --recipe (now: {wanted})",
        )
    cards = finished.behind(node)
    sources = finished.sources(cards)
    top = f"{Path(said['name']).name}.source"
    fresh = output.with_name(f".{output.name[:200]}.anvil-{os.urandom(6).hex()}")
    with translated("writing the source bundle", output):
        try:
            with fresh.open("xb") as file:
                writer = _Writer(file, top, services, tell)
                writer.text("README.md", _readme(said, wanted, services, sources))
                writer.text("artifact.json", json.dumps(said, indent=2, ensure_ascii=False) + "\n")
                for name in sources:
                    pinned = services.sources.sources[name].files[0]
                    writer.blob(f"sources/{pinned.name}", Digest(pinned.sha256))
                _add_recipes(writer, services, cards)
                for number, card in enumerate(cards):
                    place = f"cards/{number:02}-{card.id.replace('/', '-').replace(':', '-')}"
                    if card.script:
                        writer.text(f"{place}.sh", card.script + "\n")
                    writer.text(f"{place}.json", json.dumps(card.as_data(), indent=2, ensure_ascii=False) + "\n")
                for lock in sorted({services.lock_path, *map(services.lock_of, sources)}, key=lambda path: path.name):
                    writer.file(f"locks/{lock.name}", lock)
                for name in sorted(said["images"]):
                    writer.file(f"locks/images/{name}.json", LOCKS / "images" / f"{name}.json")
                digest = writer.close()
                file.flush()
                os.fsync(file.fileno())
            size = fresh.stat().st_size
            fresh.rename(output)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    return Bundle(path=output, sources=tuple(sources), cards=len(cards), size=size, sha256=digest)


def _add_recipes(writer: _Writer, services: Services, cards: list[Node]) -> None:
    """The recipes behind an artifact, and of the files beside them those that were used, by the names they have."""
    used = {ref.sha256 for card in cards for ref in card.inputs.values() if isinstance(ref, BlobRef) and not ref.node}
    written: set[Path] = set()
    for recipe in sorted({card.recipe for card in cards}):
        path = services.book.paths[recipe]
        writer.file(f"recipes/{path.name}", path)
        for beside in sorted(path.parent.rglob("*")):
            if beside in written or beside.is_symlink() or not beside.is_file() or beside.suffix == ".py":
                continue
            if hashlib.sha256(beside.read_bytes()).hexdigest() in used:
                written.add(beside)
                writer.file(f"recipes/{beside.relative_to(path.parent)}", beside)


class _Writer:
    """A tar whose bytes depend on its members alone; hashed on the way."""

    def __init__(self, file: io.BufferedWriter, top: str, services: Services, tell: Callable[[str], None]) -> None:
        self._hashing = _Hashing(file)
        self._tar = tarfile.open(fileobj=self._hashing, mode="w|", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - close()
        self._top = top
        self._services = services
        self._tell = tell

    def text(self, name: str, text: str) -> None:
        """A member from a text."""
        self._add(name, io.BytesIO(text.encode()), len(text.encode()))

    def file(self, name: str, path: Path) -> None:
        """A member from a file of Anvil's or of the project."""
        data = path.read_bytes()
        self._add(name, io.BytesIO(data), len(data))

    def blob(self, name: str, digest: Digest) -> None:
        """A member from the vault, verified."""
        self._tell(name)
        path = self._services.vault.checked(digest)
        with path.open("rb") as data:
            self._add(name, data, path.stat().st_size)

    def close(self) -> str:
        """The sha256 of the whole tar."""
        self._tar.close()
        return self._hashing.sha256.hexdigest()

    def _add(self, name: str, data: Any, size: int) -> None:
        member = tarfile.TarInfo(f"{self._top}/{name}")
        member.size, member.mode, member.mtime = size, 0o644, PUBLISHED_TIME
        self._tar.addfile(member, data)


class _Hashing(io.RawIOBase):
    def __init__(self, file: io.BufferedWriter) -> None:
        super().__init__()
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def writable(self) -> bool:
        return True


def _readme(said: dict[str, Any], wanted: str, services: Services, sources: list[str]) -> str:
    lock = services.sources
    taken = [lock.sources[name] for name in sources]
    rows = [f"| {one.name} | {one.version} | {one.licence} | {one.files[0].name} |" for one in taken]
    profile = "" if lock.profile == "debian" else f" --profile {lock.profile}"
    lines = [
        f"# The source of {said['name']}",
        "",
        f"{said['name']} (sha256 {said['sha256']}) was made by Anvil {anvil.__version__} from what is here.",
        f"Its licence: {said['licence']}.",
        "",
        "| source | version | licence | archive |",
        "|---|---|---|---|",
        *rows,
        "",
        "- `sources/` has the upstream archives as they were published; nothing in them was changed. What is changed",
        "  in a tree, and how it is configured, compiled and installed, is in the recipes and the files beside them.",
        "- `cards/` has what these recipes came to: each step in its order, its script and all that it took in.",
        "- `locks/` names every source and every tool (package of a base image) by version and sha256.",
        "",
        "To make it again, with Anvil of that version:",
        "",
        f"    anvil forge {wanted}{profile} --from sources",
        "",
        "A recipe in `recipes/` of a project hides Anvil's own of that name; the files lie beside it.",
    ]
    return "\n".join(lines) + "\n"
