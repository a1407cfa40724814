"""What only the cortex can say went wrong; everything else it raises is in ``anvil.errors``."""

from __future__ import annotations

from anvil.errors import AnvilError, EnvironmentLack


class LeaseLost(AnvilError):
    """The card is no longer this worker's: it was reclaimed, cleared or already stamped. Drop the work."""


class ForkedConnection(AnvilError):
    """A process was forked with the cortex open and the child used it.

    SQLite keeps lock state per process in memory; a forked child inherits a copy that no longer tells the truth, even
    for a new connection to the same file. Start children with exec (subprocess, or multiprocessing's "spawn").
    """


class CortexBusy(EnvironmentLack):
    """A program that does not take Anvil's lock has held the database for too long."""
