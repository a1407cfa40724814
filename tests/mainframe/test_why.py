"""``anvil why``, ``plan``, ``diff`` and ``forges`` on real forges: what is named, what is not on record, and when."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.cell

RECIPE = '''"""Facts, and an archive of them."""
from anvil.recipe import Recipe, archive, human_json

facts = Recipe("facts", licence="MIT")
options = facts.run("options", None, "sed 's/#.*//' /in/options > options", inputs={"options": facts.file("options")})
made = facts.run("made", options, """
printf '{\\\\n  "options": "%s"\\\\n}\\\\n' "$(sha256sum options | cut -c -64)" > /out/facts.json
""", keep="out")
made.check("good", "grep -q options /in/out/facts.json")
given = {"config": facts.file("dot-config")}
config = facts.run("config", None, "cp /in/config /out/config", inputs=given, keep="out")
facts.export("config", config.out / "config")
facts.artifact("facts.json", made.out / "facts.json", kind=human_json)
'''
TAR = """pack = facts.run("pack", None, "cp /in/f facts.json; tar --mtime=@0 -cf /out/facts.tar facts.json",
    inputs={"f": made.out / "facts.json"}, keep="out")
facts.artifact("facts.tar", pack.out / "facts.tar", kind=archive)
"""
CONFIG = "#\n# Automatically generated file; DO NOT EDIT.\n#\nCONFIG_A=y\n# CONFIG_B is not set\n"


@pytest.fixture
def facts(project: Project) -> Project:
    """A project that has been forged once."""
    project.recipe("facts", RECIPE)
    (project.folder / "ROADMAP.md").touch()
    (project.folder / "recipes" / "options").write_text("ONE=1\n")
    (project.folder / "recipes" / "dot-config").write_text(CONFIG)
    done(project)
    return project


def done(project: Project, *words: str) -> None:
    ended = project.anvil("forge", "facts", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def edit(project: Project, name: str, old: str, new: str) -> None:
    path = project.folder / "recipes" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def why(project: Project, card: str, *words: str) -> dict[str, Any]:
    """The answer of ``anvil why CARD``."""
    said = project.anvil("why", card, "--json", *words)
    assert said.returncode == 0, said.stdout + said.stderr
    [answer] = json.loads(said.stdout)["cards"]
    return dict(answer)


def test_what_never_ran_and_what_ran_for_the_first_time(project: Project) -> None:
    project.recipe("facts", RECIPE)
    (project.folder / "ROADMAP.md").touch()
    (project.folder / "recipes" / "options").write_text("ONE=1\n")
    (project.folder / "recipes" / "dot-config").write_text(CONFIG)
    answer = why(project, "facts/options")
    assert (answer["fate"], answer["reason"]) == ("run", "never ran")
    assert why(project, "facts/made")["fate"] == "may run"
    done(project)
    answer = why(project, "facts/options")
    assert (answer["fate"], answer["reason"]) == ("ran", "never ran")


def test_a_changed_file_is_named_before_and_after_and_led_to_from_below(facts: Project) -> None:
    edit(facts, "options", "ONE=1", "ONE=2")
    for fate in ("run", "ran"):
        answer = why(facts, "facts/options")
        assert (answer["fate"], answer["reason"]) == (fate, "changed")
        [change] = answer["changes"]
        assert (change["what"], change["name"], change["lines"]) == ("file", "options", ["-ONE=1", "+ONE=2"])
        led = [(root["cards"], root["change"]["name"]) for root in why(facts, "facts/good")["roots"]]
        assert led == [(["facts/good", "facts/made", "facts/options"], "options")]
        if fate == "run":
            done(facts)


def test_nothing_is_named_when_nothing_changed(facts: Project) -> None:
    edit(facts, "facts.py", "options = facts.run", "# a remark\noptions = facts.run")
    listed = json.loads(facts.anvil("why", "--json").stdout)["cards"]
    assert {answer["fate"] for answer in listed} == {"ran"}  # those of the last forge: nothing would run
    assert {answer["reason"] for answer in listed} == {"never ran"}


def test_a_forced_card_is_told_as_that(facts: Project) -> None:
    assert why(facts, "facts/made", "--force", "facts/made")["reason"] == "forced"
    done(facts, "--force", "facts/made")
    answer = why(facts, "facts/made")
    assert (answer["fate"], answer["reason"]) == ("ran", "forced")


def test_a_collected_result_is_told_as_that_with_the_day(facts: Project) -> None:
    with Services(Settings(home=facts.home, output=facts.output)) as services:
        [key] = [stored.key for stored in services.db.all_results() if stored.card == "facts/made"]
        services.db.forget_result(key)
    for fate in ("run", "ran"):
        answer = why(facts, "facts/made")
        assert (answer["fate"], answer["reason"]) == (fate, "its result is gone")
        assert answer["note"].startswith("forgotten 20")
        if fate == "run":
            done(facts)


def test_a_jam_is_told_and_so_is_what_changed_since_the_last_result(facts: Project) -> None:
    edit(facts, "facts.py", "grep -q options", "false; grep -q options")
    assert facts.anvil("forge", "facts").returncode == 1
    answer = why(facts, "facts/good")
    assert (answer["fate"], answer["reason"]) == ("run", "jammed")
    assert "exit code 1" in answer["note"]
    edit(facts, "facts.py", "false; grep", "true; grep")
    answer = why(facts, "facts/good")
    [change] = answer["changes"]
    assert (answer["reason"], change["what"]) == ("changed", "script")
    assert "+true; grep -q options /in/out/facts.json" in change["lines"]


def test_other_bytes_from_the_same_inputs_are_not_taken_for_a_change_of_these(facts: Project) -> None:
    edit(facts, "facts.py", "sed 's", "cat /proc/sys/kernel/random/uuid > drawn; sed 's")
    done(facts)
    done(facts, "--force", "facts/options")
    answer = why(facts, "facts/made")
    assert answer["reason"] == "changed"
    [root] = answer["roots"]
    assert (root["cards"], root["reason"], root["change"]) == (["facts/made", "facts/options"], "forced", None)


def test_a_record_that_was_changed_is_not_believed(facts: Project) -> None:
    """The control: what is on record counts only because its hash is its key."""
    edit(facts, "options", "ONE=1", "ONE=2")
    assert why(facts, "facts/options")["reason"] == "changed"
    plain = sqlite3.connect(facts.home / "cortex.db")
    with plain:
        plain.execute("UPDATE identities SET body = replace(body, 'sed', 'fed') WHERE card = 'facts/options'")
    plain.close()
    assert why(facts, "facts/options")["reason"] == "what it was given is not on record"


def test_a_card_that_there_is_not_is_refused_with_those_that_are_near(facts: Project) -> None:
    said = facts.anvil("why", "facts/mode")
    assert said.returncode == 2
    assert "did you mean: facts/made" in said.stderr


def test_the_words_of_why_fit_forty_columns(facts: Project) -> None:
    edit(facts, "options", "ONE=1", "ONE=2")
    facts.environment["COLUMNS"] = "40"
    for words in (["why"], ["why", "facts/good"], ["plan", "facts"], ["plan", "facts", "--all"]):
        said = facts.anvil(*words)
        assert said.returncode == 0, said.stderr
        assert max(map(len, said.stdout.splitlines())) <= 40
        assert "\033" not in said.stdout
    assert "what began it:" in facts.anvil("why", "facts/good").stdout


def test_the_plan_shows_where_it_may_stop_and_hides_what_is_kept(facts: Project) -> None:
    edit(facts, "options", "ONE=1", "ONE=1# a remark")
    said = facts.anvil("plan", "facts").stdout
    assert "stops here if facts/options gives the same bytes" in said
    assert "stops here if facts/made gives the same facts.json" in said
    assert " config" not in said
    assert " config" in facts.anvil("plan", "facts", "--all").stdout
    plan = json.loads(facts.anvil("plan", "facts", "--json").stdout)
    rows = {row["card"]: row for row in plan["cards"]}
    assert rows["facts/made"]["unless"] == [["facts/options", ""]]
    assert rows["facts/options"]["from"] == "card"
    assert rows["facts/options"]["low"] <= rows["facts/options"]["seconds"] <= rows["facts/options"]["high"]
    assert plan["wall"]["low"] <= plan["wall"]["expected"] <= plan["wall"]["high"]
    done(facts)  # and so it does: a remark makes the same bytes
    forges = json.loads(facts.anvil("forges", "--json").stdout)
    assert (forges[-1]["number"], forges[-1]["ran"]) == (2, 2)  # its card, and the gate, which was told another text


def test_two_forges_are_compared_down_to_the_files_in_their_archives(facts: Project, machine_image: object) -> None:
    assert machine_image
    edit(facts, "facts.py", "facts.artifact(", f"{TAR}facts.artifact(")
    done(facts)
    edit(facts, "options", "ONE=1", "ONE=2")
    edit(facts, "dot-config", "# CONFIG_B is not set", "CONFIG_B=y")
    done(facts)
    said = facts.anvil("diff", "last~1", "last", "--json")
    assert said.returncode == 1, said.stderr
    found = json.loads(said.stdout)
    assert {(each["card"], each["what"], each["name"]) for each in found["inputs"]} == {
        ("facts/options", "file", "options"),
        ("facts/config", "file", "dot-config"),
    }
    states = {row["card"]: row["states"] for row in found["cards"]}
    assert states["facts/options"] == ["kept", "ran"]
    assert states["facts/pack"] == ["ran", "ran"]
    assert found["options"] == [{"file": "facts/config/config", "name": "CONFIG_B", "a": "n", "b": "y"}]
    inside = {tuple(each["path"]): each for each in found["files"]}
    assert inside[("facts.tar", "facts.json")]["what"] == "bytes"
    assert "options" in inside[("facts.json",)]["lines"][0]  # told once, where it is met first
    assert facts.anvil("diff", "last", "last").returncode == 0
    words = facts.anvil("diff", "2", "3").stdout
    assert "CONFIG_B: n -> y" in words
    assert "facts.tar : facts.json" in words


def test_two_artifacts_are_compared_by_file_and_by_digest(facts: Project, tmp_path: Path) -> None:
    for name in ("facts.json", "facts.json.json"):
        (tmp_path / name).write_bytes((facts.output / name).read_bytes())
    edit(facts, "options", "ONE=1", "ONE=2")
    done(facts)
    sidecar = json.loads((facts.output / "facts.json.json").read_text())
    for second in (str(facts.output / "facts.json"), sidecar["sha256"]):
        found = json.loads(facts.anvil("diff", str(tmp_path / "facts.json"), second, "--json").stdout)
        assert [(each["card"], each["name"]) for each in found["inputs"]] == [("facts/options", "options")]
        assert [each["what"] for each in found["files"]] == ["bytes"]
    (tmp_path / "facts.json").write_bytes(b"{}\n")
    said = facts.anvil("diff", str(tmp_path / "facts.json"), "last")
    assert (said.returncode, "is not what its sidecar says" in said.stderr) == (1, True)
    (tmp_path / "facts.json.json").unlink()
    said = facts.anvil("diff", str(tmp_path / "facts.json"), "last")
    assert said.returncode == 2
    assert "has no sidecar" in said.stderr


def test_forges_are_listed_with_what_ran_and_one_without_a_record_is_told(facts: Project) -> None:
    said = facts.anvil("forges").stdout
    assert " 1  " in said
    assert "5 ran, 1 kept" in said
    plain = sqlite3.connect(facts.home / "cortex.db")
    with plain:
        plain.execute("DELETE FROM past_cards")
    plain.close()
    refused = facts.anvil("diff", "1", "last")
    assert refused.returncode == 2
    assert "not on record" in refused.stderr
