"""``CortexDB``: the one public face of the cortex.

Its methods are grouped by concern, a module each:

- ``Stack``: push_card, push_deck, peek_stack, card, cards, counts, retry, approve, clear_deck
- ``Leases``: pop_card, pop_cards, heartbeat, log_result, log_results, release_card, reclaim, begin_key
- ``Waiting``: await_key, waiters, runner
- ``Keeping``: touch, kept_results, forget_results, all_cards, decks, note_release, releases, old_decks, forget_decks
- ``Results``: find_result, find_results, all_results, forget_result
- ``History``: note_identity, identities, note_pins, pin, past_cards, past_of_card, forge_of, forgotten, runs
- ``Forges``: begin_forge, end_forge, forges, put_deck, get_deck, set_fact, fact
- ``Ledger``: log_event, ledger_head, events, verify_ledger
- ``Store``: path, batch, close
"""

from __future__ import annotations

from anvil.cortex.forges import Forges
from anvil.cortex.history import History
from anvil.cortex.keeping import Keeping
from anvil.cortex.leases import Leases
from anvil.cortex.ledger import Ledger
from anvil.cortex.stack import Stack
from anvil.cortex.waiting import Waiting

__all__ = ["CortexDB"]


class CortexDB(Stack, Leases, Waiting, Keeping, History, Forges, Ledger):
    """The durable card database.

    One object serves all threads of a process; every process opens its own (never one inherited by fork). When a
    changing method returns, its change and the ledger's event of it are on the disk, in one transaction.
    """
