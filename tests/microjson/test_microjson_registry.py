"""The registry is closed, in its ranges, complete, and told in docs/microjson.md."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from anvil import errors
from anvil.microjson import MessageID, MicroJSONError

ERRORS = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, errors.AnvilError)]
DOCUMENT = Path(__file__).parents[2] / "docs" / "microjson.md"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_its_id_under_its_own_name(error: type[errors.AnvilError]) -> None:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.__name__).upper()
    assert MessageID(error.message_id).name == name


def test_every_error_id_belongs_to_an_error() -> None:
    assert {int(member) for member in MessageID if 500 <= member <= 599} == {error.message_id for error in ERRORS}
    assert MicroJSONError.message_id == MessageID.ANVIL_ERROR


def test_ids_are_in_the_ranges_of_the_design_and_rise() -> None:
    numbers = [int(member) for member in MessageID]
    assert numbers == sorted(set(numbers))
    assert all(100 <= number <= 299 or 500 <= number <= 599 or number == 666 for number in numbers)
    assert int(MessageID.SECURITY_VIOLATION) == 666


@pytest.mark.parametrize("member", MessageID, ids=lambda member: member.name)
def test_every_id_has_a_meaning_of_one_line(member: MessageID) -> None:
    assert 10 <= len(member.meaning) <= 90
    assert "\n" not in member.meaning
    assert not member.meaning.endswith(".")


def test_the_document_has_the_registry_as_it_is() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [(str(int(member)), member.name, member.meaning) for member in MessageID]
