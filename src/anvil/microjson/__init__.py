"""MicroJSON: the one form in which Anvil's parts speak, keep and hash what they say."""

from anvil.microjson.codec import MicroJSON, MicroJSONError, canonical, parse_canonical
from anvil.microjson.registry import MessageID

__all__ = ["MessageID", "MicroJSON", "MicroJSONError", "canonical", "parse_canonical"]
