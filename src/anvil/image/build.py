"""A lock becomes a base image, once: home/images/<digest>/{image.json,rootfs/}.

The steps: unpack every package (decompressing ahead, in the lock's order), write what the set-up scripts need, run
them in a bootstrap cell, tidy, stamp, rename into place. The digest names the lock's content and this module's
contract, and the tree is a function of both. A tree that is not finished has another name and is never used; makers
of one image wait for each other.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from anvil.errors import AnvilError, CardJam, DiskFull, EnvironmentLack, HashMismatch, Interrupted, SourceGone
from anvil.image.bootstrap import Unpacked, bootstrap_script, write_database
from anvil.image.deb import Control, Deb
from anvil.image.tidy import give, tidy, tree_digest
from anvil.image.unpack import Caps, Tally, Tree, unpack
from anvil.model.layer import Digest
from anvil.sources import lockfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.model.lock import ImageLock, Package, PinnedFile

CONTRACT = 1
"""Raised when the same lock would give another tree."""

STAMP = "image.json"
ROOT = "rootfs"
AHEAD = 3
MAX_PACKAGE = 2 << 30
LOG_LINES = 20
FLOOR = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Image:
    """A finished base image. rootfs: the tree; tree: the digest of every byte in it (``tidy.tree_digest``)."""

    name: str
    digest: Digest
    rootfs: Path
    tree: Digest


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """What the bootstrap cell is asked to do.

    Run ``bash -c script`` with rootfs as a *writable* root, no network, one unprivileged uid that owns the tree (seen
    as 0 or as 1000, both work), /proc, /dev and a tmpfs on /tmp and /run; standard output and error go to log.
    """

    rootfs: Path
    script: str
    log: Path


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Who does what for ``ensure_image``.

    debs: gives the local path of a pinned file (fetched before, or now). run_cell: runs a Bootstrap, gives the exit
    code. cell_uid: when Anvil runs as root, the unprivileged host uid of that cell (it gets the tree while the
    scripts run); else None. progress: told the stage and how far it is (done, of). cancel: asked between steps;
    when it says yes, Interrupted is raised and nothing is left.
    """

    debs: Callable[[PinnedFile], Path]
    run_cell: Callable[[Bootstrap], int]
    cell_uid: int | None = None
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _of: None
    cancel: Callable[[], bool] = lambda: False
    caps: Caps = field(default_factory=Caps)

    def stop_if_asked(self) -> None:
        """Raise Interrupted if the person wants to stop."""
        if self.cancel():
            raise Interrupted("the making of a base image was stopped")


def image_digest(lock: ImageLock) -> Digest:
    """What an image is kept by: the lock's content and this builder's contract."""
    return Digest(hashlib.sha256(f"anvil image {CONTRACT}\n{lockfile.digest(lock)}\n".encode()).hexdigest())


def find_image(lock: ImageLock, images_dir: Path) -> Image | None:
    """The finished image of a lock, if there is one. Nothing is made or read but its stamp."""
    digest = image_digest(lock)
    folder = images_dir / digest
    try:
        stamp = json.loads((folder / STAMP).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(stamp, dict) or stamp.get("digest") != digest or not (folder / ROOT).is_dir():
        return None
    return Image(name=lock.name, digest=digest, rootfs=folder / ROOT, tree=Digest(str(stamp.get("tree"))))


def ensure_image(lock: ImageLock, images_dir: Path, maker: Maker) -> Image:
    """The image of a lock, made if it is not there yet.

    Raises SourceGone or HashMismatch for a package that is missing or damaged, IntegrityError for one that may not be
    unpacked, DiskFull, CardJam when a set-up script fails, Interrupted, and what ``maker``'s callables raise. Whatever
    happens, images_dir/<digest> is there complete or not at all.
    """
    if found := find_image(lock, images_dir):
        return found
    digest = image_digest(lock)
    with _only_maker(images_dir, digest, maker):
        if found := find_image(lock, images_dir):
            return found
        work = images_dir / f"tmp-{digest}"
        _remove(work)
        try:
            _make(lock, digest, work, maker)
            # A folder of this name without a valid stamp can only be damage: it was renamed with its stamp in it.
            _remove(images_dir / digest)
            os.rename(work, images_dir / digest)
            _sync_folder(images_dir)
        except OSError as error:
            raise _translated(error, lock) from error
        finally:
            _remove(work)
    made = find_image(lock, images_dir)
    if made is None:
        raise EnvironmentLack(f"the base image {lock.name} was made and is gone", where=str(images_dir))
    return made


def _make(lock: ImageLock, digest: Digest, work: Path, maker: Maker) -> None:
    root = work / ROOT
    root.mkdir(parents=True)
    tally = Tally()
    with Tree(root) as tree:
        packages = _unpack_all(lock, tree, work, maker, tally)
        write_database(tree, packages)
    _bootstrap(lock, work, packages, maker)
    maker.progress("tidy", 0, 1)
    tidy(root, epoch=tally.newest, owner=0 if os.geteuid() == 0 else None)
    maker.stop_if_asked()
    _write_stamp(lock, digest, work, tally)
    maker.progress("tidy", 1, 1)


def _unpack_all(lock: ImageLock, tree: Tree, work: Path, maker: Maker, tally: Tally) -> list[Unpacked]:
    """Unpack in the lock's order, decompressing a few packages ahead: the order, not luck, decides the tree."""
    done: list[Unpacked] = []
    total = len(lock.packages)
    with ThreadPoolExecutor(min(AHEAD, os.cpu_count() or 1)) as pool:
        queue = [pool.submit(_expand, package, work, maker) for package in lock.packages[:AHEAD]]
        try:
            for index, package in enumerate(lock.packages):
                maker.stop_if_asked()
                control, spool = queue.pop(0).result()
                if index + AHEAD < total:
                    queue.append(pool.submit(_expand, lock.packages[index + AHEAD], work, maker))
                with spool:
                    paths = unpack(tree, spool, where=package.file.name, caps=maker.caps, tally=tally)
                done.append(Unpacked(package=package, control=control, paths=tuple(paths)))
                maker.progress("unpack", index + 1, total)
        finally:
            for future in queue:
                if not future.cancel():
                    future.add_done_callback(_discard)
    return done


def _discard(future: Future[tuple[Control, IO[bytes]]]) -> None:
    """Close what was decompressed ahead and is not wanted any more."""
    if future.exception() is None:
        future.result()[1].close()


def _expand(package: Package, work: Path, maker: Maker) -> tuple[Control, IO[bytes]]:
    """A package's control part and its data.tar, decompressed into an unnamed file."""
    path = _verified(package.file, maker)
    deb = Deb(path, max_unpacked=min(MAX_PACKAGE, maker.caps.unpacked_bytes), name=package.file.name)
    control = deb.control()
    spool: IO[bytes] = tempfile.TemporaryFile(dir=work)  # noqa: SIM115 -- the caller closes it
    try:
        deb.expand_data(spool)
    except BaseException:
        spool.close()
        raise
    return control, spool


def _verified(file: PinnedFile, maker: Maker) -> Path:
    path = maker.debs(file)
    try:
        with path.open("rb") as stream:
            maker.stop_if_asked()
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise SourceGone(
            f"the package {file.name} is not here",
            where=str(path),
            hint="run again without --offline, or with --from DIR where DIR has the file",
        ) from None
    if found != file.sha256:
        raise HashMismatch(
            f"the package {file.name} is not the pinned one",
            where=str(path),
            hint="remove the file and run again: it is fetched anew",
            detail=f"pinned {file.sha256}\nfound  {found}",
        )
    return path


def _bootstrap(lock: ImageLock, work: Path, packages: list[Unpacked], maker: Maker) -> None:
    root = work / ROOT
    log = work / "bootstrap.log"
    log.touch()
    if maker.cell_uid is not None:
        give(root, maker.cell_uid)
    maker.progress("configure", 0, 1)
    maker.stop_if_asked()
    code = maker.run_cell(Bootstrap(rootfs=root, script=bootstrap_script(packages), log=log))
    text = log.read_text(encoding="utf-8", errors="replace")
    if code != 0 or not text.rstrip().endswith("bootstrap done"):
        maker.stop_if_asked()
        if _room(work) < FLOOR:
            raise _no_room(lock, str(work))
        raise CardJam(
            f"the base image {lock.name} could not be set up: a package's script failed (exit code {code})",
            where=f"locks/images/{lock.name}.json",
            hint="run: anvil doctor",
            detail="\n".join(text.splitlines()[-LOG_LINES:]),
        )
    maker.progress("configure", 1, 1)


def _write_stamp(lock: ImageLock, digest: Digest, work: Path, tally: Tally) -> None:
    """Write the stamp, last, when everything before it is on the disk."""
    stamp: dict[str, Any] = {
        "name": lock.name,
        "digest": digest,
        "contract": CONTRACT,
        "resolved": lock.resolved,
        "tree": tree_digest(work / ROOT),
        "unpacked_bytes": tally.unpacked_bytes,
        "skipped": tally.skipped,
        "packages": {package.name: package.version for package in lock.packages},
    }
    _sync_file_system(work)
    with (work / STAMP).open("w", encoding="utf-8") as file:
        file.write(json.dumps(stamp, indent=2, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _only_maker(images_dir: Path, digest: Digest, maker: Maker) -> Iterator[None]:
    """Hold the image's lock file; a second maker waits for the first. The kernel frees it when a process dies."""
    images_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(images_dir / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            maker.progress("wait", 0, 1)  # raises when the person has stopped it
            if maker.cancel():
                raise Interrupted("waiting for another maker of the image was stopped")
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(path: Path) -> None:
    """Remove a tree that may hold directories without permissions; links are not followed, nothing else is touched."""

    def unlock(_function: object, name: str, error: tuple[Any, ...]) -> None:
        if isinstance(error[1], FileNotFoundError):
            return
        parent = os.path.dirname(name)
        for folder in (parent, name):
            if stat.S_ISDIR(os.lstat(folder).st_mode):
                os.chmod(folder, 0o700)
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        else:
            os.unlink(name)

    shutil.rmtree(path, onerror=unlock)


def _sync_file_system(folder: Path) -> None:
    """syncfs(2), which Python does not have."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _room(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


def _no_room(lock: ImageLock, where: str) -> DiskFull:
    return DiskFull(
        f"no room is left for the base image {lock.name}",
        where=where,
        hint="free some space (an image needs up to 1 GiB), or choose another home: --home DIR",
    )


def _translated(error: OSError, lock: ImageLock) -> AnvilError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_room(lock, str(error.filename or ""))
    return EnvironmentLack(
        f"the base image {lock.name} cannot be made: {error.strerror}",
        where=str(error.filename or ""),
        hint="run: anvil doctor",
    )
