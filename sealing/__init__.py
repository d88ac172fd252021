"""Boxes that one process closes and only another can open (HPKE, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM).

The vault worker has the public key, the network worker alone the private one. `purpose` goes into HPKE's `info`, so a
box made for one use cannot be opened as another. The key id names the key pair during a rotation.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from domain.errors import DurapayError

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

PAN_PURPOSE = "durapay/credential/pan"
AUTHENTICATION_PURPOSE = "durapay/credential/authentication"
PROVISIONING_PURPOSE = "durapay/provisioning"
BANK_ACCOUNT_PURPOSE = "durapay/bank-account"
BANK_CORRECTION_PURPOSE = "durapay/bank-correction"


class SealBroken(DurapayError):
    """The box was made for another key or another purpose, or it was tampered with. Nothing more is revealed."""


def key_id(public_key: X25519PublicKey) -> str:
    """Eight hexadecimal digits that name a public key (SHA-256 of its raw form, RFC 7748)."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:8]


class Sealer:
    """Closes boxes for the holder of the private half of `public_key` (32 raw bytes)."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = X25519PublicKey.from_public_bytes(public_key)
        self._key_id = key_id(self._public_key)

    def seal(self, purpose: str, content: Mapping[str, str]) -> str:
        """`key-id.base64` of `content` as JSON."""
        plaintext = json.dumps(content, separators=(",", ":")).encode()
        box = _SUITE.encrypt(plaintext, self._public_key, info=_info(purpose, self._key_id))
        return f"{self._key_id}.{base64.b64encode(box).decode()}"


class Unsealer:
    """Opens boxes with any of `private_keys` (32 raw bytes each; more than one during a rotation)."""

    def __init__(self, private_keys: Sequence[bytes]) -> None:
        keys = [X25519PrivateKey.from_private_bytes(raw) for raw in private_keys]
        self._keys = {key_id(key.public_key()): key for key in keys}

    def open(self, purpose: str, box: str) -> dict[str, str]:
        """The content of `box`.

        Raises:
            SealBroken: it cannot be opened.
        """
        identifier, _, encoded = box.partition(".")
        private_key = self._keys.get(identifier)
        if private_key is None:
            raise SealBroken("the box is sealed for another key")
        try:
            sealed = base64.b64decode(encoded, validate=True)
            content = json.loads(_SUITE.decrypt(sealed, private_key, info=_info(purpose, identifier)))
        except (InvalidTag, ValueError):
            raise SealBroken("the box cannot be opened") from None
        # Whoever has the public key can close a box around anything.
        if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
            raise SealBroken("the box holds something else")
        return content


def _info(purpose: str, identifier: str) -> bytes:
    return f"{purpose}/{identifier}".encode()
