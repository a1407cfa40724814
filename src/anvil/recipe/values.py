"""What the values in additions may be: each function returns its value, or raises RecipeError that says why not.

The words of the language ask here, so that an extender hears of a mistake at its own line, and the recipe that
receives an addition asks again, since ``Recipe.extend`` may have been called by hand.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from anvil.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Collection

_SHOWN = 60
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SERVICE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ABSOLUTE = re.compile(r"(/[A-Za-z0-9_.-]+)+")
_HASH = re.compile(r"\$[56]\$(rounds=[0-9]{4,9}\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{43,86}")
_OPTION = re.compile(r"[A-Z0-9][A-Za-z0-9_]{0,127}")
_NUMBER = re.compile(r"-?[0-9]{1,19}|0[xX][0-9A-Fa-f]{1,16}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}(=[A-Za-z0-9_.,:/@+=%-]{1,256})?")

KEY_TYPES = {
    "ssh-ed25519": 32,
    "ecdsa-sha2-nistp256": 65,
    "ecdsa-sha2-nistp384": 97,
    "ecdsa-sha2-nistp521": 133,
    "ssh-rsa": 256,
}
"""Kinds of public ssh key (RFC 4253, 5656, 8709), and the least bytes of their last field: the key proper."""

FIRST_USER, LAST_USER = 1, 65533
"""Uids an image may give away; 0 is root's, 65534 nobody's."""


def relative(path: object) -> str:
    """A plain relative path: no leading slash, no empty part, "." or ".."."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if not isinstance(path, str) or any(part in {"", ".", ".."} for part in parts) or "\0" in path:
        raise RecipeError(f"{_shown(path)} is not a plain relative path")
    return path


def root_path(path: object) -> str:
    """A path in the root, without the leading slash; of at most 200 printable characters without a space."""
    found = relative(path)
    if len(found) > 200 or not found.isascii() or not found.isprintable() or " " in found:
        raise RecipeError(f"{_shown(path)} is no path for a root: at most 200 plain characters, no spaces")
    return found


def mode(bits: object) -> int:
    """The permissions of a file, without set-id bits."""
    if not isinstance(bits, int) or isinstance(bits, bool) or not 0 <= bits <= 0o777:
        told = f"{bits:#o}" if isinstance(bits, int) else _shown(bits)
        raise RecipeError(
            f"the mode {told} is none from 0 to 0o777", hint="mode=0o755 for a program, 0o644 for a text"
        )
    return bits


def user(name: object) -> str:
    """The name of a user or group."""
    return _match(_USER, name, "a user's name", "a-z, 0-9, _ and -, at most 32, beginning with a letter")


def uid(number: object) -> int:
    """The number of a user or group that an image may add."""
    if not isinstance(number, int) or isinstance(number, bool) or not FIRST_USER <= number <= LAST_USER:
        hint = f"a number from {FIRST_USER} to {LAST_USER}; people's begin at 1000"
        raise RecipeError(f"{_shown(number)} is no uid that a user may have", hint=hint)
    return number


def absolute(path: object, what: str) -> str:
    """An absolute path of plain characters."""
    found = _match(_ABSOLUTE, path, what, "an absolute path of letters, digits, _ . -")
    relative(found[1:])
    return found


def password_hash(text: object) -> str:
    """What crypt(3) makes of a password with SHA-256 or SHA-512, or "" for none: then nobody logs in by password."""
    if text == "":
        return ""
    return _match(_HASH, text, "the hash of a password", "busybox mkpasswd -m sha512, or leave it out and use a key")


def line(text: object, what: str, *, empty: bool = False, without: str = "") -> str:
    """One line of printable text."""
    sound = isinstance(text, str) and (empty or text.strip()) and len(text) <= 4000 and text.isprintable()
    if not isinstance(text, str) or not sound or any(mark in text for mark in without):
        raise RecipeError(
            f"{_shown(text)} is no {what}: one line of printable text" + (f", no {without}" * bool(without))
        )
    return text


def command(text: object) -> str:
    """A service's command: a line for the shell that begins with an absolute path."""
    found = line(text, "command")
    absolute(found.split(" ", 1)[0], "what a service's command begins with")
    return found


def service(name: object) -> str:
    """The name of a service."""
    return _match(_SERVICE, name, "a service's name", "a-z, 0-9, _ and -, at most 32, beginning with a letter")


def hostname(name: object) -> str:
    """A host's name (one label of RFC 1123)."""
    return _match(_HOSTNAME, name, "a host's name", "a-z, 0-9 and -, at most 63")


def ssh_key(text: object) -> str:
    """A line of authorized_keys without options: kind, key in base64, and perhaps a comment.

    The key's own bytes must name the same kind and hold as many bytes as such a key has.
    """
    hint = "one line of a .pub file: ssh-ed25519 AAAA... name"
    words = line(text, "public ssh key").split(" ", 2)
    if len(words) < 2 or words[0] not in KEY_TYPES:
        kinds = ", ".join(KEY_TYPES)
        raise RecipeError(f"{_shown(text)} is no public ssh key", hint=f"{hint}; kinds: {kinds}")
    try:
        fields = _fields(base64.b64decode(words[1], validate=True))
    except (binascii.Error, ValueError) as error:
        raise RecipeError(f"the ssh key {_shown(text)} is damaged: {error}", hint=hint) from error
    if len(fields) < 2 or fields[0] != words[0].encode() or len(fields[-1]) < KEY_TYPES[words[0]]:
        raise RecipeError(f"the ssh key {_shown(text)} is not the {words[0]} it says", hint=hint)
    return " ".join(words)


def option(name: object) -> str:
    """The name of a kernel option, without CONFIG_."""
    if isinstance(name, str) and name.startswith("CONFIG_"):
        raise RecipeError(f"say {name.removeprefix('CONFIG_')!r}: CONFIG_ goes without saying")
    return _match(_OPTION, name, "a kernel option's name", "as Kconfig has it: BTRFS_FS")


def option_value(value: object) -> str:
    """A kernel option's value as a .config has it: y, n, a number, or a text in quotes."""
    if isinstance(value, bool):
        return "y" if value else "n"
    if isinstance(value, int):
        return str(value)
    if value in {"m", "M"}:
        raise RecipeError("an option cannot be m: the kernel is one file without modules", hint='say "y" or "n"')
    text = line(value, "value of a kernel option", empty=True, without="\"'\\")
    return text if text in {"y", "n"} or _NUMBER.fullmatch(text) else f'"{text}"'


def config_value(value: object) -> str:
    """A value as ``option_value`` gives it."""
    found = line(value, "value of a kernel option")
    if found not in {"y", "n"} and not _NUMBER.fullmatch(found) and not re.fullmatch(r'"[^"\'\\\\]*"', found):
        raise RecipeError(
            f"{_shown(found)} is no value of a kernel option", hint="y, n, a number, or a text in quotes"
        )
    return found


def kernel_word(text: object) -> str:
    """A word of the kernel's command line: a name, or name=value."""
    return _match(_WORD, text, "a word of the kernel line", "name or name=value, without quotes and spaces")


def known(what: str, value: object, names: Collection[str]) -> str:
    """One of some names."""
    if not isinstance(value, str) or value not in names:
        raise RecipeError(f"{_shown(value)} is no {what}", hint=f"there is: {', '.join(sorted(names))}")
    return value


def text(value: object) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise RecipeError(f"{_shown(value)} is no text")
    return value


def flag(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise RecipeError(f"{_shown(value)} is neither True nor False")
    return value


def number(value: object) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise RecipeError(f"{_shown(value)} is no whole number")
    return value


def _match(pattern: re.Pattern[str], value: object, what: str, rule: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise RecipeError(f"{_shown(value)} is not {what}", hint=rule)
    return value


def _fields(data: bytes) -> list[bytes]:
    """The length-prefixed fields of an ssh key blob (RFC 4251, section 5). ValueError when it does not end evenly."""
    fields = []
    while data:
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise ValueError("it is cut short")
        fields.append(data[4 : 4 + size])
        data = data[4 + size :]
    return fields


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
