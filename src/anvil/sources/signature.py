"""What decides about a clear-signed text: its frame before gpgv sees it, and gpgv's status lines after.

gpgv itself is run in a cell by whoever asks; here is the command, and how its answer is read. Its exit code alone
will not do: it is 2 as soon as one of several signatures is by a key that is not in the keyring, which is the rule
while an archive changes its keys.
"""

from __future__ import annotations

from anvil.errors import IntegrityError

_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
# RFC 9580, 9.5: MD5, SHA-1 and RIPEMD-160 are no longer safe to sign with.
_WEAK_HASHES = {"1", "2", "3"}
_TEXT_SIGNATURES = {"00", "01"}


def gpgv_command(keyring: str, signed: str, text: str) -> tuple[str, ...]:
    """The command that checks ``signed`` and writes what was signed to ``text``; its standard output is the status.

    All three are paths with a slash in them (gpgv looks for a bare keyring's name in its home).
    """
    return ("gpgv", "--status-fd", "1", "--keyring", keyring, "--output", text, signed)


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


def signers(status: str) -> tuple[str, ...]:
    """The fingerprints of the keys that made good signatures, from gpgv's status lines.

    Raises IntegrityError when there is none, or one of them is bad. Signatures by unknown, expired or revoked keys,
    or over a weak hash, count for nothing.
    """
    found: list[str] = []
    good = False
    for line in status.splitlines():
        words = line.removeprefix("[GNUPG:] ").split(" ")
        match words[0]:
            case "BADSIG":
                raise IntegrityError("a signature of the InRelease file is bad", detail=status)
            case "NEWSIG" | "EXPSIG" | "EXPKEYSIG" | "REVKEYSIG" | "ERRSIG":
                good = False
            case "GOODSIG":
                good = True
            case "VALIDSIG" if good and len(words) >= 10:
                good = False
                if words[8] not in _WEAK_HASHES and words[9] in _TEXT_SIGNATURES:
                    found.append(words[1])
            case "ERROR":
                raise IntegrityError("the InRelease file cannot be checked", detail=status)
    if not found:
        raise IntegrityError(
            "no key of the keyring has signed the InRelease file",
            detail=status,
            hint="the keyring may be too old for this suite, or the mirror is not Debian's",
        )
    return tuple(found)
