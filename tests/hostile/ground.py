"""The ground on which attacks are run: one user, two homes (one of them for controls), a project, free folders."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import itertools
import os
import re
import stat
import subprocess
import tempfile
import traceback
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell import kernel, limits
from anvil.cell.spec import HOST_UID, Limits
from anvil.errors import AnvilError, EnvironmentLack
from anvil.mainframe import cellwork
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.forge import Forge, Quiet
from anvil.mainframe.ops import release
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.registry import MessageID
from tests.apart import apart
from tests.cell.cell_lab import Lab
from tests.hostile.attack import PROBE, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tests.hostile.attack import Attack, Wire

ORDINARY = 65534
"""The ordinary user: nobody."""

_PROBE_SOURCE = Path(__file__).parents[1] / "cell" / "probe.c"
_PROBE_RECIPE = f"""from anvil.recipe import Recipe
r = Recipe("{PROBE}", licence="MIT")
made = r.run("make", None, "gcc -x c -O1 -static -o /out/probe /in/source", inputs={{"source": r.file("probe.c")}})
r.export("probe", made.out / "probe")
"""


class Ground:
    """A user's homes and folders.

    uid: this process's. cell_uid: what its cells are on the host. home: where attacks are forged; weak: where controls
    are. place: a folder of the user's in which a wire may put what it likes. note: what a control saw, for who mends
    it.
    """

    def __init__(self, place: Path, images: Path) -> None:
        self.uid = os.geteuid()
        self.root = self.uid == 0
        self.cell_uid = HOST_UID if self.root else self.uid
        self.place = place
        self.project = place / "project"
        self.home = place / "home"
        self.weak = place / "weak"
        self.images = images
        self.note = ""
        self._count = itertools.count(1)
        self._probed: set[Path] = set()
        (self.project / "recipes").mkdir(parents=True)
        for home in (self.home, self.weak):
            self._make_home(home)
        (self.project / "recipes" / "probe.c").write_bytes(_PROBE_SOURCE.read_bytes())
        self._write(PROBE, _PROBE_RECIPE)

    def folder(self) -> Path:
        """A fresh folder of the user's."""
        path = self.place / f"free-{next(self._count)}"
        path.mkdir()
        return path

    def fresh_home(self) -> Path:
        """Another home, for what may harm it."""
        home = self.folder() / "home"
        self._make_home(home)
        return home

    def _make_home(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        (home / "images").symlink_to(self.images)

    def settings(self, home: Path, *, forced: frozenset[str] = frozenset(), **more: Any) -> Settings:
        """What a forge in one of the homes is told."""
        output = self.place / f"output-{home.name}"
        return Settings(home=home, output=output, project=self.project, offline=True, forced=forced, **more)

    def write(self, attack: Attack, wire: Wire) -> None:
        """Put an attack's recipes and files into the project, marks replaced. Each time they are new to Anvil."""
        marks = {"SALT": f"salt{os.getpid()}x{next(self._count)}", **wire.marks}
        for name, text in attack.recipes().items():
            self._write(name, replaced(text, marks) + f"\n# {marks['SALT']}\n")
        for name, content in attack.files.items():
            path = self.project / "recipes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(replaced(content, marks).encode() if isinstance(content, str) else content)

    def _write(self, name: str, text: str) -> None:
        (self.project / "recipes" / f"{name}.py").write_text(text, encoding="utf-8")

    def forge(
        self,
        attack: Attack,
        wire: Wire,
        *,
        home: Path | None = None,
        weaken: Iterable[Callable[[], None]] = (),
        name: str = "",
        **settings: Any,
    ) -> Seen:
        """Forge an attack's recipe (or another one of its, by ``name``) in a process of its own.

        All of its cards run, whatever is kept. weaken: called first in that process, to take layers away.
        """
        self.write(attack, wire)
        where = home or self.home
        if attack.probe and where not in self._probed:
            self._probed.add(where)
            apart(lambda: self._forge(PROBE, where, set(), {}))

        def task() -> Seen:
            _lower(attack.limits)
            for function in weaken:
                function()
            return self._forge(name or attack.name, where, set(attack.recipes()), settings)

        seen = apart(task)
        assert isinstance(seen, Seen)
        return seen

    def _forge(self, name: str, home: Path, own: set[str], settings: dict[str, Any]) -> Seen:
        logs: list[Path] = []

        class Listener(Quiet):
            def event(self, number: MessageID, data: dict[str, Any]) -> None:
                if number == MessageID.CARD_CLAIMED:
                    logs.append(Path(data["log"]))

        def log() -> str:
            said = (path.read_bytes() for path in logs if path.is_file())
            return b"\n".join(said).decode("utf-8", "backslashreplace")

        try:
            with Services(self.settings(home)) as services:
                nodes = Architect(services).draw(name).nodes.values()
                forced = frozenset(node.id for node in nodes if node.recipe in own and node.op != "release")
            outcome = Forge(self.settings(home, forced=forced, **settings), Listener(), stopped=lambda: False).run(
                name
            )
        except EnvironmentLack as error:
            return Seen(kind="lack", message=_sentence(error), log=log())
        except AnvilError as error:
            return Seen(kind="refused", message=_sentence(error), log=log())
        except Exception:  # noqa: BLE001 -- a bug of Anvil's is a verdict too
            return Seen(kind="crashed", message=traceback.format_exc(), log=log())
        facts = {"artifacts": {artifact.path.name: str(artifact.path) for artifact in outcome.artifacts}}
        if outcome.jams:
            jam = outcome.jams[0]
            return Seen(kind="jammed", message=f"{jam.message} {jam.detail}".strip(), log=log(), facts=facts)
        return Seen(kind="contained", log=log(), facts=facts)

    def outside(
        self, script: str, marks: Mapping[str, str], *, as_root: bool = False, shell: str = "ulimit -c 0"
    ) -> str:
        """What a script says that is run on the host, in folders of its own in the place of the cell's.

        It runs as the cell's uid unless ``as_root``, in a mount namespace of its own where this user may have one.
        shell: what bash does first; a bound on what could harm.
        """
        folder = self.folder()
        for name in ("out", "work", "tmp", "in"):
            (folder / name).mkdir()
            os.chmod(folder / name, 0o777)
        text = re.sub(r"(?<![\w./-])/(out|work|in|tmp)\b", rf"{folder}/\1", replaced(script, marks))
        with self.reachable(folder), tempfile.TemporaryFile() as said:
            user = None if as_root or not self.root else self.cell_uid
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{shell}\n{text}"], cwd=folder / "work",
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, user=user, group=user, check=False, timeout=120,
                extra_groups=None if user is None else [], start_new_session=True,
                env={"PATH": os.environ["PATH"], "TMPDIR": str(folder / "tmp")},
            )  # fmt: skip
            said.seek(0)
            return said.read().decode("utf-8", "backslashreplace") + f"\n(exit code {done.returncode})"

    @contextlib.contextmanager
    def reachable(self, folder: Path) -> Iterator[None]:
        """Let another uid through to a folder below closed ones of this user's, for as long as the block lasts."""
        closed = [top for top in folder.parents if top.stat().st_uid == self.uid and not _open(top)]
        modes = {top: stat.S_IMODE(top.stat().st_mode) for top in closed}
        for top in closed:
            os.chmod(top, modes[top] | stat.S_IXOTH)
        try:
            yield
        finally:
            for top in closed:
                os.chmod(top, modes[top])

    @cached_property
    def lab(self) -> Lab:
        """A laboratory of cells without the mainframe around them, for controls."""
        with Services(self.settings(self.home)) as services:
            return Lab(services.rootfs(services.image_locks["build"][0]), self.uid, home=self.folder())


def replaced(text: str, marks: Mapping[str, str]) -> str:
    """A text with its marks replaced."""
    for key, value in marks.items():
        text = text.replace(f"@{key}@", value)
    return text


def become(uid: int, needed: Iterable[str]) -> None:
    """Become an ordinary user who can reach the paths ``needed``, in a mount namespace of this process's own.

    Where a folder above one of them is closed to that user it is covered, there alone, by one that shows nothing else.
    """
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    hidden: dict[str, list[tuple[str, int]]] = {}
    for path in dict.fromkeys(os.path.realpath(path) for path in needed):
        if closed := next((str(top) for top in reversed(Path(path).parents) if not _open(top)), None):
            hidden.setdefault(closed, []).append((path, os.open(path, os.O_PATH)))
    for closed, paths in hidden.items():
        kernel.mount("anvil-test", closed, "tmpfs", kernel.MS_NOSUID, "size=256k,mode=0755")
        for path, fd in paths:
            os.makedirs(path, exist_ok=True)
            kernel.mount(f"/proc/self/fd/{fd}", path, flags=kernel.MS_BIND | kernel.MS_REC)
            os.close(fd)
    codecs.lookup("ascii")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as after an exec, /proc/self is ours
    limits.survey.cache_clear()


def _open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _lower(lower: Mapping[str, float]) -> None:
    """Lower limits of a card that a recipe cannot name."""
    if lower:
        for module in (cellwork, release):
            vars(module)["OUTPUT_BYTES"] = int(lower.get("output_bytes", cellwork.OUTPUT_BYTES))
        vars(cellwork)["Limits"] = lambda **given: Limits(**{**given, **lower})


def _sentence(error: AnvilError) -> str:
    return " ".join(part for part in (error.message, error.where, error.detail) if part)
