"""What ``anvil forge --json`` writes, as data: each message's fields; docs/events.schema.json is made of it.

A line is a message (docs/microjson.md). A field's form is a word of ``_FORMS``, "?" before it where it may be absent,
"[]" after it for a list. A consumer passes over messages and fields that it does not know: both may come to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPAN = {"low": "count", "expected": "count", "high": "count"}
_ERROR = {"card": "?text", "error": "text", "message": "text", "where": "?text", "hint": "?text", "detail": "?text"}

Fields = dict[str, Any]

EVENTS: Mapping[MessageID, Fields] = {
    MessageID.FORGE_STARTED: {"recipe": "text", "profile": "text", "jobs": "count"},
    MessageID.PLAN: {"total": "count", "kept": "count", "estimates": {"*": _SPAN}, "left": _SPAN},
    MessageID.FORGE_NOTE: {"text": "text"},
    MessageID.CARD_CLAIMED: {"card": "text", "op": "text", "key": "digest", "log": "text"},
    MessageID.CARD_PROGRESS: {"card": "text", "note": "?text", "done": "?count", "of": "?count"},
    MessageID.CARD_PUNCHED: {"card": "text", "key": "digest", "ms": "count", "facts": "object"},
    MessageID.CARD_KEPT: {"card": "text", "key": "digest", "ms": "count", "facts": "object"},
    MessageID.CARD_WAITING: {"card": "text", "key": "digest", "pid": "?count", "asleep": "?truth"},
    MessageID.CARD_CANCELLED: {"card": "text", "message": "text"},
    MessageID.CARD_LEFT: {"card": "text", "pid": "count", "forge": "text"},
    MessageID.FORGE_HEARTBEAT: {
        "total": "count",
        "kept": "count",
        "done": "count",
        "running": [{"card": "text", "ms": "count", "expected": "count", "note": "text"}],
        "waiting": "text[]",
        "ms": "count",
        "left": _SPAN,
    },
    MessageID.ARTIFACT_RELEASED: {"path": "text", "sha256": "digest", "size": "count", "written": "truth"},
    MessageID.BOOT_VERDICT: {"card": "text", "text": "text"},
    MessageID.CARD_JAM: {
        **_ERROR,
        "error": "?text",
        "recipe": "?text",
        "log": "?text",
        "tail": "?text[]",
        "command": "?text",
    },
    MessageID.FORGE_ENDED: {"deck": "text", "verdict": "verdict", "ran": "count", "kept": "count", "ms": "count"},
    MessageID.DIFFERENCE: {
        "card": "text",
        "tree": "text",
        "path": "text[]",
        "what": "text",
        "first": "text",
        "second": "text",
        "sizes": "count[]",
        "offset": "integer",
        "lines": "text[]",
        "cause": "truth",
    },
    MessageID.CHECK_ENDED: {
        "same": "truth",
        "artifacts": [{"name": "text", "sha256": "digest", "second": "text", "size": "count"}],
        "differences": "count",
        "varied": "text[]",
        "not_varied": "text[]",
        "diffoscope": "texts[]",
        "home": "text",
        "cards": "count",
        "layers": "count",
        "files": "count",
        "ms": "count",
    },
    **{member: _ERROR for member in MessageID if 500 <= member < 600 and member is not MessageID.CARD_JAM},
}
"""Every message that a forge for a program may write, by what it is."""

_FORMS: Mapping[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "truth": {"type": "boolean"},
    "count": {"type": "integer", "minimum": 0},
    "integer": {"type": "integer"},
    "object": {"type": "object"},
    "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "verdict": {"enum": ["done", "jammed", "stopped", "failed"]},
}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a line of ``anvil forge --json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of anvil forge --json",
        "description": "One MicroJSON message; docs/EVENTS.md says when each is written.",
        "oneOf": [_message(member, EVENTS[member]) for member in sorted(EVENTS)],
    }


def _message(member: MessageID, fields: Fields) -> dict[str, Any]:
    return {
        "title": member.name,
        "description": member.meaning,
        "type": "object",
        "properties": {"@ID": {"const": int(member)}, "data": _object(fields)},
        "required": ["@ID", "data"],
        "additionalProperties": False,
    }


def _object(fields: Fields) -> dict[str, Any]:
    if set(fields) == {"*"}:
        return {"type": "object", "additionalProperties": _form(fields["*"])}
    return {
        "type": "object",
        "properties": {name: _form(form) for name, form in fields.items()},
        "required": [name for name, form in fields.items() if not (isinstance(form, str) and form.startswith("?"))],
    }


def _form(form: Any) -> dict[str, Any]:
    if isinstance(form, dict):
        return _object(form)
    if isinstance(form, list):
        return {"type": "array", "items": _object(form[0])}
    word = form.removeprefix("?")
    if word.endswith("[]"):
        return {"type": "array", "items": _FORMS[word.removesuffix("[]")]}
    return dict(_FORMS[word])
