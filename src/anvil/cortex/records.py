"""The nouns of the cortex besides ``anvil.model.card.Card``: frozen, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass

from anvil.model.card import Card, Status


@dataclass(frozen=True, kw_only=True)
class NewCard:
    """A card to be pushed.

    id: unique in its deck. needs: ids of the same deck, in the same push or already there, in any order. priority:
    higher is claimed first. stat: PUNCHED for a card whose result is already kept (``ret`` and ``key`` with it).
    """

    id: str
    op: str
    pld: str
    needs: tuple[str, ...] = ()
    key: str = ""
    ret: str = ""
    stat: Status = Status.PENDING
    hold: bool = False
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """What a card key is known to give.

    work, out: digests of the layer manifests of the work tree and of /out. work_times, out_times: digests of the file
    times kept beside them. log: digest of the log. ret: the MicroJSON text that the card was stamped with. card, op:
    the name and operation of the card that was run, for estimates. duration_ms: wall time of the run. worker,
    created (microseconds UTC): filled in by the cortex when the result is stored. "" where there is none.
    """

    key: str
    work: str = ""
    out: str = ""
    work_times: str = ""
    out_times: str = ""
    log: str = ""
    ret: str = ""
    card: str = ""
    op: str = ""
    duration_ms: int = 0
    worker: str = ""
    created: int = 0


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What became of a claimed card: PUNCHED or JAMMED, with what it gave; see ``log_result``."""

    card: Card
    stat: Status
    ret: str
    key: str = ""
    result: StoredResult | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the ledger. body: canonical JSON text. prev, hash: 32 bytes (see ``ledger.event_hash``)."""

    seq: int
    at_us: int
    kind: int
    body: str
    prev: bytes
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class ForgeRun:
    """One run of ``anvil forge``.

    started, ended: microseconds UTC; ended is 0 while it runs. verdict: "" until it ended, then "done", "jammed",
    "interrupted" or "killed". machine: canonical JSON text.
    """

    id: str
    deck: str
    recipe: str
    started: int
    ended: int
    verdict: str
    machine: str


@dataclass(frozen=True, kw_only=True)
class Waiter:
    """A card that waits for what another one runs.

    worker, card: whose token and which card it is that is awaited. waiter, waiter_deck, waiter_card: who waits.
    """

    worker: str
    card: str
    waiter: str
    waiter_deck: str
    waiter_card: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """An artifact that was put at ``path`` (absolute), and all that it was made from.

    keys: of cards. blobs: of files given to these. images: of base images. All sorted.
    """

    path: str
    sha256: str
    size: int
    keys: tuple[str, ...]
    blobs: tuple[str, ...]
    images: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KeptResult:
    """A kept result as a garbage collection sees it; created, used: microseconds UTC."""

    key: str
    card: str
    ret: str
    created: int
    used: int


@dataclass(frozen=True, kw_only=True)
class DeckState:
    """A deck that has cards on the stack. claimed, jammed: whether any of them is."""

    deck: str
    claimed: bool
    jammed: bool


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What a card key is the hash of (see mainframe.keys).

    body: the canonical JSON text that was hashed. origins: where each digest in it came from, canonical JSON text.
    """

    key: str
    card: str
    body: str
    origins: str


@dataclass(frozen=True, kw_only=True)
class PastCard:
    """A card of a forge, as it is on the stack or as it left it.

    ran: whether it made its result itself; else that was kept. milliseconds: how long that took, whoever did it.
    at: microseconds UTC of its last change. ret: what it was stamped with, MicroJSON text.
    """

    deck: str
    id: str
    seq: int
    op: str
    key: str
    stat: Status
    ran: bool
    milliseconds: int
    at: int
    ret: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a card: by which key, how long, and when (microseconds UTC)."""

    key: str
    milliseconds: int
    at: int
