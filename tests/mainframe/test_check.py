"""``anvil forge X --check`` as a person uses it: made twice, compared, and every kind of difference found out."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cell.spec import HOST_UID
from anvil.mainframe import check_second
from anvil.mainframe.check_second import OTHER_HOST, OTHER_UID
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from tests.mainframe.test_concurrency import processes, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.cell

SAME = '''"""Made the same wherever it is made."""
from anvil.recipe import Recipe, archive, elf_static

same = Recipe("same", licence="MIT")
source = same.write("source", None, "it.c", "int main(void) { return 0; }")
build = same.run("build", source, "musl-gcc -static -O2 -o it it.c")
build.check("runs", "./it")
packed = same.run("pack", build, "tar --sort=name --mtime=@0 --owner=0 --group=0 -czf /out/it.tar.gz it", keep="out")
same.artifact("bin/it", build / "it", kind=elf_static)
same.artifact("it.tar.gz", packed.out / "it.tar.gz", kind=archive)
'''

# A line of a script, the file that it makes, and what of the second making gives it away.
WAYS = {
    "time": "date +%s%N > time",
    "chance": "od -N16 -An -tx8 /dev/urandom > chance",
    "inode": "stat -c %i /in/word > inode",
    "file-time": "stat -c %y /in/word > file-time",
    "jobs": "echo $JOBS > jobs",
    "processors": "nproc > processors",
    "address": "sed -n 's/ .*stack.*//p' /proc/self/maps > address",
    "mode": "touch mode; chmod 7$((JOBS % 8))0 mode",
    "target": "ln -s $(od -N8 -An -tx8 /dev/urandom | tr -d ' ') target",
    "name": "mkdir name; touch name/$(od -N8 -An -tx8 /dev/urandom | tr -d ' ')",
}
WAYS_TEXT = '''"""Takes in what it should not."""
from anvil.recipe import Recipe

r = Recipe("ways", licence="MIT")
steady = r.run("steady", None, "echo steady > file", inputs={{"word": r.file("word")}})
'''


def check(project: Project, recipe: str, *words: str) -> tuple[int, list[tuple[MessageID, Any]]]:
    """Run a check; its exit code and all messages."""
    done = project.forge(recipe, "--check", "--json", *words)
    assert "Traceback" not in done.stderr, done.stderr
    messages = [MicroJSON.decode(line.encode()) for line in done.stdout.splitlines()]
    return done.returncode, [(message["@ID"], message["data"]) for message in messages]


def ended(messages: list[tuple[MessageID, Any]]) -> dict[str, Any]:
    [data] = [data for number, data in messages if number == MessageID.CHECK_ENDED]
    assert isinstance(data, dict)
    return data


def differences(messages: list[tuple[MessageID, Any]]) -> list[dict[str, Any]]:
    return [data for number, data in messages if number == MessageID.DIFFERENCE]


def second_home(project: Project, recipe: str) -> Path:
    return project.home / "check" / f"the second making of {recipe}"


def test_what_takes_nothing_from_its_surroundings_is_the_same_in_every_byte(
    project: Project, machine_image: object
) -> None:
    assert machine_image
    project.recipe("same", SAME)
    code, messages = check(project, "same")
    found = ended(messages)
    assert (code, found["same"], differences(messages)) == (0, True, [])
    assert {each["name"] for each in found["artifacts"]} == {"bin/it", "it.tar.gz"}
    assert all(each["sha256"] == each["second"] for each in found["artifacts"])
    assert found["layers"] > 4
    # everything ran twice, nothing of the first was kept for the second
    ran = [data["card"] for number, data in messages if number == MessageID.CARD_PUNCHED]
    assert sorted(ran) == sorted([card for card in set(ran) if not card.startswith("images/")] * 2)
    assert not second_home(project, "same").exists()
    assert (project.output / "bin" / "it").is_file()
    again, messages = check(project, "same")
    assert (again, ended(messages)["same"]) == (0, True)


def test_the_surroundings_are_said_to_differ_and_do(project: Project) -> None:
    project.recipe("same", SAME)
    code, messages = check(project, "same", "--keep", "--jobs", "1")
    found = ended(messages)
    assert code == 0
    told = "\n".join(found["varied"])
    for word in ("jobs: 1, then 2", "umask: 022, then 077", OTHER_HOST, "40 days ahead", "the second making of same"):
        assert word in told
    home = second_home(project, "same")
    assert found["home"] == str(home)
    assert "base images: shared" in "\n".join(found["not_varied"])
    assert (home / "images").is_symlink()
    if os.geteuid() == 0:
        assert f"{HOST_UID}, then {OTHER_UID}" in told
        assert {path.stat().st_uid for path in (home / "vault" / "trees").glob("*/t")} == {OTHER_UID}
        assert {path.stat().st_uid for path in (project.home / "vault" / "trees").glob("*/t")} == {HOST_UID}


def test_whatever_a_card_takes_from_its_surroundings_is_found_out_file_by_file(project: Project) -> None:
    ways = {name: line for name, line in WAYS.items() if name != "processors" or len(os.sched_getaffinity(0)) > 1}
    text = WAYS_TEXT.format() + "".join(
        f'r.run("{name}", steady, {line!r}, inputs={{"word": r.file("word")}})\n' for name, line in ways.items()
    )
    (project.folder / "recipes" / "word").write_text("word")
    project.recipe("ways", text)
    code, messages = check(project, "ways")
    assert code == 1
    found = differences(messages)
    assert {each["card"] for each in found} == {f"ways/{name}" for name in ways}
    assert all(each["cause"] for each in found)
    assert all(each["path"][0].split("/")[0] == each["card"].removeprefix("ways/") for each in found)
    what = {each["card"].removeprefix("ways/"): each["what"] for each in found}
    assert (what["mode"], what["target"]) == ("mode", "target")
    assert {each["what"] for each in found if each["card"] == "ways/name"} == {"only first", "only second"}
    assert {what[name] for name in what if name not in {"mode", "target", "name"}} == {"bytes"}
    assert not ended(messages)["same"]
    # it is kept to be looked at, and the next check begins with an empty home
    home = second_home(project, "ways")
    assert (home / "cortex.db").is_file()
    (home / "left over").touch()
    assert check(project, "ways")[0] == 1
    assert not (home / "left over").exists()


def test_a_difference_is_followed_into_archives_and_told_from_what_it_causes(
    project: Project, machine_image: object
) -> None:
    assert machine_image
    project.recipe(
        "deep",
        """
from anvil.recipe import Recipe, archive
r = Recipe("deep", licence="MIT")
seed = r.run("seed", None, "echo 'same line' > file; date +%N >> file")
packed = r.run("pack", seed, "tar --mtime=@0 -cf it.tar file; gzip -nc it.tar > /out/it.tar.gz; rm it.tar")
text = r.write("text", packed, "it.c", "int main(void) { return 0; }")
build = r.run("build", text, "musl-gcc -static -o it it.c -DX=$(cat file | wc -c); tar --mtime=@0 -cf /out/x.tar it")
r.artifact("x.tar", build.out / "x.tar", kind=archive)
""",
    )
    code, messages = check(project, "deep")
    assert code == 1
    found = differences(messages)
    assert [each["card"] for each in found if each["cause"]] == ["deep/seed"]
    [cause] = [each for each in found if each["cause"]]
    assert cause["path"] == ["file"]
    assert cause["offset"] >= len("same line\n")
    assert cause["lines"][0] != cause["lines"][1]
    assert ["it.tar.gz", "content", "file"] in [each["path"] for each in found if each["card"] == "deep/pack"]
    # the artifact itself is the same: what differed did not reach it
    assert all(each["sha256"] == each["second"] for each in ended(messages)["artifacts"])
    assert not ended(messages)["same"]
    shown = project.forge("deep", "--check").stdout
    assert shown.index("what began it") < shown.index("deep/seed /work") < shown.index("what followed")


STAND_IN = """#!/bin/sh
# What a diffoscope would see of the host, and the exit code for files that differ.
echo "asked for $*"
cmp "$3" "$4"
echo "homes: $(ls /root /home /tmp/home /work 2>&1 | tr '\\n' ' ')"
echo "uid $(id -u), links: $(ls /sys/class/net 2>&1)"
exit 1
"""


def test_diffoscope_is_asked_in_a_cell_where_the_host_has_it(project: Project, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "diffoscope").write_text(STAND_IN)
    (tools / "diffoscope").chmod(0o755)
    project.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    project.recipe(
        "late",
        'from anvil.recipe import Recipe\nr = Recipe("late", licence="MIT")\n'
        'r.export("x", r.run("x", None, "date +%N > /out/it.txt", keep="out").out)\n',
    )
    code, messages = check(project, "late")
    assert code == 1
    [[what, report]] = ended(messages)["diffoscope"]
    assert what == "late/x: it.txt"
    with open(report, encoding="utf-8") as file:
        said = file.read()
    assert "asked for --text - /in/first-it.txt /in/second-it.txt" in said
    assert "/in/first-it.txt /in/second-it.txt differ: " in said
    assert "uid 1000" in said
    assert "No such file or directory" in said.split("homes: ")[1]
    assert str(project.folder) not in said
    (tools / "diffoscope").write_text(STAND_IN.replace("exit 1", "exit 2"))
    assert ended(check(project, "late")[1])["diffoscope"] == []


def test_a_card_that_jams_only_in_the_second_making_is_told(project: Project) -> None:
    project.recipe(
        "once",
        'from anvil.recipe import Recipe\nr = Recipe("once", licence="MIT")\n'
        'r.export("x", r.run("x", None, "[ $JOBS = 2 ] || { echo I see $JOBS jobs; false; }; touch /out/x").out)\n',
    )
    done = project.forge("once", "--check", "--jobs", "2")
    assert done.returncode == 1
    assert "JAM  once/x" in done.stdout
    assert "I see 3 jobs" in done.stdout
    assert "jammed in the second making alone" in done.stdout
    assert f"anvil jam --home '{second_home(project, 'once')}'" in done.stdout
    assert "once/x" in project.anvil("jam", "--home", str(second_home(project, "once"))).stdout


def test_a_first_making_that_jams_has_no_second(project: Project) -> None:
    project.recipe(
        "never",
        'from anvil.recipe import Recipe\nr = Recipe("never", licence="MIT")\nr.run("x", None, "false")\n',
    )
    code, messages = check(project, "never")
    assert (code, ended(messages)["cards"]) == (1, 0)
    assert not second_home(project, "never").exists()


SLOW = '''"""Sleeps in its second making."""
from anvil.recipe import Recipe
r = Recipe("slow", licence="MIT")
first = r.run("first", None, "echo first > first")
slow = r.run("slow", first, "[ $JOBS = 1 ] || sleep 7391 || true; echo slow > slow")
r.export("x", r.run("last", slow, "cat first slow > /out/all").out)
'''


def test_a_stopped_check_goes_on_where_it_was_and_leaves_nothing_running(project: Project) -> None:
    project.recipe("slow", SLOW)
    started = project.start("slow", "--check", "--jobs", "1")
    wait_until(lambda: processes("sleep 7391"), "the second making sleeps")
    refused = project.forge("slow", "--check", "--jobs", "1")
    assert refused.returncode == 3
    assert "another check of slow is running" in refused.stderr
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 130
    assert "run the same command" in errors
    assert not processes("sleep 7391")
    assert (second_home(project, "slow") / "cortex.db").is_file()
    project.recipe("slow", SLOW.replace("sleep 7391", "true"))
    code, messages = check(project, "slow", "--jobs", "1")
    assert (code, ended(messages)["same"]) == (0, True)
    ran = [data["card"] for number, data in messages if number == MessageID.CARD_PUNCHED]
    assert ran.count("slow/first") == 0
    assert not second_home(project, "slow").exists()


def test_a_killed_check_leaves_nothing_running(project: Project) -> None:
    project.recipe("slow", SLOW)
    started = project.start("slow", "--check", "--jobs", "1")
    wait_until(lambda: processes("sleep 7391"), "the second making sleeps")
    started.kill()
    started.communicate()
    wait_until(lambda: not processes("sleep 7391"), "the second making ends with the first")


def test_a_base_image_that_was_changed_is_not_shared(project: Project, tmp_path: Path) -> None:
    project.recipe("same", SAME)
    assert project.forge("same").returncode == 0
    images = (project.home / "images").resolve()
    (project.home / "images").unlink()
    lent = project.home / "images"
    lent.mkdir()
    for image in images.iterdir():
        if not image.is_dir():
            continue
        (lent / image.name).mkdir()
        stamp = json.loads((image / "image.json").read_bytes())
        if stamp["name"] == "build":
            stamp["tree"] = "0" * 64
        (lent / image.name / "image.json").write_text(json.dumps(stamp))
        (lent / image.name / "rootfs").symlink_to(image / "rootfs")
    done = project.forge("same", "--check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the base image build is not what it was when it was made" in done.stderr


def test_keep_without_check_is_refused(project: Project) -> None:
    done = project.forge("same", "--keep")
    assert done.returncode == 2


def test_the_request_carries_every_setting_there_and_back(tmp_path: Path) -> None:
    from anvil.mainframe.settings import Settings
    from anvil.microjson.codec import parse_canonical

    settings = Settings(
        home=tmp_path / "a", output=tmp_path / "b", project=tmp_path, from_dir=tmp_path, mirrors={"debian": "x"},
        forced=frozenset({"a/b"}), narrow=frozenset({"c/d", "e/f"}), bwrap=tmp_path / "bwrap", jobs=7, offline=True,
    )  # fmt: skip
    told = parse_canonical(check_second.request(settings, "it"))
    assert told["recipe"] == "it"
    assert check_second.settings_of(told["settings"]) == settings
    bare = Settings(home=tmp_path, output=tmp_path)
    assert check_second.settings_of(parse_canonical(check_second.request(bare, "it"))["settings"]) == bare
