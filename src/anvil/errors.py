"""The one tree of errors.

::

    AnvilError                 exit  MicroJSON
    ├── UsageError               2      501   the words of a command are wrong
    ├── RecipeError              1      510   a recipe, or what it names, is wrong (nothing was run)
    ├── CardJam                  1      520   a card failed; the deck stops below it
    │   ├── LimitExceeded        1      521   a card used more memory, time, output or log than it may
    │   └── OutputForbidden      1      522   an output is not of a permitted kind
    ├── IntegrityError           1      530   bytes differ from their digest, or a chain is broken
    │   └── HashMismatch         1      531   a fetched file is not the pinned one
    ├── EnvironmentLack          3      540   the machine lacks something; the hint is the command that mends it
    │   ├── NetworkLack          3      541   a mirror does not answer
    │   ├── SourceGone           3      542   every mirror says the pinned file is not there
    │   ├── DiskFull             3      543   no space or no inodes left
    │   ├── CellUnavailable      3      544   no sandbox can be made here
    │   └── DatabaseRefused      3      545   this SQLite, this schema or this file system is not safe
    └── Interrupted            130      550   the person stopped it

Every error a person sees says what failed (the message), where (``where``) and what to do next (``hint``).
Foreign errors are translated at the door they come in by.
"""

from __future__ import annotations


class AnvilError(Exception):
    """Base of every error Anvil raises on purpose.

    message: one sentence, what failed. where: file and line, card, package or URL. hint: the next step, a
    command where there is one. detail: lines that explain (a log's end), shown below the sentence.
    """

    exit_code = 1
    message_id = 500

    def __init__(self, message: str, *, where: str = "", hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.detail = detail

    def as_data(self) -> dict[str, object]:
        """The error as the ``data`` of a MicroJSON message with ID ``message_id``."""
        data: dict[str, object] = {"error": type(self).__name__, "message": self.message}
        for name in ("where", "hint", "detail"):
            if value := getattr(self, name):
                data[name] = value
        return data


class UsageError(AnvilError):
    """The words of a command are wrong."""

    exit_code = 2
    message_id = 501


class RecipeError(AnvilError):
    """A recipe, or what it names, is wrong; nothing was run."""

    message_id = 510


class CardJam(AnvilError):
    """A card failed."""

    message_id = 520


class LimitExceeded(CardJam):
    """A card used more memory, time, output or log than it may."""

    message_id = 521


class OutputForbidden(CardJam):
    """An output is not of a permitted kind or shape."""

    message_id = 522


class IntegrityError(AnvilError):
    """Bytes differ from their digest, or a chain is broken."""

    message_id = 530


class HashMismatch(IntegrityError):
    """A fetched file is not the pinned one."""

    message_id = 531


class EnvironmentLack(AnvilError):
    """The machine lacks something; ``hint`` is the command that mends it."""

    exit_code = 3
    message_id = 540


class NetworkLack(EnvironmentLack):
    """A mirror does not answer."""

    message_id = 541


class SourceGone(EnvironmentLack):
    """Every mirror says that the pinned file is not there."""

    message_id = 542


class DiskFull(EnvironmentLack):
    """No space or no inodes left."""

    message_id = 543


class CellUnavailable(EnvironmentLack):
    """No sandbox can be made on this machine."""

    message_id = 544


class DatabaseRefused(EnvironmentLack):
    """This SQLite, this schema or this file system is not safe for the cortex."""

    message_id = 545


class Interrupted(AnvilError):
    """The person stopped it."""

    exit_code = 130
    message_id = 550
