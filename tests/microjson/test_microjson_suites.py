"""Public suites: the JSON parsing suite and the vectors of RFC 8785 (fetched by scripts/fetch_test_suites.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rfc8785

from anvil.microjson import MicroJSON, MicroJSONError, canonical, parse_canonical

from .microjson_oracle import PATHS, Refused, oracle_parse, same, taking
from .microjson_oracle import Path as CodecPath

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_test_suites.py"

every_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="session")
def members() -> Callable[[str, str], dict[str, bytes]]:
    """The files of a suite's folder by their path in it; fails (and does not skip) where a suite cannot be had."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
    archives: dict[str, str] = json.loads(done.stdout)

    def read(package: str, folder: str) -> dict[str, bytes]:
        found = {}
        with tarfile.open(archives[package]) as archive:
            for member in archive:
                name = member.name.partition("/")[2]
                if member.isfile() and name.startswith(folder + "/"):
                    content = archive.extractfile(member)
                    assert content is not None
                    found[name.removeprefix(folder + "/")] = content.read()
        return found

    return read


@every_path
def test_json_parsing_suite(path: CodecPath, members: Callable[[str, str], dict[str, bytes]]) -> None:
    cases = members("pyjson5", "third-party/JSONTestSuite/test_parsing")
    assert len(cases) == 318
    taken = []
    for name, data in sorted(cases.items()):
        try:
            expected = oracle_parse(data)
        except Refused:
            with taking(path), pytest.raises(MicroJSONError):
                parse_canonical(data)
            continue
        assert not name.startswith("n_"), f"{name} is no JSON and the oracle took it"
        with taking(path):
            assert same(parse_canonical(data), expected), name
            assert canonical(expected) == data, name
        taken.append(name)
    # The suite's good cases are mostly written loosely: some must be canonical, or this test would show nothing.
    assert len(taken) >= 25, taken


@every_path
def test_good_cases_of_the_suite_are_written_as_rfc_8785_says(
    path: CodecPath, members: Callable[[str, str], dict[str, bytes]]
) -> None:
    written = 0
    for name, data in sorted(members("pyjson5", "third-party/JSONTestSuite/test_parsing").items()):
        if not name.startswith("y_"):
            continue
        value = json.loads(data)
        with taking(path):
            if _holds_float(value):
                with pytest.raises(MicroJSONError, match="no float"):
                    canonical(value)
                continue
            assert canonical(value) == rfc8785.dumps(value), name
            assert same(parse_canonical(canonical(value)), value), name
        written += 1
    assert written >= 70


@every_path
def test_no_case_of_the_suite_is_a_message(path: CodecPath, members: Callable[[str, str], dict[str, bytes]]) -> None:
    with taking(path):
        for data in members("pyjson5", "third-party/JSONTestSuite/test_parsing").values():
            with pytest.raises(MicroJSONError):
                MicroJSON.decode(data)


@every_path
@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_rfc_8785_vectors(path: CodecPath, name: str, members: Callable[[str, str], dict[str, bytes]]) -> None:
    assets = members("rfc8785", "test/assets")
    # "structures" writes 56.0 for the integer that comes out.
    value = json.loads(assets[f"input/{name}.json"].replace(b"56.0", b"56"))
    expected = assets[f"output/{name}.json"]
    assert bytes.fromhex(assets[f"outhex/{name}.txt"].decode()) == expected
    with taking(path):
        if name == "values":
            # The one vector with floats: refused with the place, and the rest of it as the RFC has it.
            with pytest.raises(MicroJSONError, match="no float") as caught:
                parse_canonical(expected)
            assert caught.value.where == "$.numbers[0]"
            numbers = rfc8785.dumps(value.pop("numbers"))
            expected = expected.replace(b'"numbers":' + numbers + b",", b"")
        assert canonical(value) == expected
        assert same(parse_canonical(expected), value)
        loose = assets[f"input/{name}.json"]
        with pytest.raises(MicroJSONError):
            parse_canonical(loose)


def _holds_float(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_float, value.values()))
    return isinstance(value, float) or (isinstance(value, list) and any(map(_holds_float, value)))
