"""patch: a unified diff onto the tree; the recipe language wrote the command."""

from __future__ import annotations

from anvil.mainframe.ops.run import run, script

__all__ = ["run", "script"]
