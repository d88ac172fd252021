"""One secret for identities, and a key of its own for each use (HKDF-SHA256, RFC 5869)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SIGNING_KEYS = "signing keys"
REFRESH_TOKENS = "refresh tokens"
LOCKS = "locks"


def derived(secret: bytes, use: str) -> bytes:
    """The 32 bytes that `use` has of `secret`."""
    return HKDF(SHA256(), 32, salt=None, info=f"durapay identity {use}".encode()).derive(secret)
