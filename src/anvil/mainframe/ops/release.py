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
from anvil.mainframe.cellwork import OUTPUT_BYTES, bash, present, require_success
from anvil.mainframe.results import LayerRef, StepResult
from anvil.model.layer import Digest, Entry, Manifest
from anvil.release import newc
from anvil.release.gate import File, Gate
from anvil.vault.scan import OutputLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.mainframe.context import Context
    from anvil.release.judge import Container
    from anvil.vault.collect import Collected

# How a cell of the machine image opens a container: the file is /in/file, the members go below /out/members.
# Whatever cannot be unpacked without privileges (a device node) fails here, and that is a verdict too; so is what the
# tool would pass over: a repeated name, whose earlier file is lost, and bytes behind the end, where another reader
# may go on (gzip and xz refuse these themselves, bzip2 only mentions them, zstd skips a frame that says so).
OPEN = {
    "gzip": "gzip -dc /in/file > members/content",
    "xz": "xz -dc /in/file > members/content",
    "zstd": "zstd -dcq /in/file > members/content\n"
    "skips=$(zstd --list /in/file | tail --lines=1 | awk '{ print $2 }')\n"
    'if [ "$skips" != 0 ]; then echo "it has frames that readers skip"; exit 1; fi',
    "bzip2": "bzip2 -dc /in/file > members/content 2> said; cat said; test ! -s said; rm said",
    "cpio": f"python3 -I -c {shlex.quote(inspect.getsource(newc))} /in/file members",
    # --keep-old-files: a second file where one is already, under whatever name, is an error. The archive ends at its
    # first block of zeros, and tar says where that is.
    "tar": """
tar --extract --keep-old-files --no-same-owner --directory=members --file=/in/file
tar --list --file=/in/file | sed -E 's|^(\\./)+(.)|\\2|; s|/$||' | sort | uniq --repeated > repeated
if [ -s repeated ]; then echo "names that are there twice:"; cat repeated; exit 1; fi
rm repeated
last=$(tar --list --block-number --file=/in/file | tail --lines=1)
[[ $last =~ ^block\\ ([0-9]+):\\ \\*\\*\\ Block\\ of\\ NULs\\ \\*\\*$ ]] || { echo "the archive has no end"; exit 1; }
rest=$(tail --bytes=+$((BASH_REMATCH[1] * 512 + 1)) /in/file | tr -d '\\000' | wc --bytes)
if [ "$rest" != 0 ]; then echo "something lies behind the archive's end"; exit 1; fi""",
    "squashfs": "unsquashfs -quiet -no-progress -no-xattrs -force -dest members /in/file",
    # The files, and what lies beside them: the first sector's code and the boot images, the EFI partition among them.
    "iso9660": "xorriso -report_about FAILURE -osirrox on:auto_chmod_on -indev /in/file -extract / members/files"
    " -extract_boot_images members/boot",
    "fat": "mcopy -s -i /in/file ::/ members",
}
CENSUS_DONE = "ANVIL CENSUS DONE"
"""What the opener of a pool says on its console once the tar is whole."""

_SECONDS = 300


def run(context: Context) -> StepResult:
    """Judge ``inputs.file`` as ``extra.kind``; its output is the artifact itself, under the name ``artifact``."""
    node, services = context.node, context.services
    ref = node.inputs["file"]
    path = present(context, ref)
    entry = _entry(context, path)
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


def _entry(context: Context, path: Path) -> Entry:
    """The artifact as the one file of a layer."""
    services = context.services
    mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
    digest = services.vault.put_file(path)
    return Entry(path="artifact", type="file", mode=mode, size=path.stat().st_size, sha256=digest)


def _file(context: Context, name: str, entry: Entry) -> File:
    vault = context.services.vault

    def opened(digest: Digest = entry.sha256) -> BinaryIO:
        return vault.open(digest)

    return File(name=name, sha256=entry.sha256, size=entry.size, open=opened)


def _members(context: Context, container: Container, file: File) -> Iterator[File]:
    context.report({"note": f"opening {file.name}"})
    if container == "zfs":
        left = _open_pool(context, file)
    else:
        left = _open(context, OPEN[container], context.services.vault.path(Digest(file.sha256)), file.name)
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
                f"{name} cannot be opened: it is damaged, or holds what no user may unpack or a reader may pass over"
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
        medium=services.vault.path(Digest(file.sha256)),
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


def _append(source: Path, log: Path) -> None:
    with source.open("rb") as reader, log.open("ab") as writer:
        shutil.copyfileobj(reader, writer)
