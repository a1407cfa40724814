"""The closed registry of message IDs.

100-199 are the life cycle, 200-299 the jobs, 500-599 the errors of ``anvil.errors`` (each error class carries its own
ID), 666 is a security violation. A message with another ID is refused both ways; a new one is a line here, and a
number is never used for a second meaning.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class MessageID(IntEnum):
    """What a message is; ``meaning`` says it in one line."""

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> Self:
        """A member from its number and its meaning."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    FORGE_STARTED = 100, "a forge began"
    FORGE_ENDED = 101, "a forge ended, with its verdict"
    WORKER_STARTED = 102, "a worker process is ready to claim cards"
    WORKER_ENDED = 103, "a worker process is gone"
    DECK_PUSHED = 104, "a deck was put on the card stack"
    DECK_CLEARED = 105, "a deck's pending cards were taken off the card stack"
    CARD_CLEARED = 106, "a card was taken off the card stack"
    CARD_LEFT = 107, "a stopped forge left a running card to its worker: another forge awaits it"
    CHECK_ENDED = 108, "a recipe was made twice and compared, with the verdict"
    FORGE_HEARTBEAT = 109, "where a running forge stands: its cards, and the time left with its spread"
    CARD_CLAIMED = 110, "a worker took a card (status 0 to 1)"
    CARD_PROGRESS = 111, "a running card tells how far it is"
    CARD_PUNCHED = 112, "a card ran and succeeded (status 2)"
    CARD_KEPT = 113, "a card was not run: the result for its key is kept already"
    CARD_WAITING = 114, "a card waits: another forge runs its key, or a person must approve it"
    LEASE_RECLAIMED = 115, "a card was taken back from a worker that fell silent"
    CARD_CANCELLED = 116, "a running card was stopped and is pending again"
    CARD_PUSHED = 117, "a card was put on the card stack"
    CARD_RETRIED = 118, "a jammed card is pending again"
    CARD_APPROVED = 119, "a person let a held card run"
    ARTIFACT_RELEASED = 120, "a file passed the output gate into build_artifacts"
    RESULT_KEPT = 121, "what a card key gives is kept"
    RESULT_FORGOTTEN = 122, "what a card key gives was forgotten"
    FETCH_PROGRESS = 130, "a download tells how far it is"
    FETCH_ENDED = 131, "a pinned file arrived and its digest is right"
    GARBAGE_COLLECTED = 132, "what nobody needs was removed from the home"

    WISH_TAKEN = 140, "the standing mainframe has put a client's wish on the card stack"
    WISH_ENDED = 141, "the standing mainframe has done with a wish: the outcome, or the error that ended it"
    FORGE_NOTE = 142, "a sentence of a forge's for a person"
    DECK_WORKED = 143, "the processor has done with a deck: nothing of it will run any more"

    DECK = 200, "the cards that a recipe became"
    CARD_PAYLOAD = 201, "what a card is to do"
    CARD_RESULT = 202, "what a card left: digests of its layer and outputs, times, sizes"
    ARTIFACT_SIDECAR = 203, "the human JSON beside a released artifact"
    BOOT_VERDICT = 204, "what a booted medium showed"
    PLAN = 205, "which cards will run, may run or are kept, and the time expected"
    EVALUATION_REQUEST = 206, "recipes to evaluate, sent into a cell"
    EVALUATION_ANSWER = 207, "the decks, or the recipe's errors, that came out of a cell"
    LOCK = 208, "the pinned files of a base image or of a source profile"
    LEDGER_EVENT = 209, "one link of the ledger's chain"
    MANIFEST = 210, "a layer: its entries and the names it removes"
    CARD_KEY = 211, "the inputs whose hash is a card's key"
    DIFFERENCE = 212, "one thing in which two makings of a recipe differ"
    WISH = 220, "what a client asks the standing mainframe to forge"
    WISH_STOP = 221, "a client wants its wish stopped"

    ANVIL_ERROR = 500, "an error of no narrower kind, a malformed message among them"
    USAGE_ERROR = 501, "the words of a command are wrong"
    RECIPE_ERROR = 510, "a recipe, or what it names, is wrong; nothing was run"
    CARD_JAM = 520, "a card failed (status 9)"
    LIMIT_EXCEEDED = 521, "a card used more memory, time, output or log than it may"
    OUTPUT_FORBIDDEN = 522, "an output is not of a permitted kind or shape"
    INTEGRITY_ERROR = 530, "bytes differ from their digest, or a chain is broken"
    HASH_MISMATCH = 531, "a fetched file is not the pinned one"
    ENVIRONMENT_LACK = 540, "the machine lacks something; the hint mends it"
    NETWORK_LACK = 541, "a mirror does not answer"
    SOURCE_GONE = 542, "every mirror says that the pinned file is not there"
    DISK_FULL = 543, "no space or no inodes left"
    CELL_UNAVAILABLE = 544, "no sandbox can be made on this machine"
    DATABASE_REFUSED = 545, "this SQLite, this schema or this file system is not safe for the cortex"
    INTERRUPTED = 550, "the person stopped it"

    SECURITY_VIOLATION = 666, "something tried what no card may do"


def message_id(number: int) -> MessageID:
    """The registered ID with that number. Raises ValueError for one that is not registered."""
    return MessageID._value2member_map_[number]  # type: ignore[return-value]
