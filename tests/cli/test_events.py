"""What ``anvil forge --json`` writes is what docs/EVENTS.md and docs/events.schema.json say, in real forges."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cli.events import EVENTS, schema
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID
from tests.cli.json_schema import complaints
from tests.mainframe.test_forge import HELLO

if TYPE_CHECKING:
    from tests.conftest import Project

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = DOCS / "events.schema.json"


def test_the_published_schema_is_the_one_of_the_code() -> None:
    text = json.dumps(schema(), indent=1) + "\n"
    if os.environ.get("ANVIL_WRITE_SCHEMA"):
        PUBLISHED.write_text(text, encoding="utf-8")
    assert PUBLISHED.read_text(encoding="utf-8") == text, (
        "run this test with ANVIL_WRITE_SCHEMA=1, and commit the file"
    )


def test_the_page_has_every_message_with_its_fields() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+) \|$", (DOCS / "EVENTS.md").read_text(), re.MULTILINE)
    told = {name: re.findall(r"`(\w+)`(\??)", fields) for _, name, fields in rows}
    assert [(int(number), name) for number, name, _ in rows] == [
        (int(member), member.name)
        for member in sorted(EVENTS)
        if not 500 <= member < 600 or member is MessageID.CARD_JAM
    ]
    for name, fields in told.items():
        expected = EVENTS[MessageID[name]]
        marks = [(each, "?" if str(form).startswith("?") else "") for each, form in expected.items()]
        assert fields == marks, name


def test_the_example_of_the_page_is_valid() -> None:
    text = (DOCS / "EVENTS.md").read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    for line in text.splitlines():
        whole = line.replace("86fd…", "8" * 64).replace("375b…", "3" * 64)
        assert not complaints(schema(), json.loads(whole)), line


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"@ID": 101, "data": {"deck": "", "verdict": "well", "ran": 1, "kept": 0, "ms": 2}}, "none of"),
        ({"@ID": 101, "data": {"deck": "", "verdict": "done", "ran": 1, "kept": 0}}, "ms is missing"),
        ({"@ID": 101, "data": {"deck": "", "verdict": "done", "ran": -1, "kept": 0, "ms": 2}}, "below 0"),
        ({"@ID": 101, "data": {"deck": "", "verdict": "done", "ran": True, "kept": 0, "ms": 2}}, "no integer"),
        ({"@ID": 110, "data": {"card": "a", "op": "run", "key": "k", "log": ""}}, "not like"),
        ({"@ID": 199, "data": {}}, "0 of the forms"),
        ({"@ID": 142, "data": {"text": "a"}, "more": 1}, "too much"),
    ],
)
def test_the_checker_sees_what_is_wrong(line: dict[str, Any], why: str) -> None:
    assert why in "\n".join(complaints(schema(), line))


def stream(text: str) -> list[dict[str, Any]]:
    """The messages of a forge, every one of them valid, but for notes, which may come anywhere."""
    found = []
    for line in text.splitlines():
        message = MicroJSON.decode(line)
        assert not complaints(schema(), message), line
        if message["@ID"] != MessageID.FORGE_NOTE:
            found.append(message)
    return found


def ids(messages: list[dict[str, Any]]) -> list[int]:
    return [message["@ID"] for message in messages if message["@ID"] != MessageID.FORGE_NOTE]  # may come anywhere


@pytest.mark.cell
def test_a_forges_stream_is_valid_and_in_order(project: Project) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 6; musl-gcc", 1))
    messages = stream(project.forge("hello", "--json").stdout)
    seen = ids(messages)
    assert seen[0] == MessageID.FORGE_STARTED
    assert seen[1] == MessageID.PLAN
    assert seen[-1] == MessageID.FORGE_ENDED
    claimed = [message["data"]["card"] for message in messages if message["@ID"] == MessageID.CARD_CLAIMED]
    ended = [message["data"]["card"] for message in messages if message["@ID"] == MessageID.CARD_PUNCHED]
    assert claimed == ended
    assert sorted(claimed) == sorted(messages[1]["data"]["estimates"])
    beats = [message["data"] for message in messages if message["@ID"] == MessageID.FORGE_HEARTBEAT]
    assert any(card["card"] == "hello/build" for beat in beats for card in beat["running"])
    # what took six seconds is expected to, from now on
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 6; musl-gcc -g", 1))
    plan = stream(project.forge("hello", "--json").stdout)[1]["data"]
    assert 5000 < plan["estimates"]["hello/build"]["expected"] < 20_000
    assert plan["estimates"]["hello/artifact:bin/hello"]["low"] == 0
    assert plan["left"]["expected"] >= plan["estimates"]["hello/build"]["expected"]
    # nothing to do
    again = stream(project.forge("hello", "--json").stdout)
    assert ids(again) == [MessageID.FORGE_STARTED, MessageID.ARTIFACT_RELEASED, MessageID.FORGE_ENDED]


@pytest.mark.cell
def test_the_streams_of_a_jam_a_wrong_recipe_a_lack_and_a_stop_are_valid(project: Project) -> None:
    def verdict(*words: str) -> tuple[list[int], str]:
        messages = stream(project.forge("hello", "--json", *words).stdout)
        return ids(messages), messages[-1]["data"]["verdict"]

    project.recipe("hello", HELLO.replace("musl-gcc", "false; musl-gcc"))
    seen, ended = verdict()
    assert (seen[-2], ended) == (MessageID.CARD_JAM, "jammed")
    project.recipe("hello", "import os\n")
    assert verdict() == ([MessageID.FORGE_STARTED, MessageID.RECIPE_ERROR, MessageID.FORGE_ENDED], "failed")
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 7263; musl-gcc"))
    project.environment["ANVIL_BWRAP"] = "/nonexistent/bwrap"
    assert verdict() == ([MessageID.FORGE_STARTED, MessageID.CELL_UNAVAILABLE, MessageID.FORGE_ENDED], "failed")
    del project.environment["ANVIL_BWRAP"]
    forge = project.start("hello", "--json")
    assert forge.stdout is not None
    text = ""
    for line in forge.stdout:
        text += line
        if f'"@ID":{int(MessageID.CARD_CLAIMED)}' in line and "hello/build" in line:
            break
    forge.send_signal(signal.SIGINT)
    rest, _ = forge.communicate(timeout=20)
    messages = stream(text + rest)
    assert messages[-1]["data"]["verdict"] == "stopped"
    assert messages[-2]["@ID"] == MessageID.INTERRUPTED


@pytest.mark.cell
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_reader_that_goes_away_ends_the_forge_and_leaves_nothing(project: Project, words: tuple[str, ...]) -> None:
    project.recipe("hello", HELLO.replace("musl-gcc", "sleep 7264; musl-gcc", 1))
    forge = project.start("hello", *words)
    assert forge.stdout is not None
    assert forge.stderr is not None
    forge.stdout.readline()
    forge.stdout.close()
    assert forge.wait(timeout=100) == 128 + signal.SIGPIPE
    assert "Traceback" not in forge.stderr.read()
    forge.stderr.close()
    project.recipe("hello", HELLO)
    assert project.forge("hello").returncode == 0
    assert list((project.home / "cells").iterdir()) == []
