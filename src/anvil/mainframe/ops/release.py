"""release: the output gate judges an artifact, opening archives and images in cells."""

from __future__ import annotations

import inspect
import shlex
import shutil
from typing import TYPE_CHECKING, BinaryIO

from anvil.cell import run as cell
from anvil.cell.spec import Bind, CellSpec, Limits
from anvil.errors import CardJam, OutputForbidden
from anvil.machine import machine
from anvil.machine.spec import Disk, MachineSpec
from anvil.mainframe import vmwork
from anvil.mainframe.cellwork import OUTPUT_BYTES, bash, present, require_success, stack_of
from anvil.mainframe.graph import BlobRef
from anvil.mainframe.results import LayerRef, StepResult
from anvil.model.layer import Digest, Entry, Manifest
from anvil.release import fat, iso, newc, squash, streams, ustar
from anvil.release.gate import File, Gate
from anvil.vault.scan import OutputLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import NodeRef
    from anvil.release.judge import Container
    from anvil.vault.collect import Collected


def _reader(module: ModuleType) -> str:
    """The command of one of the gate's own readers: its whole text goes into the cell."""
    return f"python3 -I -c {shlex.quote(inspect.getsource(module))} /in/file members"


# How a cell of the machine image opens a container: the file is /in/file, the members go below /out/members.
# Whatever cannot be unpacked without privileges (a device node) fails here, and that is a verdict too; so is what an
# ordinary tool would pass over: the gate's own readers account for every byte of a file, xz refuses what is behind
# the end, zstd skips a frame that says so, and a squashfs says itself how long it is.
OPEN = {
    "gzip": _reader(streams),
    "bzip2": _reader(streams),
    "xz": "xz -dc /in/file > members/content",
    "zstd": "zstd -dcq /in/file > members/content\n"
    "skips=$(zstd --list /in/file | tail --lines=1 | awk '{ print $2 }')\n"
    'if [ "$skips" != 0 ]; then echo "it has frames that readers skip"; exit 1; fi',
    "cpio": _reader(newc),
    "tar": _reader(ustar),
    "squashfs": f"{_reader(squash)}\nunsquashfs -quiet -no-progress -no-xattrs -force -dest members /in/file",
    "iso9660": _reader(iso),
    "fat": _reader(fat),
}
CENSUS_DONE = "ANVIL CENSUS DONE"
"""What the opener of a pool says on its console once the tar is whole."""

_SECONDS = 300


def run(context: Context) -> StepResult:
    """Judge ``inputs.file`` as ``extra.kind``; its output is the artifact itself, under the name ``artifact``."""
    node, services = context.node, context.services
    entry = _entry(context, node.inputs["file"])
    released = {
        str(result.facts["sha256"]): str(result.facts["kind"])
        for result in context.results.values()
        if "kind" in result.facts
    }
    gate = Gate(
        opener=lambda container, file: _members(context, container, file),
        declared=frozenset(node.extra["texts"]),
        released=released,
    )
    context.log.write_bytes(b"")
    report = gate.admit(_file(context, node.extra["name"], entry), node.extra["kind"])
    layer = services.layers.store(Manifest(entries=(entry,)))
    facts = {
        "sha256": entry.sha256,
        "size": entry.size,
        "executable": bool(entry.mode & 0o111),
        "kind": report.kind,
        "members": dict(report.members),
    }
    return StepResult(out=LayerRef(digest=layer.digest, times=layer.times), facts=facts)


def _entry(context: Context, ref: NodeRef) -> Entry:
    """The artifact as the one file of a layer. Raises HashMismatch when it is not what the card left."""
    services = context.services
    path = present(context, ref)
    mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
    digest = services.vault.put_file(path, expect=_digest(context, ref))
    return Entry(path="artifact", type="file", mode=mode, size=path.stat().st_size, sha256=digest)


def _digest(context: Context, ref: NodeRef) -> Digest | None:
    if isinstance(ref, BlobRef):
        return Digest(ref.sha256)
    entry = context.services.layers.lookup(stack_of(context, ref), ref.path)
    return entry.sha256 if entry is not None and entry.type == "file" else None


def _file(context: Context, name: str, entry: Entry) -> File:
    vault = context.services.vault

    def opened(digest: Digest = entry.sha256) -> BinaryIO:
        vault.check(digest)
        return vault.open(digest)

    return File(name=name, sha256=entry.sha256, size=entry.size, open=opened)


def open_container(context: Context, container: Container, file: File) -> Collected:
    """What lies in an archive or image of the vault, below ``members/``.

    A pool is opened by ``context.node``'s kernel and initrd. Raises OutputForbidden for what cannot be opened.
    """
    context.report({"note": f"opening {file.name}"})
    if container == "zfs":
        return _open_pool(context, file)
    return _open(context, OPEN[container], context.services.vault.checked(Digest(file.sha256)), file.name)


def _members(context: Context, container: Container, file: File) -> Iterator[File]:
    left = open_container(context, container, file)
    for entry in left.manifest.entries:
        if entry.type == "file":
            name = entry.path.removeprefix("members/")
            yield _file(context, f"{file.name}:{name}", entry)


def _open(context: Context, script: str, path: Path, name: str) -> Collected:
    services, node = context.services, context.node
    with context.staging() as staging:
        out = staging / "out"
        spec = CellSpec(
            rootfs=services.rootfs(node.image),
            command=bash(f"cd /out\nmkdir members\n{script}\nchmod -R u+rwX members"),
            out=out,
            inputs=(Bind(name="file", source=path),),
            limits=Limits(wall_seconds=_SECONDS, output_bytes=OUTPUT_BYTES),
            host_uid=services.settings.cell_uid,
            bwrap=services.settings.bwrap,
        )
        log = staging / "log"
        outcome = cell.run(spec, log, cancel=context.tick)
        _append(log, context.log)
        if outcome.reason == "exit" and outcome.exit_code:
            raise OutputForbidden(
                f"{name} cannot be opened: it is damaged, or holds what no user may unpack or a reader may pass over",
                detail=_last_line(log),
            )
        require_success(context, outcome)
        left = services.layers.collect(out, kind="tree", limits=OutputLimits(total_bytes=OUTPUT_BYTES))
        services.layers.adopt(out, left)
        return left


def _open_pool(context: Context, file: File) -> Collected:
    """A ZFS pool is read by the kernel that the recipe names; it writes a tar of every file to a second disk."""
    node, services = context.node, context.services
    if "kernel" not in node.inputs:
        raise OutputForbidden(f"{file.name} is a ZFS pool, and nothing is named that can read it",
                              hint="artifact(…, opener={'kernel': …, 'initrd': …})")  # fmt: skip
    spec = MachineSpec(
        kernel=present(context, node.inputs["kernel"]),
        initrd=present(context, node.inputs["initrd"]),
        append="console=ttyS0 panic=-1 anvil.census",
        medium=services.vault.checked(Digest(file.sha256)),
        attach="disk",
        disks=(Disk(name="members.tar", size=2 * file.size),),
        nic=False,
    )
    with context.staging() as staging:
        out = staging / "out"
        console = staging / "console"
        place = vmwork.place(context)
        with machine.running(spec, place, out=out, wall_seconds=_SECONDS, transcript=console) as guest:
            verdict = guest.wait_for(CENSUS_DONE, timeout=_SECONDS)
            ended = verdict.ok and guest.ended(timeout=_SECONDS)
        _append(console, context.log)
        vmwork.require_success(context, verdict)
        if not ended:
            context.stop_if_asked()
            raise CardJam(f"the machine that opened {file.name} did not power off")
        return _open(context, OPEN["tar"], out / "members.tar", file.name)


def _last_line(log: Path) -> str:
    """What a reader said last: why it refuses."""
    lines = log.read_bytes()[-2000:].decode("utf-8", "backslashreplace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _append(source: Path, log: Path) -> None:
    with source.open("rb") as reader, log.open("ab") as writer:
        shutil.copyfileobj(reader, writer)
