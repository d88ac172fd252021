"""Session tokens of users: JWT (RFC 7519) signed with ES256, short-lived, for one audience."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from domain.ids import SESSION, new_id

_ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class IssuedSession:
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionClaims:
    account_id: str
    user_id: str


class SessionTokens:
    """Issues and checks session tokens under one P-256 key (PEM); `kid` names the key.

    Raises:
        ValueError: the key is not an EC key on P-256.
    """

    def __init__(self, private_key_pem: bytes, issuer: str, audience: str, lifetime_seconds: int) -> None:
        key = load_pem_private_key(private_key_pem, password=None)
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("session tokens are signed with an EC key on P-256")
        self._private_key = key
        self._public_key = key.public_key()
        spki = self._public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._key_id = hashlib.sha256(spki).hexdigest()[:16]
        self._issuer = issuer
        self._audience = audience
        self._lifetime = timedelta(seconds=lifetime_seconds)

    def issue(self, account_id: str, user_id: str) -> IssuedSession:
        now = datetime.now(UTC)
        expires_at = now + self._lifetime
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "acct": account_id,
            "iat": now,
            "exp": expires_at,
            "jti": new_id(SESSION),
        }
        return IssuedSession(
            jwt.encode(claims, self._private_key, algorithm=_ALGORITHM, headers={"kid": self._key_id}), expires_at
        )

    def verify(self, token: str) -> SessionClaims:
        """The claims of a valid token.

        Raises:
            jwt.ExpiredSignatureError: it was valid once.
            jwt.InvalidTokenError: anything else is wrong with it.
        """
        header = jwt.get_unverified_header(token)
        if header.get("kid") != self._key_id:
            raise jwt.InvalidTokenError("unknown key id")
        claims = jwt.decode(
            token,
            self._public_key,
            algorithms=[_ALGORITHM],
            audience=self._audience,
            issuer=self._issuer,
            options={"require": ["exp", "iat", "sub", "acct", "aud", "iss"]},
        )
        return SessionClaims(account_id=str(claims["acct"]), user_id=str(claims["sub"]))
