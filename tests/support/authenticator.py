"""An authenticator and a device, made of keys in memory: what a phone's secure hardware does, and what it never would.

The answers are made after WebAuthn Level 3, section 6 (authenticator data) and section 5.8.1 (client data).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import cbor2
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from identity.proofs import REGISTRATION_TYPE, REQUEST_TYPE, base64url
from tests.support.shop import Json

ORIGIN = "http://localhost:8000"
_PRESENT, _VERIFIED, _ELIGIBLE, _BACKED_UP, _ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40


@dataclass(slots=True)
class Authenticator:
    """One credential. `count` is its counter; a synced passkey's stays zero."""

    origin: str = ORIGIN
    rp_id: str = "localhost"
    count: int = 0
    counts: bool = True
    synced: bool = False
    verifies_user: bool = True
    user_handle: str | None = None
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def make(self, options: Json, **changed: Any) -> Json:
        """RegistrationResponseJSON for creation options."""
        self.user_handle = options["user"]["id"]
        client_data = self._client_data("webauthn.create", options["challenge"], **changed)
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + self._cose_key()
        data = self._data(_ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        response = {
            "clientDataJSON": base64url(client_data),
            "attestationObject": base64url(attestation),
            "transports": ["internal", "hybrid"],
        }
        return self._credential(response)

    def sign(self, options: Json, **changed: Any) -> Json:
        """AuthenticationResponseJSON for request options."""
        if self.counts:
            self.count += 1
        client_data = self._client_data("webauthn.get", options["challenge"], **changed)
        data = self._data(0)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(SHA256()))
        response = {
            "clientDataJSON": base64url(client_data),
            "authenticatorData": base64url(data),
            "signature": base64url(signature),
            "userHandle": self.user_handle,
        }
        return self._credential(response)

    def _client_data(self, kind: str, challenge: str, /, **changed: Any) -> bytes:
        content = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(content | changed).encode()

    def _data(self, flags: int) -> bytes:
        flags |= _PRESENT | (_VERIFIED if self.verifies_user else 0) | (_ELIGIBLE | _BACKED_UP if self.synced else 0)
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big")

    def _cose_key(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})

    def _credential(self, response: Json) -> Json:
        identifier = base64url(self.credential_id)
        return {
            "id": identifier,
            "rawId": identifier,
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }


@dataclass(slots=True)
class Handset:
    """A device with a key that signs requests."""

    origin: str = ORIGIN
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def register(self, challenge: str, audience: str, **claims: Any) -> str:
        content = {"challenge": challenge, "aud": audience, "iat": int(time.time())}
        return self._signed(REGISTRATION_TYPE, content | claims)

    def prove(self, method: str, path: str, body: bytes, token: str | None = None, **claims: Any) -> str:
        content = {
            "htm": method,
            "htu": self.origin + path,
            "iat": int(time.time()),
            "jti": secrets.token_hex(16),
            "body_sha256": base64url(hashlib.sha256(body).digest()),
        }
        if token is not None:
            content["ath"] = base64url(hashlib.sha256(token.encode()).digest())
        return self._signed(REQUEST_TYPE, content | claims)

    @property
    def jwk(self) -> Json:
        numbers = self.key.public_key().public_numbers()
        x, y = (base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}

    def _signed(self, kind: str, claims: Json) -> str:
        return jwt.encode(claims, self.key, "ES256", {"typ": kind, "jwk": self.jwk})
