"""Proofs of a device's key: each is good for one request, one moment and one key."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identity.key_errors import ProofRefused
from identity.proofs import REQUEST_TYPE, SignedRequest, base64url, possessed_key, thumbprint, verified_request
from tests.support.authenticator import ORIGIN, Handset

BODY = b'{"amount_minor": 1050}'
TOKEN = "header.payload.signature"
REQUEST = SignedRequest("POST", f"{ORIGIN}/v1/payments", BODY, TOKEN)
CHALLENGE = bytes(range(32))


def _proof(handset: Handset, **claims: Any) -> str:
    return handset.prove("POST", "/v1/payments", BODY, TOKEN, **claims)


def test_a_proof_of_this_request_names_the_key_that_signed_it() -> None:
    handset = Handset()
    key, jti = verified_request(_proof(handset, jti="a-unique-name"), REQUEST)
    x, y = (base64.urlsafe_b64decode(handset.jwk[name] + "=") for name in ("x", "y"))
    assert (key.thumbprint, jti) == (thumbprint(x, y), "a-unique-name")


def test_a_thumbprint_is_that_of_the_rfc() -> None:
    # The example of RFC 7638 is an RSA key; this one is the P-256 key of RFC 7517, appendix A.1.
    x, y = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
    raw = [base64.urlsafe_b64decode(value + "=") for value in (x, y)]
    assert base64url(thumbprint(*raw)) == "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"


@pytest.mark.parametrize(
    "request_",
    [
        SignedRequest("DELETE", REQUEST.url, BODY, TOKEN),
        SignedRequest("POST", f"{ORIGIN}/v1/payments/pay_1/refunds", BODY, TOKEN),
        SignedRequest("POST", "https://elsewhere.example/v1/payments", BODY, TOKEN),
        SignedRequest("POST", REQUEST.url, BODY.replace(b"1050", b"9050"), TOKEN),
        SignedRequest("POST", REQUEST.url, BODY, "another.token.yet"),
    ],
    ids=["method", "path", "host", "body", "token"],
)
def test_a_proof_is_of_no_other_request(request_: SignedRequest) -> None:
    with pytest.raises(ProofRefused):
        verified_request(_proof(Handset()), request_)


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": int(time.time()) - 120},
        {"iat": int(time.time()) + 120},
        {"iat": "now"},
        {"iat": None},
        {"jti": ""},
        {"jti": 12345678},
        {"jti": "x" * 200},
        {"htm": None},
        {"ath": 7},
        {"body_sha256": ["x"]},
        {"body_sha256": "\ud800"},
    ],
)
def test_a_proof_with_a_bad_claim_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(ProofRefused):
        verified_request(_proof(Handset(), **claims), REQUEST)


def test_a_proof_is_signed_by_the_key_in_its_header() -> None:
    mine, other = Handset(), Handset()
    claims = jwt.decode(_proof(mine), options={"verify_signature": False})
    forged = jwt.encode(claims, mine.key, "ES256", {"typ": REQUEST_TYPE, "jwk": other.jwk})
    with pytest.raises(ProofRefused, match="signature"):
        verified_request(forged, REQUEST)


def test_no_algorithm_but_es256_and_no_key_but_a_public_one_on_p_256_is_taken() -> None:
    handset = Handset()
    claims = jwt.decode(_proof(handset), options={"verify_signature": False})
    wide = ec.generate_private_key(ec.SECP384R1())
    private = handset.jwk | {"d": "AAAA"}
    off_the_curve = handset.jwk | {"x": base64url(bytes(31) + b"\1")}
    for forged in (
        jwt.encode(claims, "", "none", {"typ": REQUEST_TYPE, "jwk": handset.jwk}),
        jwt.encode(claims, "s" * 64, "HS256", {"typ": REQUEST_TYPE, "jwk": handset.jwk}),
        jwt.encode(claims, wide, "ES384", {"typ": REQUEST_TYPE, "jwk": handset.jwk}),
        jwt.encode(claims, handset.key, "ES256", {"typ": REQUEST_TYPE, "jwk": private}),
        jwt.encode(claims, handset.key, "ES256", {"typ": REQUEST_TYPE, "jwk": off_the_curve}),
        jwt.encode(claims, handset.key, "ES256", {"typ": REQUEST_TYPE}),
        jwt.encode(claims, handset.key, "ES256", {"typ": "JWT", "jwk": handset.jwk}),
        "no.proof.atall",
        "x" * 5000,
    ):
        with pytest.raises(ProofRefused):
            verified_request(forged, REQUEST)


def test_a_registration_proves_the_key_for_this_challenge_and_this_platform() -> None:
    handset = Handset()
    proof = handset.register(base64url(CHALLENGE), ORIGIN)
    assert possessed_key(proof, CHALLENGE, ORIGIN).point[0] == 4
    for challenge, audience in ((bytes(32), ORIGIN), (CHALLENGE, "https://elsewhere.example")):
        with pytest.raises(ProofRefused):
            possessed_key(proof, challenge, audience)
    with pytest.raises(ProofRefused, match="type"):
        possessed_key(_proof(handset, challenge=base64url(CHALLENGE), aud=ORIGIN), CHALLENGE, ORIGIN)
