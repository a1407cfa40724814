"""From wanted packages to a lock: apt's own solver, on indexes that were verified, run in a cell.

Deciding is pure: ``solve_script`` is what the cell runs and ``parse_simulation`` reads what it said. ``resolve``
strings them together; the cell is the caller's ``solver`` (``anvil.image.cells`` has the real one). Packages marked
Essential are always wanted: Debian's packages, their set-up scripts above all, use them without saying so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import IntegrityError, RecipeError, SourceGone
from anvil.model.lock import ImageLock, Package, PinnedFile
from anvil.sources.stanza import field, package_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anvil.image.wanted import Wanted

ARCHITECTURE = "amd64"
TRIES = 5

Pin = tuple[str, str, str]
"""Name, version, architecture."""

Solver = Callable[[str, tuple[Path, ...]], str]
"""(script, folders) to what the script said: run in a cell of the ``lock`` image, folder n seen at /in/index-n."""

# What the solver reads of a stanza; the rest (descriptions, tags) is most of an index.
_SOLVER_FIELDS = (
    "Package", "Version", "Architecture", "Multi-Arch", "Essential", "Priority", "Section", "Pre-Depends", "Depends",
    "Recommends", "Conflicts", "Breaks", "Replaces", "Provides", "Installed-Size", "Filename", "Size", "SHA256",
)  # fmt: skip
_CONFIGURED = re.compile(r"Conf (?P<name>[a-z0-9][a-z0-9+.-]*)(?::\w+)? \((?P<version>\S+) .*\[(?P<arch>\w+)\]\)")


class Universe:
    """Every package that the verified indexes list, written out for the solver below a scratch folder."""

    def __init__(self, scratch: Path, indexes: Iterable[tuple[str, Iterable[Mapping[str, str]]]]) -> None:
        """indexes: the archive of each (as a PinnedFile names it) and its stanzas, field names in lower case."""
        self.files: dict[Pin, PinnedFile] = {}
        self.essential: set[str] = set()
        self.folders: tuple[Path, ...] = ()
        for number, (archive, stanzas) in enumerate(indexes):
            folder = scratch / f"index-{number}"
            folder.mkdir(parents=True)
            with (folder / "Packages").open("w", encoding="utf-8") as file:
                for stanza in stanzas:
                    self._note(archive, stanza)
                    file.write(_written(stanza))
            # Whatever the umask, the cell's user reads them.
            folder.chmod(0o755)
            (folder / "Packages").chmod(0o644)
            self.folders = (*self.folders, folder)

    def has(self, name: str) -> bool:
        """Whether any index lists the package."""
        return any(pin[0] == name for pin in self.files)

    def drop(self, gone: frozenset[Pin]) -> None:
        """Forget packages whose files no mirror has, so that the solver takes other versions."""
        for pin in gone:
            self.files.pop(pin, None)
        for folder in self.folders:
            path = folder / "Packages"
            kept = [text for text in path.read_text(encoding="utf-8").split("\n\n") if _pin_of(text) not in gone]
            path.write_text("\n\n".join(kept), encoding="utf-8")

    def _note(self, archive: str, stanza: Mapping[str, str]) -> None:
        pin = (field(stanza, "Package"), field(stanza, "Version"), field(stanza, "Architecture"))
        self.files.setdefault(pin, package_file(stanza, archive))
        if stanza.get("essential") == "yes":
            self.essential.add(pin[0])


def _written(stanza: Mapping[str, str]) -> str:
    values = ((name, stanza.get(name.lower(), "")) for name in _SOLVER_FIELDS)
    return "".join(f"{name}: {' '.join(value.split())}\n" for name, value in values if value) + "\n"


def _pin_of(text: str) -> Pin:
    """The pin of a stanza that ``_written`` wrote: its first three lines."""
    words = [line.partition(": ")[2] for line in text.strip().splitlines()[:3]]
    return (words[0], words[1], words[2]) if len(words) == 3 else ("", "", "")


def solve_script(packages: Iterable[str], *, indexes: int) -> str:
    """The bash script that prints apt's plan. It finds the indexes at /in/index-N/Packages and writes below /tmp only.

    The repositories are marked trusted because their indexes were verified before they were handed in, by digest from
    a signed InRelease; inside the cell there is no signature left to check.
    """
    lines = [
        "set -euo pipefail",
        "export LC_ALL=C.UTF-8 root=/tmp/apt",
        'mkdir -p "$root"/{etc/none,lists/partial,cache/archives/partial}',
        ': > "$root/status"',
        'cat > "$root/apt.conf" <<END',
        'Dir::Etc "$root/etc"; Dir::Etc::parts "none"; Dir::Etc::sourceparts "none";',
        'Dir::Etc::preferencesparts "none"; Dir::Cache "$root/cache";',
        'Dir::State "$root"; Dir::State::lists "$root/lists"; Dir::State::status "$root/status";',
        f'APT::Architecture "{ARCHITECTURE}"; APT::Architectures {{ "{ARCHITECTURE}"; }};',
        'APT::Install-Recommends "false"; APT::Sandbox::User ""; Acquire::Languages "none";',
        "END",
        'export APT_CONFIG="$root/apt.conf"',
    ]
    lines += [f'echo "deb [trusted=yes] file:/in/index-{n} ./" >> "$root/etc/sources.list"' for n in range(indexes)]
    lines += ["apt-get -qq update >&2", f"exec apt-get -s install {' '.join(sorted(packages))}"]
    return "\n".join(lines) + "\n"


def parse_simulation(text: str) -> tuple[Pin, ...]:
    """The packages of ``apt-get -s install``, in the order in which they are configured."""
    found = filter(None, map(_CONFIGURED.match, text.splitlines()))
    pins = tuple((match["name"], match["version"], match["arch"]) for match in found)
    if not pins or len(set(pins)) != len(pins):
        raise IntegrityError("apt's plan cannot be read", detail=text[-2000:])
    return pins


def resolve(
    wanted: Wanted,
    universe: Universe,
    *,
    solver: Solver,
    today: str,
    answers: Callable[[PinnedFile], bool] = lambda _file: True,
) -> ImageLock:
    """The lock for a wanted list.

    today: YYYY-MM-DD. answers: whether a mirror has the file (an index may list one that is gone; then the solver is
    asked again without it, and the universe has lost it). Raises RecipeError for a package that no index has,
    SourceGone when too much is gone, and what solver raises.
    """
    where = f"wanted/{wanted.name}.json"
    for name in wanted.packages:
        if not universe.has(name):
            raise RecipeError(f"no index has the package {name!r}", where=where)
    for _ in range(TRIES):
        script = solve_script(universe.essential | set(wanted.packages), indexes=len(universe.folders))
        plan = parse_simulation(solver(script, universe.folders))
        packages = tuple(_package(pin, universe) for pin in plan)
        gone = [package for package in packages if not answers(package.file)]
        if not gone:
            return ImageLock(name=wanted.name, resolved=today, architecture=ARCHITECTURE, packages=packages)
        universe.drop(frozenset((each.name, each.version, each.architecture) for each in gone))
    raise SourceGone(
        f"no mirror has all packages of the image {wanted.name}",
        where=where,
        detail="\n".join(each.file.path for each in gone),
        hint="try another mirror, or a snapshot archive",
    )


def _package(pin: Pin, universe: Universe) -> Package:
    if pin not in universe.files:
        raise IntegrityError(f"apt planned {' '.join(pin)}, which no index has")
    return Package(name=pin[0], version=pin[1], architecture=pin[2], file=universe.files[pin])
