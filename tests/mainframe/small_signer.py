"""A key that signs as an archive does, so that the real gpgv can be asked about texts made in a test.

OpenPGP's version 4 packets (RFC 4880, 4.2 and 5) and its clear-signed text (7), as far as one RSA key needs them. The
key is made from a number: it is worth nothing, and no key lies in the repository.
"""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass
from functools import cached_property

_MADE = 1_700_000_000
# The beginning of a DigestInfo with SHA-256 (RFC 8017, 9.2).
_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")


@dataclass(frozen=True)
class Signer:
    """A key. seed: another one gives another key."""

    seed: int

    @cached_property
    def keyring(self) -> bytes:
        """The public key with a name that it has signed, as gpgv takes it."""
        name = f"archive {self.seed} <archive@anvil.test>".encode()
        told = b"\x99" + len(self._public).to_bytes(2, "big") + self._public
        told += b"\xb4" + len(name).to_bytes(4, "big") + name
        bond = self._signature(0x13, told, bytes([2, 27, 0x03]))
        return _packet(6, self._public) + _packet(13, name) + bond

    @property
    def armoured(self) -> bytes:
        """The public key as people hand it on."""
        body = base64.encodebytes(self.keyring)
        return b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + body + b"-----END PGP PUBLIC KEY BLOCK-----\n"

    @property
    def fingerprint(self) -> str:
        """The key's, in capitals."""
        told = b"\x99" + len(self._public).to_bytes(2, "big") + self._public
        return hashlib.sha1(told).hexdigest().upper()

    def clear_sign(self, text: bytes) -> bytes:
        """The text with a signature below; its lines must not begin with a dash."""
        lines = [line.rstrip(b" \t\r") for line in text.rstrip(b"\n").split(b"\n")]
        armour = base64.encodebytes(self._signature(0x01, b"\r\n".join(lines)))
        return (
            b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + b"\n".join(lines) + b"\n"
            b"-----BEGIN PGP SIGNATURE-----\n\n" + armour + b"-----END PGP SIGNATURE-----\n"
        )  # fmt: skip

    def detached(self, data: bytes) -> bytes:
        """A signature that lies beside a file, over its bytes as they are."""
        return self._signature(0x00, data)

    @cached_property
    def _primes(self) -> tuple[int, int]:
        source = random.Random(self.seed)
        return _prime(source), _prime(source)

    @cached_property
    def _public(self) -> bytes:
        p, q = self._primes
        return b"\x04" + _MADE.to_bytes(4, "big") + b"\x01" + _number(p * q) + _number(65537)

    def _signature(self, kind: int, told: bytes, more: bytes = b"") -> bytes:
        hashed = bytes([5, 2]) + _MADE.to_bytes(4, "big") + more
        head = bytes([4, kind, 1, 8]) + len(hashed).to_bytes(2, "big") + hashed
        digest = hashlib.sha256(told + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
        p, q = self._primes
        length = ((p * q).bit_length() + 7) // 8
        padded = b"\x00\x01" + b"\xff" * (length - 3 - len(_SHA256 + digest)) + b"\x00" + _SHA256 + digest
        secret = pow(65537, -1, (p - 1) * (q - 1))
        value = pow(int.from_bytes(padded, "big"), secret, p * q)
        issuer = bytes([9, 16]) + bytes.fromhex(self.fingerprint[-16:])
        return _packet(2, head + len(issuer).to_bytes(2, "big") + issuer + digest[:2] + _number(value))


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def _number(value: int) -> bytes:
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _prime(source: random.Random, bits: int = 1024) -> int:
    while True:
        # the two highest bits, so that a product of two has twice the bits
        candidate = source.getrandbits(bits) | 3 << (bits - 2) | 1
        if candidate % 65537 != 1 and all(candidate % small for small in (3, 5, 7, 11, 13, 17, 19, 23)):
            # Miller and Rabin's test
            odd, twos = candidate - 1, 0
            while odd % 2 == 0:
                odd, twos = odd // 2, twos + 1
            if all(_passes(source.randrange(2, candidate - 1), odd, twos, candidate) for _ in range(8)):
                return candidate


def _passes(base: int, odd: int, twos: int, candidate: int) -> bool:
    power = pow(base, odd, candidate)
    if power in (1, candidate - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % candidate
        if power == candidate - 1:
            return True
    return False
