"""MicroJSON: the one form in which Anvil's parts speak, keep and hash what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anvil.microjson.codec import MicroJSON, MicroJSONError, canonical, parse_canonical
    from anvil.microjson.registry import MessageID

__all__ = ["MessageID", "MicroJSON", "MicroJSONError", "canonical", "parse_canonical"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: whoever only wants the numbers need not load the codec."""
    if name not in __all__:
        raise AttributeError(name)
    from anvil.microjson import codec, registry

    return getattr(registry if name == "MessageID" else codec, name)
