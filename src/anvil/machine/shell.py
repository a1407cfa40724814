"""A root shell in a guest, typed over its console."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.errors import CardJam, UsageError

if TYPE_CHECKING:
    from anvil.machine.console import Console, Sight

_LONGEST = 1000  # characters: a terminal takes lines of at most 4096 bytes, and the editor redraws long ones
LOGIN_PROMPT = "login: "
EMERGENCY_PROMPT = "anvil-emergency#"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command said (standard output and error, one newline as line end) and its exit code."""

    output: str
    status: int


class Shell:
    """A shell that waits at its prompt on the console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def run(self, command: str, *, timeout: float = 30) -> Answer:
        """Run one line and return its answer; its status is -1 when the guest told no number.

        timeout: seconds, for the command's beginning and again for its end. Raises UsageError for a command of several
        lines or over 1000 characters, CardJam when no answer comes in time.
        """
        if "\n" in command or len(command) > _LONGEST:
            raise UsageError(f"a console command is one line of at most {_LONGEST} characters")
        # The terminal echoes what is typed: the marker is typed in two parts and printed in one.
        tag = secrets.token_hex(8)
        self._console.send(f"printf '\\n%s%s\\n' BEGIN- {tag}; {command}; printf '\\n%s%s=%s\\n' END- {tag} $?\n")
        first = self._wait(f"BEGIN-{tag}", timeout, command)
        last = self._wait(f"END-{tag}=", timeout, command)
        status = last.line.partition("=")[2]
        return Answer(output=self._console.between(first, last), status=int(status) if status.isdecimal() else -1)

    def _wait(self, text: str, timeout: float, command: str) -> Sight:
        sight = self._console.expect(text, timeout=timeout)
        if sight.reason != "seen":
            raise CardJam(
                f"the guest's shell gave no answer to {command!r} ({sight.reason})",
                hint="read the console transcript",
                detail="\n".join(self._console.tail()),
            )
        return sight


def login(console: Console, *, user: str = "root", timeout: float = 60) -> Shell:
    """Log in at the prompt of a running AnvilOS. Raises CardJam when it does not let the user in."""
    console.skip()
    console.send("\n")  # a fresh prompt, whatever was printed over the last one
    _await(console, LOGIN_PROMPT, timeout)
    console.send(f"{user}\n")
    _await(console, f"{user}@", timeout)  # the prompt; the host may be called anything
    return Shell(console)


def emergency(console: Console, *, timeout: float = 30) -> Shell:
    """The shell that an initramfs leaves on every console after a failure."""
    console.skip()
    console.send("\n")
    _await(console, EMERGENCY_PROMPT, timeout)
    return Shell(console)


def _await(console: Console, prompt: str, timeout: float) -> None:
    sight = console.expect(prompt, timeout=timeout, patience=0)
    if sight.reason != "seen":
        raise CardJam(
            f"no prompt {prompt.strip()!r} on the console ({sight.reason})",
            hint="read the console transcript",
            detail="\n".join(console.tail()),
        )
