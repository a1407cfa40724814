"""What a pinned source's archive holds, asked in a cell."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anvil.sources
from anvil.cell import run as cell
from anvil.cell.spec import Bind, CellSpec, GiB, Limits
from anvil.errors import IntegrityError, Interrupted, UsageError
from anvil.mainframe.cellwork import require_machine
from anvil.mainframe.images import ensure_image
from anvil.model.layer import Digest
from anvil.sources.tree import Listed, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from anvil.mainframe.services import Services
    from anvil.model.lock import Source, SourceLock

LISTING_SECONDS = 1800
_ANSWER_BYTES = 512 << 20
_IMAGE = "build"  # of the images, the one whose Python has every decompressor
_PROGRAM = Path(anvil.sources.__file__).parent / "listing.py"


def source_of(lock: SourceLock, tree: Path, named: str = "") -> Source:
    """The source that a tree was unpacked from: the one named, or the one whose name (and version) the folder has.

    Raises UsageError with the names that there are.
    """
    known = f"name one with --source: {', '.join(sorted(lock.sources))}"
    if named:
        if named not in lock.sources:
            raise UsageError(f"no source is called {named!r} in profile {lock.profile}", hint=known)
        return lock.sources[named]
    folder = tree.resolve().name
    found = [one for one in lock.sources.values() if folder in {one.name, f"{one.name}-{one.version}"}]
    if not found:
        raise UsageError(f"profile {lock.profile} has no source of which {folder!r} would be the folder", hint=known)
    return found[0]


def listing(
    services: Services, source: Source, report: Callable[[dict[str, Any]], None], tick: Callable[[], bool]
) -> dict[str, Listed]:
    """Every name that the archive of a source holds; it is fetched when it is not in the vault.

    Raises IntegrityError for an archive that cannot be read, Interrupted when ``tick`` says so.
    """
    services.fetch_into_vault(source.files[:1], report, tick)
    image = ensure_image(services, _IMAGE, report, tick)
    with tempfile.TemporaryDirectory(prefix=f"{services.worker.token}-", dir=services.home.cells) as folder:
        spec = CellSpec(
            rootfs=image.rootfs,
            command=("/usr/bin/python3", "-I", "-S", "-B", "/in/listing.py", "/in/archive"),
            inputs=(
                Bind(name="listing.py", source=services.vault.checked(services.vault.put_file(_PROGRAM))),
                Bind(name="archive", source=services.vault.checked(Digest(source.files[0].sha256))),
            ),
            limits=Limits(memory_bytes=2 * GiB, wall_seconds=LISTING_SECONDS),
            stdin=b"",
            host_uid=services.settings.cell_uid,
            bwrap=services.settings.bwrap,
        )
        errors = Path(folder) / "errors"
        outcome, said = cell.exchange(spec, errors, cap=_ANSWER_BYTES, cancel=tick)
        if outcome.reason == "cancelled":
            raise Interrupted("stopped while the archive was read")
        require_machine(outcome, "the reading of the archive")
        if not outcome.ok:
            text = errors.read_bytes()[-2000:].decode("utf-8", errors="backslashreplace")
            raise IntegrityError(f"{source.files[0].name} could not be read", detail=text)
    return parse(said)
