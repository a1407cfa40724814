"""A forge with nothing to do, known by stats alone: quick where nothing changed, and never where anything did."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anvil.mainframe import noop
from anvil.mainframe.forge import Forge, Quiet
from anvil.mainframe.noop_record import Recorder
from anvil.mainframe.settings import Settings
from tests.apart import apart
from tests.conftest import Project

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.image.build import Image
    from anvil.mainframe.outcome import Outcome

pytestmark = pytest.mark.cell

RECIPE = '''"""A fact."""
from anvil.recipe import Recipe, human_json

r = Recipe("facts", licence="MIT")
more = r.run("more", None, "cp /in/note /out/facts.json", inputs={"note": r.file("facts/note.json")})
r.artifact("bin/facts.json", more.out / "facts.json", kind=human_json)
'''
NOTE = '{\n  "a": 1\n}\n'
JAM = (
    'from anvil.recipe import Recipe\nr = Recipe("jam", licence="MIT")\nr.export("x", r.run("x", None, "false").out)\n'
)
SLOW = JAM.replace("jam", "slow").replace("false", "sleep 600")


class Lab:
    """A project that was forged, whose record is there, and which is changed in one way or another."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.settings = Settings(home=project.home, output=project.output, project=project.folder)

    @property
    def artifact(self) -> Path:
        return self.project.output / "bin" / "facts.json"

    @property
    def record(self) -> Path:
        (path,) = (self.project.home / "noop").iterdir()
        return path

    def recall(self) -> Outcome | None:
        return noop.recall(self.settings, "facts")

    def forge(self, *words: str) -> str:
        done = self.project.forge("facts", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def record_again(self) -> None:
        """Forge until the record is there: not at once when something has just changed."""
        for _ in range(5):
            self.forge()
            if self.recall():
                return
            time.sleep(0.1)
        raise AssertionError("no record is kept")

    def is_noticed(self) -> str:
        """The change is: the answer is not taken from the record, and the forge is right. What it said."""
        assert self.recall() is None
        said = self.forge()
        assert self.artifact.read_text() == NOTE
        return said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, eval_image: Image, build_image: Image) -> Lab:
    assert eval_image.rootfs.parents[1] == build_image.rootfs.parents[1]
    top = tmp_path_factory.mktemp("noop")
    (top / "project" / "recipes" / "facts").mkdir(parents=True)
    (top / "home").mkdir(mode=0o700)
    (top / "home" / "images").symlink_to(build_image.rootfs.parents[1])
    return Lab(Project(folder=top / "project", home=top / "home"))


@pytest.fixture
def lab(made: Lab) -> Lab:
    """Whatever the test before did, all is as in the beginning, and the record is there."""
    shutil.rmtree(made.project.home / "noop", ignore_errors=True)
    shutil.rmtree(made.project.folder / "recipes")
    (made.project.folder / "recipes" / "facts").mkdir(parents=True)
    made.project.recipe("facts", RECIPE)
    (made.project.folder / "recipes" / "facts" / "note.json").write_text(NOTE)
    time.sleep(0.05)  # or the first forge is too close to the change to keep a record
    made.record_again()
    return made


def same_but_for_time(text: str) -> str:
    return re.sub(r'in [0-9.]+ s|"ms":[0-9]+', "", text)


# ---- what is quick


def test_it_says_what_the_forge_says(lab: Lab) -> None:
    for words in ((), ("--json",)):
        lab.record_again()
        quick = lab.forge(*words)
        assert lab.recall()
        lab.record.unlink()
        long = lab.forge(*words)
        assert same_but_for_time(quick) == same_but_for_time(long)
        assert "facts.json" in quick


def test_it_opens_neither_the_cortex_nor_the_engine(lab: Lab) -> None:
    program = (
        "import sys; from anvil.cli.main import main; main(sys.argv[1:]); "
        "print(*sorted(set(sys.modules) & {'apsw', 'orjson', 'rich', 'anvil.mainframe.forge', 'anvil.cortex', "
        "'anvil.vault', 'anvil.cell.run', 'subprocess'}), sep='+')"
    )
    words = ["forge", "facts", "--project", str(lab.project.folder), "--home", str(lab.project.home)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert "0 cards run, 3 kept" in done.stdout
    assert done.stdout.splitlines()[-1] == ""


def test_it_writes_nothing(lab: Lab) -> None:
    def look() -> dict[str, tuple[int, int]]:
        places = [path for path in lab.project.home.rglob("*") if "images" not in path.parts]
        return {str(path): (path.lstat().st_ino, path.lstat().st_ctime_ns) for path in places}

    before = look()
    assert "0 cards run" in lab.forge()
    assert look() == before


def test_the_number_of_jobs_does_not_matter_and_another_output_does(lab: Lab) -> None:
    assert noop.recall(replace(lab.settings, jobs=7), "facts")
    assert noop.recall(replace(lab.settings, output=lab.project.folder / "other"), "facts") is None
    assert noop.recall(replace(lab.settings, profile="seed"), "facts") is None
    assert noop.recall(replace(lab.settings, project=None), "facts") is None
    assert noop.recall(lab.settings, "iso") is None


def test_everything_that_a_forge_reads_is_in_the_record(lab: Lab) -> None:
    lab.record.unlink()
    program = (
        "import sys, os; seen = set()\n"
        "def hook(name, args):\n"
        "    if name in ('open', 'os.scandir', 'os.listdir') and isinstance(args[0], (str, os.PathLike)):\n"
        "        seen.add(os.fspath(args[0]))\n"  # what is opened below a folder's descriptor is below recipes/
        "sys.addaudithook(hook)\n"
        "from anvil.cli.main import main; main(sys.argv[1:]); print(*sorted(seen), sep='\\n')"
    )
    words = ["forge", "facts", "--project", str(lab.project.folder), "--home", str(lab.project.home)]
    for _ in range(5):  # somebody may be at work on the package
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *words], capture_output=True, text=True, check=True
        )
        if list((lab.project.home / "noop").iterdir()):
            break
    seen = {line for line in done.stdout.splitlines() if line.startswith("/")}
    known = json.loads(lab.record.read_text())["seen"]
    recorded = {path.removesuffix("/.") for path in {**known["files"], **known["places"], **known["blobs"]}}
    elsewhere = tuple({sys.prefix, sys.base_prefix, str(lab.project.home), "/proc", "/sys", "/dev"})
    package = str(noop.PACKAGE)
    read = {
        path for path in seen
        if path.startswith(package) or not path.startswith((*elsewhere, *sys.path[1:]))
    }  # fmt: skip
    read = {path for path in read if "__pycache__" not in path and not path.endswith("/noop")}
    temporary = re.compile(r".*/\.facts\.json\.[0-9a-f]{8}|/tmp")
    assert str(lab.project.folder / "recipes" / "facts.py") in read
    assert str(noop.PACKAGE / "sources" / "locks" / "debian.json") in read
    assert not {path for path in read - recorded if not temporary.fullmatch(path)}


# ---- what is noticed: the recipe and what it names


def test_a_remark_in_the_recipe(lab: Lab) -> None:
    lab.project.recipe("facts", RECIPE + "# a remark\n")
    assert "0 cards run" in lab.is_noticed()


def test_another_command(lab: Lab) -> None:
    lab.project.recipe("facts", RECIPE.replace("cp /in", "cp -v /in"))
    assert "run   facts/more" in lab.is_noticed()


def test_a_file_beside_the_recipe(lab: Lab) -> None:
    note = lab.project.folder / "recipes" / "facts" / "note.json"
    times = note.stat()
    note.write_text(NOTE.replace("1", "2"))
    os.utime(note, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a careless or a malicious program leaves it
    assert lab.recall() is None
    assert "run   facts/more" in lab.forge()
    assert '"a": 2' in lab.artifact.read_text()


def test_a_recipe_that_hides_another(lab: Lab) -> None:
    lab.project.recipe("zlib", JAM.replace("jam", "zlib"))
    lab.is_noticed()


def test_a_source_that_the_project_pins(lab: Lab) -> None:
    lock = lab.project.folder / "sources.json"
    with contextlib.ExitStack() as after:
        lock.write_text("{}")
        after.callback(lock.unlink)
        assert lab.recall() is None


def test_a_project_that_is_reached_by_a_link_and_the_link_is_set_elsewhere(lab: Lab, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(lab.project.folder)
    told = replace(lab.settings, project=link)
    time.sleep(0.05)
    assert keep(told)
    assert noop.recall(told, "facts")
    shutil.copytree(lab.project.folder, tmp_path / "copy")
    link.unlink()
    link.symlink_to(tmp_path / "copy")
    assert noop.recall(told, "facts") is None


def keep(told: Settings, between: Callable[[], object] = lambda: None) -> bool:
    """Forge in this process; whether a record was kept. between: called while the forge is under way."""
    recorder = Recorder(told, "facts")
    forge = Forge(told, Quiet(), stopped=lambda: False)
    outcome = forge.run("facts")
    between()
    return recorder.keep(outcome, forge.relied)


# ---- what is noticed: the output


def test_an_artifact_that_is_gone_is_laid_again(lab: Lab) -> None:
    lab.artifact.unlink()
    lab.is_noticed()


@pytest.mark.parametrize("name", ["facts.json", "facts.json.json"])
def test_an_output_that_was_edited_is_laid_again(lab: Lab, name: str) -> None:
    path = lab.artifact.with_name(name)
    text, times = path.read_text(), path.stat()
    path.write_text(text.replace("1", "7"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert lab.recall() is None
    lab.forge()
    if name == "facts.json.json":  # an artifact of the same size and time is trusted by a forge, and always was
        assert path.read_text() == text


def test_an_output_folder_that_a_link_leads_out_of(lab: Lab, tmp_path: Path) -> None:
    bin_folder = lab.artifact.parent
    bin_folder.rename(tmp_path / "elsewhere")
    bin_folder.symlink_to(tmp_path / "elsewhere")
    try:
        assert lab.recall() is None
        assert lab.project.forge("facts").returncode == 3
    finally:
        bin_folder.unlink()
        (tmp_path / "elsewhere").rename(bin_folder)


# ---- what is noticed: the home


def test_garbage_collected(lab: Lab) -> None:
    assert lab.project.anvil("vault", "gc", "--older-than", "0").returncode == 0
    assert "0 cards run" in lab.is_noticed()  # what was released stays
    lab.record_again()
    lab.artifact.unlink()
    lab.artifact.with_name("facts.json.json").unlink()
    assert lab.project.anvil("vault", "gc", "--older-than", "0").returncode == 0
    assert "run   facts/more" in lab.is_noticed()


def blob(lab: Lab) -> Path:
    sha256: str = json.loads(lab.artifact.with_name("facts.json.json").read_text())["sha256"]
    return lab.project.home / "vault" / "blobs" / sha256[:2] / sha256[2:]


@pytest.mark.parametrize("command", [("vault", "verify", "--mend"), ("doctor", "--mend")])
def test_damaged_and_mended(lab: Lab, command: tuple[str, ...]) -> None:
    path = blob(lab)
    path.chmod(0o644)
    path.write_text(NOTE.replace("1", "3"))
    assert lab.recall() is None
    lab.project.anvil(*command)
    assert not path.exists()
    lab.is_noticed()
    lab.artifact.unlink()
    lab.forge()
    assert lab.artifact.read_text() == NOTE


def test_a_blob_that_is_gone(lab: Lab) -> None:
    path = blob(lab)
    path.rename(path.with_suffix(".gone"))
    try:
        assert lab.recall() is None
    finally:
        path.with_suffix(".gone").rename(path)
    assert lab.recall()  # and it is the very blob that has come back


def test_a_collection_s_marks_are_no_change(lab: Lab) -> None:
    path = blob(lab)
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 5_000_000_000))
    assert lab.recall()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert lab.recall() is None


def test_a_jam_since(lab: Lab) -> None:
    lab.project.recipe("jam", JAM)
    lab.record_again()
    assert lab.project.forge("jam").returncode == 1
    assert "0 cards run" in lab.is_noticed()
    assert lab.project.anvil("jam").returncode == 1  # and it is still there to be looked at


def test_another_forge_at_work(lab: Lab) -> None:
    lab.project.recipe("slow", SLOW)
    other = lab.project.start("slow")
    try:
        while not other.stdout or "run   slow/x" not in other.stdout.readline():
            assert other.poll() is None
        assert "0 cards run" in lab.is_noticed()
        lab.record_again()  # it goes on, and changes nothing that this recipe needs
        other.kill()
        other.wait()
        assert lab.recall() is None  # what it left is to be taken up
        assert "0 cards run" in lab.forge()
    finally:
        other.kill()
        other.communicate()
    status = lab.project.anvil("status").stdout
    assert "running" not in status


def test_another_cortex_of_the_same_size_and_time(lab: Lab) -> None:
    path = lab.project.home / "cortex.db"
    times, copy = path.stat(), path.with_suffix(".copy")
    shutil.copyfile(path, copy)
    copy.chmod(0o600)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.replace(path)
    lab.is_noticed()


def test_a_home_that_others_may_read(lab: Lab) -> None:
    lab.project.home.chmod(0o755)
    lab.is_noticed()
    assert lab.project.home.stat().st_mode & 0o777 == 0o700


# ---- what is noticed: who asks, and when


def test_forced_cards_run_and_leave_no_record(lab: Lab) -> None:
    assert "run   facts/more" in lab.forge("--force", "facts/more")
    assert len(list((lab.project.home / "noop").iterdir())) == 1
    assert noop.recall(replace(lab.settings, forced=frozenset({"facts/more"})), "facts") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user(lab: Lab) -> None:
    def as_nobody() -> object:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        return lab.recall()

    assert lab.recall()
    assert apart(as_nobody) is None
    os.chown(lab.record, 65534, 65534)
    assert lab.recall() is None
    os.chown(lab.record, 0, 0)
    assert lab.recall()


HOUR = 3600 * 1_000_000_000


@pytest.mark.parametrize("leap", [-HOUR, -2_000_000_000, 2_000_000_000, HOUR])
def test_a_clock_that_was_set(lab: Lab, leap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + leap)
    assert lab.recall() is None


def test_an_hour_that_has_gone_by(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    now, since = time.time_ns, time.clock_gettime_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + HOUR - 60_000_000_000)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: since(clock) + HOUR - 60_000_000_000)
    assert lab.recall()
    monkeypatch.setattr(time, "time_ns", lambda: now() + HOUR)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: since(clock) + HOUR)
    assert lab.recall() is None


def altered(lab: Lab, change: Callable[[dict[str, Any]], object]) -> Outcome | None:
    """What the record says once it is changed; it is put back."""
    text = lab.record.read_text()
    data = json.loads(text)
    change(data)
    lab.record.write_text(json.dumps(data))
    try:
        return lab.recall()
    finally:
        lab.record.write_text(text)


def test_another_start_of_the_machine_another_anvil_another_python_and_a_full_disk(lab: Lab) -> None:
    assert altered(lab, lambda record: None)
    assert altered(lab, lambda record: record["clock"].update(boot="another")) is None
    assert altered(lab, lambda record: record["told"].update({"own anvil": "0.0.9"})) is None
    assert altered(lab, lambda record: record["told"].update({"own python": "3.10"})) is None
    assert altered(lab, lambda record: record["told"].update({"own uid": "12"})) is None
    assert altered(lab, lambda record: record.update(least_free=10**18)) is None
    assert altered(lab, lambda record: record.update(format=2)) is None
    assert altered(lab, lambda record: record["outcome"].update(artifacts=[["/etc/passwd", "0" * 64, 1]])) is None


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_or_spoilt_record_is_none(lab: Lab, data: st.DataObject) -> None:
    whole = lab.record.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    spoilt = data.draw(st.sampled_from([b"", b"\0" * 100, b"[]", b'{"format":1}', b"[" * 100_000, b"\xff"]))
    lab.record.write_bytes(data.draw(st.sampled_from([whole[:cut], spoilt, whole[:cut] + spoilt])))
    try:
        assert lab.recall() is None
    finally:
        lab.record.write_bytes(whole)


# ---- what is too fresh to be recorded


def test_what_has_just_changed_is_not_recorded(lab: Lab) -> None:
    lab.record.unlink()
    lab.project.recipe("facts", RECIPE + "#\n")
    assert not keep(lab.settings)
    assert not list((lab.project.home / "noop").iterdir())
    assert keep(lab.settings)


def test_what_changes_while_it_is_forged_is_not_recorded(lab: Lab) -> None:
    lab.record.unlink()
    recipe = lab.project.folder / "recipes" / "facts.py"
    assert not keep(lab.settings, lambda: recipe.write_text(RECIPE.replace("a remark", "")))
    lab.record_again()
    lab.record.unlink()
    assert not keep(lab.settings, lambda: lab.artifact.write_text("{}"))
    assert not keep(lab.settings, blob(lab).parent.joinpath("nothing").touch) or lab.recall()
    blob(lab).parent.joinpath("nothing").unlink()


def test_coarse_times_are_waited_for_longer(tmp_path: Path) -> None:
    fine, coarse = tmp_path / "fine", tmp_path / "coarse"
    fine.touch()
    coarse.touch()
    _, moment = noop.looks([str(fine)])
    assert 0 < moment - fine.stat().st_ctime_ns < 100_000_000

    class Coarse:
        st_dev = st_ino = st_mode = st_uid = st_gid = st_size = st_mtime_ns = 0
        st_ctime_ns = 1_700_000_000_000_000_000

    real = noop._stat
    try:
        noop._stat = lambda _path: Coarse()  # type: ignore[assignment, return-value]
        assert noop.looks(["x"])[1] - Coarse.st_ctime_ns > 2_000_000_000
    finally:
        noop._stat = real


# ---- any change of anything


def touch(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def chmod(path: Path) -> None:
    path.chmod(path.stat().st_mode ^ 0o001)


def copy_in_place(path: Path) -> None:
    found, fresh = path.stat(), path.with_name(".fresh")
    shutil.copyfile(path, fresh)
    fresh.chmod(found.st_mode & 0o7777)
    os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))
    fresh.replace(path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def rewrite(path: Path) -> None:
    found, data = path.stat(), path.read_bytes()
    path.write_bytes(bytes(reversed(data)))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path) -> None:
    path.rename(path.with_name(".moved"))
    path.symlink_to(".moved")


def new_entry(path: Path) -> None:
    (path / "zz-new.py").touch()


FILE_CHANGES = (touch, chmod, copy_in_place, append, rewrite, remove, link)
FOLDER_CHANGES = (chmod, new_entry)
SEED = 20_261_124


def test_any_single_change_of_what_was_recorded_is_noticed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a package of our own, whose files may be changed; the record is made over it
    shutil.copytree(noop.PACKAGE, tmp_path / "anvil", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(noop, "PACKAGE", tmp_path / "anvil")
    time.sleep(0.1)
    assert keep(lab.settings)
    seen = json.loads(lab.record.read_text())["seen"]
    own = (str(tmp_path), str(lab.project.folder))
    paths = sorted(path for path in seen["files"] if path.startswith(own) and not path.endswith("/."))
    assert len(paths) > 300
    chance = random.Random(SEED)
    missed = []
    for path in paths:
        if not noop.unchanged(noop.Seen(**seen)):
            raise AssertionError(path)
        here = Path(path)
        change = chance.choice(FOLDER_CHANGES if here.is_dir() else FILE_CHANGES)
        change(here)
        if noop.whole(path) == seen["files"][path] or noop.unchanged(noop.Seen(**seen)):
            missed.append((change.__name__, path))
        # from here on it is as if this had been there from the start
        for each in (*here.parents, here):
            for name in (str(each), f"{each}/."):
                if name in seen["files"]:
                    seen["files"][name] = noop.whole(name)
    assert not missed
    assert lab.recall() is None
    shutil.rmtree(lab.project.output)


def test_any_single_change_of_a_blob_or_a_place_is_noticed(lab: Lab) -> None:
    seen = noop.Seen(**json.loads(lab.record.read_text())["seen"])
    assert len(seen.blobs) > 4
    assert len(seen.places) > 4

    for path in map(Path, seen.blobs):
        data, aside = path.read_bytes(), path.with_name(f"{path.name}.aside")
        path.rename(aside)
        assert lab.recall() is None
        assert noop.unmarked(str(path)) != seen.blobs[str(path)]
        path.write_bytes(data)
        path.chmod(0o444)
        assert noop.unmarked(str(path)) != seen.blobs[str(path)]
        aside.replace(path)
        assert lab.recall(), path
    for path in map(Path, seen.places):
        if path.is_relative_to(lab.project.home / "images"):
            continue  # the user's own
        aside = path.with_name(f"{path.name}.aside")
        path.rename(aside)
        assert lab.recall() is None
        assert noop.place(str(path)) != seen.places[str(path)]
        shutil.copytree(aside, path, symlinks=True)
        assert noop.place(str(path)) != seen.places[str(path)]
        shutil.rmtree(path)
        path.symlink_to(aside)
        assert noop.place(str(path)) != seen.places[str(path)]
        path.unlink()
        aside.rename(path)
        path.chmod(path.stat().st_mode ^ 0o010)
        assert noop.place(str(path)) != seen.places[str(path)]
        path.chmod(path.stat().st_mode ^ 0o010)
        assert noop.place(str(path)) == seen.places[str(path)]
