"""From wanted packages to a lock: apt's own solver, on indexes that were verified, run in a cell.

Deciding is pure: ``solve_script`` is what the cell runs, ``parse_simulation`` reads what it said, and ``read_index``
says which bytes each package is. ``resolve`` strings them together; who runs the cell is the caller's business.
Packages marked Essential are always wanted: Debian's packages, their set-up scripts above all, use them without
saying so.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack, IntegrityError, RecipeError
from anvil.image.deb import parse_stanza
from anvil.model.lock import ImageLock, Package, PinnedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ARCHITECTURE = "amd64"
WANTED = Path(__file__).parent / "wanted"
_CONFIGURED = re.compile(r"Conf (?P<name>[a-z0-9][a-z0-9+.-]*)(?::\w+)? \((?P<version>\S+) .*\[(?P<arch>\w+)\]\)")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")

Pin = tuple[str, str, str]
"""Name, version, architecture."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an image is for. packages: name to the reason why it is there."""

    name: str
    packages: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Index:
    """A verified, decompressed Packages file. archive: the archive its pool paths are in, as a PinnedFile says it."""

    archive: str
    packages: Path


def wanted_names() -> tuple[str, ...]:
    """The images there are, by name: one for each file in wanted/."""
    return tuple(sorted(path.stem for path in WANTED.glob("*.json")))


def read_wanted(name: str, *, folder: Path = WANTED) -> Wanted:
    """The wanted list of an image. RecipeError when there is none or it is not one."""
    path = folder / f"{name}.json"
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"The wanted list of the image {name!r} cannot be read: {error}", where=str(path)) from error
    packages = data.get("packages") if isinstance(data, dict) else None
    if not isinstance(packages, dict) or not packages:
        raise RecipeError("A wanted list is an object with 'packages', name to reason.", where=str(path))
    for package, reason in packages.items():
        if not _NAME.fullmatch(package) or not isinstance(reason, str) or not reason:
            raise RecipeError(f"{package!r} is not a package's name with a reason.", where=str(path))
    return Wanted(name=name, packages=packages)


def read_index(index: Index) -> Iterator[tuple[Pin, PinnedFile, dict[str, str]]]:
    """Each package of an index: its pin, its file and its fields."""
    for paragraph in index.packages.read_text(encoding="utf-8").split("\n\n"):
        fields = parse_stanza(paragraph)
        if not fields:
            continue
        try:
            pin = (fields["Package"], fields["Version"], fields["Architecture"])
            file = PinnedFile(
                name=fields["Filename"].rpartition("/")[2],
                sha256=fields["SHA256"],
                size=int(fields["Size"]),
                archive=index.archive,
                path=fields["Filename"],
            )
        except (KeyError, ValueError) as error:
            raise IntegrityError(f"An index has a package without {error}.", where=str(index.packages)) from error
        yield pin, file, fields


def without(index: Index, gone: frozenset[Pin], target: Path) -> Index:
    """The index less the packages whose files are gone, written to target, so that the solver takes another version."""
    kept = []
    for paragraph in index.packages.read_text(encoding="utf-8").split("\n\n"):
        fields = parse_stanza(paragraph)
        if fields and (fields["Package"], fields["Version"], fields["Architecture"]) not in gone:
            kept.append(paragraph.strip("\n"))
    target.write_text("\n\n".join(kept) + "\n", encoding="utf-8")
    return Index(archive=index.archive, packages=target)


def solve_script(packages: tuple[str, ...], *, indexes: int) -> str:
    """The bash script that prints apt's plan. It finds the indexes at /in/index-N/Packages and writes below /tmp only.

    The repositories are marked trusted because their indexes were verified before they were handed in, by digest from
    a signed InRelease; inside the cell there is no signature left to check.
    """
    lines = [
        "set -euo pipefail",
        "export LC_ALL=C.UTF-8 root=/tmp/apt",
        'mkdir -p "$root"/{etc,lists/partial,cache/archives/partial}',
        ': > "$root/status"',
        'cat > "$root/apt.conf" <<END',
        'Dir::Etc "$root/etc"; Dir::Etc::parts "none"; Dir::Etc::sourceparts "none"; Dir::Etc::preferencesparts "none";',
        'Dir::State "$root"; Dir::State::lists "$root/lists"; Dir::State::status "$root/status"; Dir::Cache "$root/cache";',
        f'APT::Architecture "{ARCHITECTURE}"; APT::Architectures {{ "{ARCHITECTURE}"; }};',
        'APT::Install-Recommends "false"; APT::Sandbox::User ""; Acquire::Languages "none";',
        "END",
        'export APT_CONFIG="$root/apt.conf"',
    ]
    lines += [f'echo "deb [trusted=yes] file:/in/index-{n} ./" >> "$root/etc/sources.list"' for n in range(indexes)]
    lines += ["apt-get -qq update >&2", f"exec apt-get -s install {' '.join(packages)}"]
    return "\n".join(lines) + "\n"


def parse_simulation(text: str) -> tuple[Pin, ...]:
    """The packages of ``apt-get -s install``, in the order in which they are configured."""
    pins = [(found["name"], found["version"], found["arch"]) for found in map(_CONFIGURED.match, text.splitlines()) if found]
    if not pins or len(set(pins)) != len(pins):
        raise IntegrityError("apt's plan cannot be read.", detail=text[-2000:])
    return tuple(pins)


def resolve(
    wanted: Wanted,
    indexes: tuple[Index, ...],
    *,
    solver: Callable[[tuple[str, ...], tuple[Index, ...]], str],
    today: str,
) -> ImageLock:
    """The lock for a wanted list.

    solver: runs ``solve_script`` of the packages over the indexes in a cell of the ``lock`` image, gives its standard
    output. today: YYYY-MM-DD. Raises RecipeError for a package that no index has, and what solver raises.
    """
    files: dict[Pin, PinnedFile] = {}
    essential: set[str] = set()
    for index in indexes:
        for pin, file, fields in read_index(index):
            files.setdefault(pin, file)
            if fields.get("Essential") == "yes":
                essential.add(pin[0])
    for name in wanted.packages:
        if not any(pin[0] == name for pin in files):
            raise RecipeError(f"No index has the package {name!r}.", where=f"wanted/{wanted.name}.json")
    plan = parse_simulation(solver(tuple(sorted(essential | set(wanted.packages))), indexes))
    missing = [pin for pin in plan if pin not in files]
    if missing:
        raise EnvironmentLack(f"apt planned {missing[0]}, which no index has.", hint="anvil sources update")
    packages = tuple(Package(name=pin[0], version=pin[1], architecture=pin[2], file=files[pin]) for pin in plan)
    return ImageLock(name=wanted.name, resolved=today, architecture=ARCHITECTURE, packages=packages)
