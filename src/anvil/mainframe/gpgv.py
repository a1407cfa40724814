"""Checking signatures: ``gpgv``, in a cell of the ``lock`` image, on a text or file that anyone may have made."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cell import run as cell
from anvil.cell.spec import Bind, CellSpec, Limits
from anvil.errors import AnvilError, EnvironmentLack, IntegrityError, Interrupted
from anvil.mainframe.cellwork import require_machine
from anvil.sources.signature import binary_keyring, detached_command, gpgv_command, signers
from anvil.vault.disk import REGULAR, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.cell.spec import Outcome
    from anvil.mainframe.settings import Settings

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Where Debian's package has the keys, on a host and in the ``lock`` image."""

# An InRelease has some hundred kilobytes; gpgv needs seconds only on a machine that is very busy.
_LIMITS = Limits(
    memory_bytes=512 * 1024**2, processes=16, cpu_seconds=60, wall_seconds=120, output_bytes=16 * 1024**2,
    log_bytes=1024**2,
)  # fmt: skip
# A tarball is read to its end, unpacked on the way.
_LARGE = replace(_LIMITS, cpu_seconds=600, wall_seconds=1200)
_STATUS_BYTES = 64 * 1024


@dataclass(kw_only=True)
class Gpgv:
    """Checks InRelease files, and files beside which a signature lies.

    To be handed to ``anvil.sources.debian.Archive`` as its ``verify``.

    rootfs: the tree of the ``lock`` image. folder: a scratch folder in the home. settings: how cells are made here.
    cancel: asked often. note: told whose signature is good.
    """

    rootfs: Path
    folder: Path
    settings: Settings
    cancel: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda _: None
    _count: int = field(default=0, init=False)

    def __call__(self, inrelease: bytes, keyring: bytes) -> bytes:
        """What was signed, as gpgv hands it back.

        Raises IntegrityError when no key of the keyring has made a good signature, Interrupted, CellUnavailable.
        """
        work = self._work()
        with translated("checking a signature", work):
            binds = (_readable(work / "keyring.gpg", keyring), _readable(work / "inrelease", inrelease))
        command = gpgv_command("/in/keyring.gpg", "/in/inrelease", "/out/text")
        keys, _ = self._ask(command, binds, work, "the InRelease file", _LIMITS)
        text = read_text(work / "out" / "text")
        suite = re.search(rb"^Codename: (\S+)$", text, re.MULTILINE)
        name = suite[1].decode("utf-8", "replace") if suite else "a text"
        self.note(f"{name} is signed by {', '.join(key[-16:] for key in keys)}")
        return text

    def detached(self, file: Path, signature: bytes, keys: bytes, unpacker: str = "") -> tuple[str, ...]:
        """The fingerprints of the keys whose good signature over a file this is.

        file: readable for the cell's user, which the caller sees to. keys: public ones, armoured or not. unpacker:
        what unpacks the file first (sources.signature.UNPACKERS). Raises IntegrityError as above, and for a file that
        cannot be unpacked.
        """
        work = self._work()
        with translated("checking a signature", work):
            binds = (
                _readable(work / "keyring.gpg", binary_keyring(keys)),
                _readable(work / "signature", signature),
                Bind(name="file", source=file),
            )
        command = detached_command("/in/keyring.gpg", "/in/signature", "/in/file", unpacker)
        found, outcome = self._ask(command, binds, work, file.name, _LARGE)
        if unpacker and outcome.exit_code != 0:
            raise IntegrityError(f"{file.name} cannot be unpacked, and its signature is over what is in it")
        return found

    def _work(self) -> Path:
        self._count += 1
        work = self.folder / f"gpgv-{self._count}"
        with translated("checking a signature", work):
            work.mkdir()
        return work

    def _ask(
        self, command: tuple[str, ...], binds: tuple[Bind, ...], work: Path, what: str, limits: Limits
    ) -> tuple[tuple[str, ...], Outcome]:
        """Run gpgv; whose keys made good signatures over ``what``, and how it ended."""
        spec = CellSpec(
            rootfs=self.rootfs,
            command=command,
            inputs=binds,
            out=work / "out",
            limits=limits,
            host_uid=self.settings.cell_uid,
            bwrap=self.settings.bwrap,
        )
        # The status lines come on a pipe of their own: what gpgv says to people is not to be taken for one of them.
        outcome, status = cell.exchange(spec, work / "said", cap=_STATUS_BYTES, cancel=self.cancel)
        said = (work / "said").read_text(encoding="utf-8", errors="replace")
        _require_end(outcome, said)
        try:
            return signers(status.decode("utf-8", "replace"), what), outcome
        except IntegrityError as error:
            error.detail = "\n".join(filter(None, (error.detail.rstrip(), said.rstrip())))
            raise


def find_keyring(given: Path | None, rootfs: Path, *, host: Path = KEYRING) -> bytes:
    """The keys to trust: the file that was given, else the host's, else those of the ``lock`` image.

    Raises EnvironmentLack when there is none, or it cannot be read.
    """
    if given is not None:
        with translated("reading the keyring", given):
            return given.read_bytes()
    for path in (host, rootfs / KEYRING.relative_to("/")):
        if path.is_file():
            with translated("reading the keyring", path):
                return path.read_bytes()
    raise EnvironmentLack(
        "there is no keyring of Debian's archive, neither here nor in the image `lock`",
        where=str(host),
        hint="give one: --keyring FILE",
    )


def read_text(path: Path) -> bytes:
    """What a cell left as a plain file. A link or anything else it might have left there instead is refused."""
    try:
        descriptor = os.open(path, REGULAR)
    except OSError as error:
        raise IntegrityError("gpgv handed no signed text back", where=path.name, detail=str(error.strerror)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError("gpgv handed back something that is no file", where=path.name)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(_LIMITS.output_bytes)


def _readable(path: Path, data: bytes) -> Bind:
    """An input of the cell: whatever the umask, its user can read it."""
    path.write_bytes(data)
    path.chmod(0o644)
    return Bind(name=path.name, source=path)


def _require_end(outcome: Outcome, said: str) -> None:
    """Accept that gpgv came to a verdict, whichever; its exit codes are 0, 1 and 2."""
    if outcome.reason == "exit" and outcome.exit_code in (0, 1, 2):
        return
    if outcome.reason == "cancelled":
        raise Interrupted("the checking of a signature was stopped")
    require_machine(outcome, "the check of a signature")
    code = "" if outcome.exit_code is None else f" {outcome.exit_code}"
    raise AnvilError(
        f"gpgv came to no verdict ({outcome.reason}{code})",
        hint="run: anvil doctor",
        detail=said,
    )
