"""The keys under which session tokens are signed (ES256, RFC 7518 section 3.4), and their rotation.

There is one `active` key, and a `next` one that is published before it signs, so that whoever keeps a copy of the key
set knows it by then. A retired key's private half is destroyed at once; its public half is trusted until the last
token that it signed has expired. Private halves are AES-256-GCM ciphertext under a key that the database has not.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_NONCE_BYTES = 12  # NIST SP 800-38D section 5.2.1.1
# How long a process goes by what it read. A key is published for as long before it signs, and trusted after it.
CACHE_SECONDS = 30.0
# A token that names an unknown key makes the process look, and an attacker must not make it look all the time.
_LEAST_SECONDS_BETWEEN_LOOKS = 1.0
_LOCK = 0x6475726170617901  # an advisory lock of this module's own


@dataclass(frozen=True, slots=True)
class KeySet:
    """What a process knows: whose signatures count (by key id), and what it signs with."""

    trusted: Mapping[str, EllipticCurvePublicKey]
    active_id: str
    active: EllipticCurvePrivateKey = field(repr=False)

    def as_jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves as a JSON Web Key Set (RFC 7517)."""
        return {"keys": [_jwk(key_id, key) for key_id, key in sorted(self.trusted.items())]}


class SigningKeys:
    """Keeps the keys in the database and a copy here.

    `key` (32 bytes) encrypts private halves; `token_lifetime` is how long a token lives at most; a key signs for
    `rotate_after` and is then followed by the next one, whichever process notices first.
    """

    def __init__(self, engine: AsyncEngine, key: bytes, *, token_lifetime: timedelta, rotate_after: timedelta) -> None:
        self._engine = engine
        self._cipher = AESGCM(key)
        # Another process may sign with the old key until it looks again.
        self._trusted_for = token_lifetime + timedelta(seconds=2 * CACHE_SECONDS)
        self._rotate_after = rotate_after
        self._known: KeySet | None = None
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def current(self) -> KeySet:
        """The keys, read again when the copy is older than `CACHE_SECONDS`. Makes the first ones."""
        known = self._known
        if known is not None and time.monotonic() - self._looked_at < CACHE_SECONDS:
            return known
        return await self._look(CACHE_SECONDS)

    async def knowing(self, key_id: str) -> KeySet:
        """The keys, read again if `key_id` is not among them: another process may have made it just now."""
        known = await self.current()
        return known if key_id in known.trusted else await self._look(_LEAST_SECONDS_BETWEEN_LOOKS)

    async def rotate(self, *, distrust: bool = False) -> KeySet:
        """The next key signs from now on. `distrust`: what the old one signed counts no more, which ends its tokens."""
        async with self._engine.begin() as connection:
            await connection.execute(_TAKE_LOCK, {"lock": _LOCK})
            await self._advance(connection, timedelta() if distrust else self._trusted_for)
        return await self._look(0.0)

    async def _look(self, oldest_seconds: float) -> KeySet:
        async with self._looking:
            if self._known is not None and time.monotonic() - self._looked_at < oldest_seconds:
                return self._known
            self._known = await self._read()
            self._looked_at = time.monotonic()
            return self._known

    async def _read(self) -> KeySet:
        async with self._engine.begin() as connection:
            rows = (await connection.execute(_TRUSTED, {"age": self._rotate_after})).all()
            if not any(row.state == "active" and not row.is_old for row in rows):
                await connection.execute(_TAKE_LOCK, {"lock": _LOCK})
                rows = (await connection.execute(_TRUSTED, {"age": self._rotate_after})).all()
                if not any(row.state == "active" and not row.is_old for row in rows):
                    await self._advance(connection, self._trusted_for)
                    rows = (await connection.execute(_TRUSTED, {"age": self._rotate_after})).all()
        active = next(row for row in rows if row.state == "active")
        return KeySet(
            trusted={row.id: _public(bytes(row.public_key)) for row in rows},
            active_id=active.id,
            active=self._opened(active.id, bytes(active.sealed_private_key)),
        )

    async def _advance(self, connection: AsyncConnection, trusted_for: timedelta) -> None:
        await connection.execute(_RETIRE, {"trusted_for": trusted_for})
        activated = await connection.execute(_ACTIVATE)
        if activated.rowcount == 0:
            await self._insert(connection)
            await connection.execute(_ACTIVATE)
        await self._insert(connection)

    async def _insert(self, connection: AsyncConnection) -> None:
        key = generate_private_key(SECP256R1())
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key_id = hashlib.sha256(public).hexdigest()[:16]
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, raw, key_id.encode())
        await connection.execute(_INSERT, {"id": key_id, "public_key": public, "sealed": sealed})

    def _opened(self, key_id: str, sealed: bytes) -> EllipticCurvePrivateKey:
        raw = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key_id.encode())
        key = load_der_private_key(raw, password=None)
        assert isinstance(key, EllipticCurvePrivateKey)
        return key


def _public(der: bytes) -> EllipticCurvePublicKey:
    key = load_der_public_key(der)
    assert isinstance(key, EllipticCurvePublicKey)
    return key


def _jwk(key_id: str, key: EllipticCurvePublicKey) -> dict[str, str]:
    point = key.public_numbers()
    x, y = (_base64url(value.to_bytes(32, "big")) for value in (point.x, point.y))
    return {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key_id, "x": x, "y": y}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_TAKE_LOCK = text("SELECT pg_advisory_xact_lock(:lock)")

_TRUSTED = text("""
SELECT id, state, public_key, sealed_private_key, activated_at < now() - CAST(:age AS interval) AS is_old
FROM identity.signing_keys WHERE state <> 'retired' OR trusted_until > now()
""")

_RETIRE = text("""
UPDATE identity.signing_keys
SET state = 'retired', sealed_private_key = NULL, trusted_until = now() + CAST(:trusted_for AS interval)
WHERE state = 'active'
""")

_ACTIVATE = text("UPDATE identity.signing_keys SET state = 'active', activated_at = now() WHERE state = 'next'")

_INSERT = text("""
INSERT INTO identity.signing_keys (id, state, public_key, sealed_private_key)
VALUES (:id, 'next', :public_key, :sealed)
""")
