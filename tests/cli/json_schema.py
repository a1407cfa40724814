"""As much of JSON Schema 2020-12 as docs/events.schema.json is written in; a word that is not known is an error."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "object": (dict,),
    "array": (list,),
}
_WORDS = {"$schema", "title", "description", "oneOf", "type", "properties", "required", "additionalProperties"}
_WORDS |= {"items", "const", "enum", "pattern", "minimum"}


def complaints(schema: dict[str, Any], value: Any, place: str = "$") -> list[str]:
    """Everything in which a value is not as the schema says."""
    assert not set(schema) - _WORDS, f"unknown words at {place}: {set(schema) - _WORDS}"
    found: list[str] = []
    if "oneOf" in schema:
        fits = [each for each in schema["oneOf"] if not complaints(each, value, place)]
        if len(fits) != 1:
            found.append(f"{place}: {len(fits)} of the forms fit {str(value)[:200]}{_nearest(schema, value)}")
    if "type" in schema:
        right = isinstance(value, _TYPES[schema["type"]]) and (schema["type"] == "boolean" or type(value) is not bool)
        if not right:
            return [*found, f"{place}: {value!r:.60} is no {schema['type']}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{place}: {value!r:.60} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: {value!r:.60} is none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{place}: {value!r:.60} is not like {schema['pattern']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{place}: {value} is below {schema['minimum']}")
    if isinstance(value, dict):
        found += _of_object(schema, value, place)
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += complaints(schema["items"], item, f"{place}[{number}]")
    return found


def _of_object(schema: dict[str, Any], value: dict[str, Any], place: str) -> list[str]:
    known = schema.get("properties", {})
    found = [f"{place}: {name} is missing" for name in schema.get("required", []) if name not in value]
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            found += complaints(known[name], item, f"{place}.{name}")
        elif more is False:
            found.append(f"{place}: {name} is too much")
        elif isinstance(more, dict):
            found += complaints(more, item, f"{place}.{name}")
    return found


def _nearest(schema: dict[str, Any], value: Any) -> str:
    """What keeps the form of the same number from fitting."""
    number = value.get("@ID") if isinstance(value, dict) else None
    for each in schema["oneOf"]:
        if each.get("properties", {}).get("@ID", {}).get("const") == number:
            return f": {complaints(each, value)}"
    return ""
