"""What decides about a signed text or file: its frame before gpgv sees it, and gpgv's status lines after.

gpgv itself is run in a cell by whoever asks; here is the command, and how its answer is read. Its exit code alone
will not do: it is 2 as soon as one of several signatures is by a key that is not in the keyring, which is the rule
while an archive changes its keys.
"""

from __future__ import annotations

import base64
import binascii
import re

from anvil.errors import IntegrityError

_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
# RFC 9580, 9.5: MD5, SHA-1 and RIPEMD-160 are no longer safe to sign with.
_WEAK_HASHES = {"1", "2", "3"}
_TEXT_SIGNATURES = {"00", "01"}

UNPACKERS = {".xz": "xz", ".gz": "gzip"}
"""What is signed may be the archive before it was packed: the ending, and the program that unpacks it."""

_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[A-Za-z]+:.*\r?\n)*\r?\n([A-Za-z0-9+/=\s]*?)"
    rb"(?:\r?\n=[A-Za-z0-9+/]{4})?\s*-----END PGP PUBLIC KEY BLOCK-----"
)


def gpgv_command(keyring: str, signed: str, text: str) -> tuple[str, ...]:
    """The command that checks ``signed`` and writes what was signed to ``text``; its standard output is the status.

    All three are paths with a slash in them (gpgv looks for a bare keyring's name in its home).
    """
    return ("gpgv", "--status-fd", "1", "--keyring", keyring, "--output", text, signed)


def detached_command(keyring: str, signature: str, file: str, unpacker: str = "") -> tuple[str, ...]:
    """The command that checks a file beside which its signature lies; its standard output is the status.

    unpacker: one of UNPACKERS' programs, when the unpacked file is what was signed; the exit code is then 0
    only if that program's was, for gpgv knows nothing of what could not be unpacked.
    """
    if not unpacker:
        return ("gpgv", "--status-fd", "1", "--keyring", keyring, signature, file)
    script = '"$0" -dc < "$3" | gpgv --status-fd 1 --keyring "$1" "$2" -; [ "${PIPESTATUS[0]}" = 0 ]'
    return ("bash", "-c", script, unpacker, keyring, signature, file)


def binary_keyring(data: bytes) -> bytes:
    """Public keys as gpgv takes them, from a file as people hand it on: binary, or armoured (RFC 9580, 6).

    Raises IntegrityError for a file that is neither.
    """
    if blocks := _ARMOUR.findall(data):
        try:
            return b"".join(base64.b64decode(b"".join(block.split()), validate=True) for block in blocks)
        except binascii.Error as error:
            raise IntegrityError(f"the armour of the key is damaged: {error}") from error
    # a packet's first octet has the highest bit; a public key's tag is 6 (RFC 9580, 4.2), a keybox begins otherwise
    first = data[0] if data else 0
    tag = first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
    if not first & 0x80 or tag != 6:
        raise IntegrityError(
            "the file holds no public key", hint="export it as one: gpg --export --armor WHOSE > key.asc"
        )
    return data


def is_signature(data: bytes) -> bool:
    """Whether bytes begin as a signature does, armoured or not: a server may give a page in a file's place."""
    if data.lstrip().startswith(_SIGNATURE):
        return True
    first = data[0] if data else 0
    tag = first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
    return bool(first & 0x80) and tag == 2


def check_frame(signed: bytes) -> None:
    """Refuse a text that is not one clear-signed message and nothing else (RFC 9580, 7).

    What stands before, between or after would be read by a careless parser, and is signed by nobody.
    """
    lines = [line.rstrip() for line in signed.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    marks = [line for line in lines if line in (_BEGIN, _SIGNATURE, _END)]
    if not lines or lines[0] != _BEGIN or lines[-1] != _END or marks != [_BEGIN, _SIGNATURE, _END]:
        raise IntegrityError(
            "the InRelease file is not one signed text",
            hint="the mirror may be broken, or something between here and it; try another one",
        )


def signers(status: str, what: str = "the InRelease file") -> tuple[str, ...]:
    """The fingerprints of the keys that made good signatures over ``what``, from gpgv's status lines.

    Raises IntegrityError when there is none, or one of them is bad. Signatures by unknown, expired or revoked keys,
    or over a weak hash, count for nothing.
    """
    found: list[str] = []
    good = False
    for line in status.splitlines():
        words = line.removeprefix("[GNUPG:] ").split(" ")
        match words[0]:
            case "BADSIG":
                raise IntegrityError(f"a signature of {what} is bad", detail=status)
            case "NEWSIG" | "EXPSIG" | "EXPKEYSIG" | "REVKEYSIG" | "ERRSIG":
                good = False
            case "GOODSIG":
                good = True
            case "VALIDSIG" if good and len(words) >= 10:
                good = False
                if words[8] not in _WEAK_HASHES and words[9] in _TEXT_SIGNATURES:
                    found.append(words[1])
            case "ERROR":
                raise IntegrityError(f"{what} cannot be checked", detail=status)
    if not found:
        raise IntegrityError(
            f"no key of the keyring has signed {what}",
            detail=status,
            hint="the keyring may be too old, or not that of who signs it; what is served may be another's",
        )
    return tuple(found)
