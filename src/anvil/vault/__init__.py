"""The vault: blobs by the hash of their bytes, and layers (what a card left) over them."""

from anvil.vault.batch import Batch
from anvil.vault.collect import Collected
from anvil.vault.discard import discard
from anvil.vault.layers import Layers
from anvil.vault.manifest import Layer, LayerRef, Times, manifest_from_bytes, manifest_to_bytes
from anvil.vault.merge import View
from anvil.vault.scan import OutputLimits
from anvil.vault.store import Vault
from anvil.vault.verify import Finding, verify

__all__ = [
    "Batch",
    "Collected",
    "Finding",
    "Layer",
    "LayerRef",
    "Layers",
    "OutputLimits",
    "Times",
    "Vault",
    "View",
    "discard",
    "manifest_from_bytes",
    "manifest_to_bytes",
    "verify",
]
