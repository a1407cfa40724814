"""The standing mainframe with real daemons on real cells: what is wished for is made, whoever is ended on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cell.process import children_of
from anvil.cortex.db_interface import CortexDB
from anvil.mainframe.standing import seat
from anvil.mainframe.standing.records import standing
from tests.mainframe.test_concurrency import gone, processes, read_until, sleeper, slow, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.cell

MADE = '''"""Leaves an artifact."""
from anvil.recipe import Recipe, human_json

r = Recipe("{name}", licence="MIT")
first = r.run("first", None, "echo first > first")
slow = r.run("slow", first, "sleep {seconds} || true; echo slow > slow")
last = r.run("last", slow, "(echo '{{'; echo '  %s: true'; echo '}}') > /out/made.json" % '\\"made\\"')
r.artifact("{name}.json", last.out / "made.json", kind=human_json)
'''


class Mainframe:
    """Daemons of a home, ended with the test."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.started: list[subprocess.Popen[str]] = []

    def start(self, role: str, *words: str) -> subprocess.Popen[str]:
        command = self.project.command("mainframe", role, *words)
        environment = {**os.environ, "ANVIL_HOME": str(self.project.home)}
        daemon = subprocess.Popen(
            command, cwd=self.project.folder, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(daemon)
        read_until(daemon, "at work on")
        if role == "run":
            read_until(daemon, "at work on")
        return daemon

    def forge(self, recipe: str, *words: str, **more: Any) -> subprocess.Popen[str]:
        client = self.project.start(recipe, "--mainframe", *words, **more)
        self.started.append(client)
        return client

    def close(self) -> None:
        for each in self.started:
            if each.poll() is None:
                each.terminate()
        for each in self.started:
            try:
                each.wait(20)
            except subprocess.TimeoutExpired:
                each.kill()
            each.communicate()

    def wishes(self) -> list[str]:
        db = CortexDB(self.project.home / "cortex.db")
        try:
            return [each.deck for each in standing(db)]
        finally:
            db.close()

    def verdicts(self) -> list[str]:
        db = CortexDB(self.project.home / "cortex.db")
        try:
            return [forge.verdict for forge in reversed(db.forges())]
        finally:
            db.close()


@pytest.fixture
def mainframe(project: Project) -> Iterator[Mainframe]:
    """No daemon yet."""
    found = Mainframe(project)
    yield found
    found.close()


def crash(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def let_go_on(seconds: int) -> None:
    os.kill(sleeper(seconds), signal.SIGTERM)


def made(project: Project, name: str) -> bool:
    path = project.output / f"{name}.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == {"made": True}


def test_a_wish_is_made_and_followed_with_the_face_of_any_forge(mainframe: Mainframe, project: Project) -> None:
    project.recipe("quick", MADE.format(name="quick", seconds=0))
    mainframe.start("run")
    said, errors = mainframe.forge("quick").communicate(timeout=120)
    assert errors == ""
    assert "done  quick/last" in said
    assert "4 cards run" in said
    assert made(project, "quick")
    again = project.forge("quick")
    assert "0 cards run" in again.stdout
    lines = project.forge("quick", "--mainframe", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["data"]["verdict"] == "done"


def test_without_a_mainframe_the_answer_is_the_command_that_starts_it(project: Project) -> None:
    done = project.forge("iso", "--mainframe")
    assert done.returncode == 3
    assert "anvil mainframe run" in done.stderr


def test_a_jam_is_told_as_any_forge_tells_it_and_kept_for_anvil_jam(mainframe: Mainframe, project: Project) -> None:
    project.recipe("bad", slow("bad", 0).replace("cat first slow", "cat nothing"))
    mainframe.start("run")
    done = project.forge("bad", "--mainframe")
    assert done.returncode == 1
    assert "JAM  bad/last" in done.stdout
    assert "cat: nothing" in done.stdout
    assert "JAM  bad/last" in project.anvil("jam").stdout
    assert mainframe.verdicts() == ["jammed"]
    assert project.forge("nowhere", "--mainframe").returncode == 1


def test_ctrl_c_stops_the_wish_and_what_was_done_is_kept(mainframe: Mainframe, project: Project) -> None:
    project.recipe("stopped", MADE.format(name="stopped", seconds=7301))
    mainframe.start("run")
    client = mainframe.forge("stopped")
    asleep = sleeper(7301)
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=60)
    assert client.returncode == 130
    assert "everything done so far is kept" in errors
    wait_until(lambda: gone(asleep), "the card is ended")
    assert mainframe.wishes() == []
    assert mainframe.verdicts() == ["interrupted"]
    again = mainframe.forge("stopped")
    let_go_on(7301)
    assert "3 cards run" in again.communicate(timeout=120)[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_client_that_goes_does_not_stop_its_wish(mainframe: Mainframe, project: Project, number: int) -> None:
    project.recipe("alone", MADE.format(name="alone", seconds=7302))
    mainframe.start("run")
    client = mainframe.forge("alone")
    sleeper(7302)
    client.send_signal(number)
    client.wait()
    let_go_on(7302)
    wait_until(lambda: made(project, "alone"), "the artifact is there")
    wait_until(lambda: mainframe.verdicts() == ["done"], "the forge has ended")


def test_a_detached_wish_is_seen_cancelled_and_gone(mainframe: Mainframe, project: Project) -> None:
    project.recipe("apart", MADE.format(name="apart", seconds=7303))
    mainframe.start("run")
    done = project.forge("apart", "--mainframe", "--detach")
    assert (done.returncode, done.stderr) == (0, "")
    asleep = sleeper(7303)
    [deck] = mainframe.wishes()
    status = project.anvil("mainframe", "status", "--json")
    facts = json.loads(status.stdout)
    assert status.returncode == 0
    assert [(row["deck"], row["cards"]["processing"]) for row in facts["wishes"]] == [(deck, 1)]
    assert project.anvil("mainframe", "cancel", "nothing").returncode == 2
    assert project.anvil("mainframe", "cancel", deck).returncode == 0
    assert gone(asleep)
    assert mainframe.wishes() == []


def test_an_architect_that_was_killed_takes_its_wishes_up_again(mainframe: Mainframe, project: Project) -> None:
    project.recipe("kept", MADE.format(name="kept", seconds=7304))
    architect = mainframe.start("architect")
    mainframe.start("processor")
    client = mainframe.forge("kept")
    asleep = sleeper(7304)
    crash(architect)
    _, errors = client.communicate(timeout=60)
    assert client.returncode == 3
    assert "taken up when it is back" in errors
    assert not gone(asleep)
    assert project.forge("kept", "--mainframe").returncode == 3
    assert project.anvil("status").stdout.count("running") == 1
    mainframe.start("architect")
    let_go_on(7304)
    wait_until(lambda: made(project, "kept"), "the artifact is there")
    wait_until(lambda: mainframe.verdicts() == ["done"], "the forge has ended")


def test_a_processor_that_was_killed_leaves_no_process_and_the_next_goes_on(
    mainframe: Mainframe, project: Project
) -> None:
    project.recipe("worked", MADE.format(name="worked", seconds=7305))
    mainframe.start("architect")
    processor = mainframe.start("processor")
    client = mainframe.forge("worked")
    asleep = sleeper(7305)
    crash(processor)
    wait_until(lambda: gone(asleep), "the card died with its processor")
    read_until(client, "no processor works on this home")
    mainframe.start("processor")
    assert sleeper(7305) != asleep
    let_go_on(7305)
    said, _ = client.communicate(timeout=120)
    assert client.returncode == 0
    assert "4 cards run" in said
    assert made(project, "worked")


@pytest.mark.parametrize("role", seat.ROLES)
def test_a_child_of_a_daemon_that_was_killed_is_replaced(
    mainframe: Mainframe, project: Project, role: seat.Role
) -> None:
    project.recipe("child", MADE.format(name="child", seconds=7312))
    daemons = {each: mainframe.start(each) for each in seat.ROLES}
    client = mainframe.forge("child")
    asleep = sleeper(7312)
    [child] = children_of(daemons[role].pid)
    os.kill(child, signal.SIGKILL)
    if role == "architect":  # the desk: the client is told, the deck is worked on
        assert client.wait(60) == 3
        assert not gone(asleep)
    else:  # the foreman: the card begins anew
        wait_until(lambda: gone(asleep), "the card died with its foreman")
        assert sleeper(7312) != asleep
    wait_until(lambda: children_of(daemons[role].pid), "there is another")
    let_go_on(7312)
    wait_until(lambda: made(project, "child"), "the artifact is there")
    wait_until(lambda: mainframe.verdicts() == ["done"], "the forge has ended")


def test_the_third_ctrl_c_waits_no_longer(mainframe: Mainframe, project: Project) -> None:
    project.recipe("hung", MADE.format(name="hung", seconds=7313))
    mainframe.start("processor")
    architect = mainframe.start("architect")
    client = mainframe.forge("hung")
    sleeper(7313)
    [desk] = children_of(architect.pid)
    os.kill(desk, signal.SIGSTOP)
    for _ in range(3):
        assert client.poll() is None
        client.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, errors = client.communicate(timeout=60)
    assert client.returncode == 130
    assert "left; the mainframe was asked to stop it" in errors
    os.kill(desk, signal.SIGCONT)
    wait_until(lambda: mainframe.verdicts() == ["interrupted"], "it stops when it can")


def test_a_processor_that_is_asked_to_end_gives_its_cards_back(mainframe: Mainframe, project: Project) -> None:
    project.recipe("back", MADE.format(name="back", seconds=7306))
    mainframe.start("architect")
    processor = mainframe.start("processor")
    client = mainframe.forge("back")
    asleep = sleeper(7306)
    processor.send_signal(signal.SIGHUP)
    processor.terminate()
    assert processor.wait(30) == 0
    assert gone(asleep)
    status = json.loads(project.anvil("mainframe", "status", "--json").stdout)
    assert status["daemons"]["processor"] is None
    assert status["wishes"][0]["cards"] == {"pending": 3, "processing": 0, "punched": 2, "jammed": 0}
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == 130
    assert mainframe.wishes() == []


def test_hanging_up_harms_no_daemon(mainframe: Mainframe, project: Project) -> None:
    project.recipe("calm", MADE.format(name="calm", seconds=0))
    daemon = mainframe.start("run")
    for role in seat.ROLES:
        os.kill(seat.holder(project.home, role) or 0, signal.SIGHUP)
    daemon.send_signal(signal.SIGHUP)
    assert project.forge("calm", "--mainframe").returncode == 0
    daemon.terminate()
    assert daemon.wait(30) == 0


def test_two_clients_of_one_recipe_make_each_card_once(mainframe: Mainframe, project: Project) -> None:
    project.recipe("shared", MADE.format(name="shared", seconds=7307))
    mainframe.start("run")
    first = mainframe.forge("shared")
    sleeper(7307)
    second = mainframe.forge("shared")
    read_until(second, "wait  shared/slow")
    assert len(processes("sleep 7307 ")) == 1
    let_go_on(7307)
    assert "done  shared/slow" in first.communicate(timeout=120)[0]
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert "kept  shared/slow" in said
    assert "done  shared/slow" not in said


def test_stopping_one_of_two_wishes_does_not_stop_what_the_other_awaits(
    mainframe: Mainframe, project: Project
) -> None:
    project.recipe("both", MADE.format(name="both", seconds=7308))
    mainframe.start("run")
    first = mainframe.forge("both")
    asleep = sleeper(7308)
    second = mainframe.forge("both")
    read_until(second, "wait  both/slow")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert not gone(asleep)
    let_go_on(7308)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert "kept  both/slow" in said


def test_more_wishes_than_decks_wait_their_turn(mainframe: Mainframe, project: Project) -> None:
    mainframe.start("architect")
    mainframe.start("processor", "--decks", "1")
    clients = []
    for name, seconds in (("one", 7309), ("two", 7310)):
        project.recipe(name, MADE.format(name=name, seconds=seconds))
        clients.append(mainframe.forge(name))
        read_until(clients[-1], "the mainframe has it as")
    sleeper(7309)
    assert processes("sleep 7310 ") == []
    let_go_on(7309)
    let_go_on(7310)
    assert [client.wait(120) for client in clients] == [0, 0]


def test_an_output_folder_that_cannot_be_is_refused_before_anything_runs(
    mainframe: Mainframe, project: Project, tmp_path: Path
) -> None:
    project.recipe("nowhere", MADE.format(name="nowhere", seconds=0))
    mainframe.start("run")
    done = project.forge("nowhere", "--mainframe", "--output", "/proc/sys/out")
    assert done.returncode == 3
    assert "may not write into /proc/sys" in done.stderr
    assert mainframe.verdicts() == []
    assert project.forge("nowhere", "--mainframe", "--output", str(tmp_path / "out")).returncode == 0


def test_what_is_wished_for_while_the_architect_ends_is_told_so(mainframe: Mainframe, project: Project) -> None:
    project.recipe("late", MADE.format(name="late", seconds=7311))
    architect = mainframe.start("architect")
    mainframe.start("processor")
    client = mainframe.forge("late")
    sleeper(7311)
    architect.terminate()
    assert architect.wait(30) == 0
    _, errors = client.communicate(timeout=30)
    assert client.returncode == 3
    assert "goes on without it" in errors
    let_go_on(7311)
    mainframe.start("architect")
    wait_until(lambda: made(project, "late"), "the artifact is there")
