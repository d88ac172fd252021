"""Proofs of possession of a device's key: small JWS that name what they are for.

A device registers with one that signs a challenge. Later ones go with single requests, in the manner of DPoP (RFC
9449): bound to method and address of the request, to the access token, and, which DPoP leaves out, to the body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from identity.key_errors import ProofRefused

REGISTRATION_TYPE = "device-registration+jwt"
REQUEST_TYPE = "dpop+jwt"
# Between the device's clock and ours, in both directions. A proof is remembered as long as it could be accepted.
TOLERANCE = timedelta(seconds=60)
_ALGORITHM = "ES256"
_LONGEST_PROOF = 4096
_LONGEST_JTI = 128


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """`point` is the uncompressed point, `thumbprint` the SHA-256 of RFC 7638."""

    key: EllipticCurvePublicKey
    point: bytes
    thumbprint: bytes


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as the server got it: `url` without query, `body` as its bytes, `access_token` None at sign-in."""

    method: str
    url: str
    body: bytes
    access_token: str | None


def possessed_key(proof: str, challenge: bytes, audience: str) -> DeviceKey:
    """The key in the header of a registration's proof, whose owner signed `challenge` for `audience`.

    Raises:
        ProofRefused
    """
    key, claims = _verified(proof, REGISTRATION_TYPE)
    if claims.get("aud") != audience:
        raise ProofRefused("it is for somebody else")
    if not _same(claims.get("challenge"), base64url(challenge)):
        raise ProofRefused("it signs another challenge")
    return key


def claimed_challenge(proof: str) -> bytes:
    """The challenge that a registration's proof says it signs; nothing is verified yet.

    Raises:
        ProofRefused
    """
    try:
        claims = jwt.decode(proof, options={"verify_signature": False})
        return _from_base64url(claims["challenge"])
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, binascii.Error):
        raise ProofRefused("it is malformed") from None


def verified_request(proof: str, request: SignedRequest) -> tuple[DeviceKey, str]:
    """The key that signed this very request, and the proof's id, which must not have been seen before.

    Raises:
        ProofRefused
    """
    key, claims = _verified(proof, REQUEST_TYPE)
    if claims.get("htm") != request.method:
        raise ProofRefused("`htm` is another method")
    if claims.get("htu") != request.url:
        raise ProofRefused("`htu` is another address")
    if not _same(claims.get("body_sha256"), base64url(hashlib.sha256(request.body).digest())):
        raise ProofRefused("`body_sha256` is of another body")
    if request.access_token is not None:
        digest = hashlib.sha256(request.access_token.encode()).digest()
        if not _same(claims.get("ath"), base64url(digest)):
            raise ProofRefused("`ath` is of another token")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 8 <= len(jti) <= _LONGEST_JTI:
        raise ProofRefused(f"`jti` must have 8 to {_LONGEST_JTI} characters")
    return key, jti


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _verified(proof: str, kind: str) -> tuple[DeviceKey, dict[str, Any]]:
    if len(proof) > _LONGEST_PROOF:
        raise ProofRefused("it is too long")
    try:
        header = jwt.get_unverified_header(proof)
        if header.get("typ") != kind or header.get("alg") != _ALGORITHM:
            raise ProofRefused(f"it must be of type {kind}, signed with {_ALGORITHM}")
        key = _device_key(header.get("jwk"))
        # `iat` is checked below, with a tolerance in both directions, and `aud` by whoever expects one.
        options: Any = {"verify_iat": False, "verify_aud": False, "require": ["iat"]}
        claims = jwt.decode(proof, key.key, algorithms=[_ALGORITHM], options=options)
    except jwt.InvalidSignatureError:
        raise ProofRefused("the signature is wrong") from None
    except jwt.InvalidTokenError:
        raise ProofRefused("it is malformed") from None
    issued_at = claims["iat"]
    if type(issued_at) is not int or abs(time.time() - issued_at) > TOLERANCE.total_seconds():
        raise ProofRefused("`iat` is not the present time")
    return key, claims


def _device_key(jwk: object) -> DeviceKey:
    """The public key of a JWK (RFC 7517, 7518 section 6.2); one with a private half is not taken."""
    if not isinstance(jwk, dict) or "d" in jwk or (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256"):
        raise ProofRefused("`jwk` must be a public P-256 key")
    try:
        x, y = (_from_base64url(jwk[name]) for name in ("x", "y"))
        if len(x) != 32 or len(y) != 32:
            raise ValueError("not 32 bytes")
        key = EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), SECP256R1()).public_key()
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ProofRefused("`jwk` is no point of P-256") from None
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return DeviceKey(key, point, thumbprint(x, y))


def thumbprint(x: bytes, y: bytes) -> bytes:
    content = {"crv": "P-256", "kty": "EC", "x": base64url(x), "y": base64url(y)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


def _from_base64url(value: str) -> bytes:
    if not isinstance(value, str):
        raise TypeError("not text")
    return base64.b64decode(value.encode() + b"=" * (-len(value) % 4), altchars=b"-_", validate=True)


def _same(given: object, wanted: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="surrogatepass"), wanted.encode())
