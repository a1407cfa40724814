"""A file that nobody has pinned yet: brought in from its address, hashed, and its signature looked for beside it.

What comes here is not to be trusted: who asks decides what to make of its sha256, and of a signature over it.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from anvil.errors import IntegrityError, NetworkLack, SourceGone, UsageError
from anvil.sources.lockfile import is_file_name, is_pool_path, is_web_address
from anvil.sources.mirrors import Mirrors, below_mirror
from anvil.sources.part import UNKNOWN_SIZE_CAP, translate
from anvil.sources.signature import UNPACKERS, is_signature
from anvil.sources.transfer import Patience
from anvil.sources.web import Line, NotThere, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ENDINGS = (".asc", ".sig", ".sign")
"""What the name of a signature beside a file ends with: GNU's, OpenZFS's and the kernel's ways."""

_MAX_SIGNATURE = 256 * 1024
_PACKED = r"\.(?:tar\.[a-z0-9]+|tgz|tbz2?|txz|tar|zip)"
_NAMED = re.compile(rf"(?P<name>.+?)[-_]v?(?P<version>\d[A-Za-z0-9.+~_-]*?){_PACKED}")


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A file that came. address: from where. private: over TLS all the way, or from this machine."""

    path: Path
    sha256: str
    size: int
    address: str
    private: bool


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A signature that lies beside a file. unpacker: what unpacks that file first ("" when it is signed as it is)."""

    address: str
    data: bytes
    unpacker: str = ""


@dataclass(frozen=True, kw_only=True)
class Address:
    """An upstream address, checked. name: of the file. guess: the source's name and version, "" where it says none."""

    url: str
    name: str
    guess: tuple[str, str]

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises UsageError for what is no http, https or file address of a file."""
        parts = urlsplit(url)
        local = parts.scheme == "file" and parts.netloc in ("", "localhost") and url.isprintable()
        name = unquote(parts.path.rpartition("/")[2])
        if not (local or is_web_address(url)) or parts.fragment or not is_file_name(name):
            raise UsageError(
                f"{url!r} is not the address of a file",
                hint="it is http://…, https://… or file:///…, ends with a plain file name, and has no user name",
            )
        found = _NAMED.fullmatch(name)
        plain = re.sub(r"[^a-z0-9+.-]", "-", found["name"].lower()) if found else ""
        return cls(url=url, name=name, guess=(plain, found["version"]) if found else ("", ""))

    @property
    def local(self) -> bool:
        """Whether it is a file of this machine."""
        return self.url.startswith("file:")

    def signatures(self) -> list[tuple[Address, str]]:
        """Where its signature may be, beside it or beside what it was packed from; with what unpacks it then."""
        parts = urlsplit(self.url)
        unpacked = next(((parts.path.removesuffix(end), by) for end, by in UNPACKERS.items()
                         if parts.path.endswith(".tar" + end)), None)  # fmt: skip
        found = [(parts.path + ending, "") for ending in ENDINGS]
        if unpacked:
            found += [(unpacked[0] + ending, unpacked[1]) for ending in ENDINGS]
        return [(Address.of(urlunsplit(parts._replace(path=path))), by) for path, by in found]


@dataclass(kw_only=True)
class Upstream:
    """Brings files in that have no pin.

    mirrors, offline, from_dir: as the fetcher has them. report: told the name, the bytes so far and of how many (0:
    not known). An interrupt is to be raised in the thread that calls, which waits for the network itself.
    """

    mirrors: Mirrors
    offline: bool = False
    from_dir: Path | None = None
    report: Callable[[str, int, int], None] = lambda _name, _done, _of: None
    patience: Patience = field(default_factory=Patience)

    def bring(self, wanted: Address, target: Path, *, limit: int = UNKNOWN_SIZE_CAP) -> Arrived:
        """Bring a file in, from the first place that has it.

        Raises SourceGone, NetworkLack, IntegrityError for more than ``limit`` bytes, DiskFull, EnvironmentLack.
        """
        silent: dict[str, str] = {}
        places = self._places(wanted)
        for address in places:
            for attempt in range(self.patience.attempts):
                if attempt:
                    time.sleep(self.patience.pause_seconds * 2 ** (attempt - 1))
                try:
                    return self._receive(wanted.name, address, target, limit)
                except NotThere:
                    silent.pop(address, None)
                    break
                except Unavailable as error:
                    silent[address] = str(error)
                    if not error.again:
                        break
        raise self._nowhere(wanted, places, silent)

    def signature(self, wanted: Address, target: Path) -> Signature | None:
        """The signature beside a file, if there is one. A place that does not answer counts for one that has none."""
        for place, unpacker in wanted.signatures():
            try:
                arrived = self.bring(place, target, limit=_MAX_SIGNATURE)
            except (SourceGone, NetworkLack, IntegrityError):
                continue
            data = arrived.path.read_bytes()
            if is_signature(data):
                return Signature(address=arrived.address, data=data, unpacker=unpacker)
        return None

    def _places(self, wanted: Address) -> Sequence[str]:
        """Every address to ask, the best first."""
        found = []
        if self.from_dir is not None:
            names = (wanted.name,) if wanted.local else (below_mirror(wanted.url), wanted.name)
            paths = (self.from_dir / name for name in names if is_pool_path(name))
            found = [path.resolve().as_uri() for path in paths if path.is_file()]
        if wanted.local:
            return (*found, wanted.url)
        return found if self.offline else (*found, *self.mirrors.upstream(wanted.url))

    def _receive(self, name: str, address: str, target: Path, limit: int) -> Arrived:
        line = Line(silence_seconds=self.patience.silence_seconds)
        digest, done = hashlib.sha256(), 0
        with line.open(address) as answer:
            try:
                with target.open("wb") as file:
                    for chunk in answer.chunks():
                        digest.update(chunk)
                        done += len(chunk)
                        if done > limit:
                            raise IntegrityError(f"{name} is larger than {limit} bytes", where=address)
                        file.write(chunk)
                        self.report(name, done, answer.length or 0)
            except OSError as error:
                raise translate(error, target) from error
        private = all(hop.startswith(("https:", "file:")) for hop in line.hops)
        return Arrived(path=target, sha256=digest.hexdigest(), size=done, address=address, private=private)

    def _nowhere(self, wanted: Address, places: Sequence[str], silent: dict[str, str]) -> Exception:
        detail = "\n".join([*(f"{a}: {why}" for a, why in silent.items()),
                            *(f"{a}: not there" for a in places if a not in silent)])  # fmt: skip
        if silent:
            address, reason = next(iter(silent.items()))
            return NetworkLack(
                f"nothing answers for {wanted.name}: {reason}",
                where=address,
                hint="check the address, the network and its proxy (https_proxy); or give a folder: --from DIR",
                detail=detail,
            )
        if self.offline and not places:
            return NetworkLack(
                f"{wanted.name} is not here, and --offline was asked for",
                where=str(self.from_dir or wanted.url),
                hint="run it without --offline, or give a folder that has it: --from DIR",
            )
        return SourceGone(f"{wanted.name} is not there", where=wanted.url, hint="check the address", detail=detail)
