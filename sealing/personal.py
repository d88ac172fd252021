"""What a person says of themselves, under a data key of that person (AES-256-GCM, NIST SP 800-38D).

Whoever destroys the key destroys everything that was encrypted under it, wherever copies of it are.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealing import SealBroken

KEY_BYTES = 32
_NONCE_BYTES = 12

# A loan of the data key to the onboarding worker (HPKE's `info`).
LOAN_PURPOSE = "durapay/personal-key"


def seal(key: bytes, plaintext: bytes, *bound_to: str) -> bytes:
    """Nonce, ciphertext and tag of `plaintext`, which opens only with the same `key` and `bound_to`."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, _binding(bound_to))


def unseal(key: bytes, sealed: bytes, *bound_to: str) -> bytes:
    """What `seal` was given.

    Raises:
        SealBroken: another key, another place, or it was tampered with.
    """
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _binding(bound_to))
    except (InvalidTag, ValueError):
        raise SealBroken("the personal data cannot be opened") from None


def _binding(parts: tuple[str, ...]) -> bytes:
    """Each part with its length before it, so that no two lists look alike."""
    return b"".join(len(part.encode()).to_bytes(2, "big") + part.encode() for part in parts)
