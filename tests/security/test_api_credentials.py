"""Who gets in: keys and session tokens, forged in every usual way."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from config.settings import ApiSettings
from identity.keys import SIGNING_KEYS, derived
from identity.signing_keys import KeySet, SigningKeys
from tests.support.platform import Access
from tests.support.shop import Json, Shop, http_client

ISSUER = ApiSettings.model_fields["jwt_issuer"].default
AUDIENCE = ApiSettings.model_fields["jwt_audience"].default


class Forge:
    """Makes session tokens as the API does, and wrong ones."""

    def __init__(self, keys: KeySet, account_id: str, session: Json) -> None:
        self.key = keys.active
        self.key_id = keys.active_id
        self.public_pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        now = datetime.now(UTC)
        self.claims: Json = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": session["user"],
            "acct": account_id,
            "sid": session["id"],
            "jti": "jwt_forged",
            "amr": ["client"],
            "auth_time": int(now.timestamp()),
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=5)).timestamp()),
        }

    def token(self, *, key: Any = None, headers: Json | None = None, without: str = "", **claims: Any) -> str:
        content = {name: value for name, value in (self.claims | claims).items() if name != without}
        return jwt.encode(content, key or self.key, algorithm="ES256", headers={"kid": self.key_id} | (headers or {}))

    def by_hand(self, header: Json, sign: Any) -> str:
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, self.claims))
        return f"{signed}.{_encoded(sign(signed.encode()))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
async def forge(platform: Access, database: AsyncEngine, shop: Shop) -> Forge:
    """What somebody could do who knows the API's secret and reads its database."""
    user = await shop.add_user()
    session = (await shop.post(f"/v1/users/{user['id']}/sessions")).json()
    secret = derived(base64.b64decode(platform.secret("identity_secret")), SIGNING_KEYS)
    long = timedelta(days=30)
    keys = SigningKeys(database, secret, token_lifetime=long, rotate_after=long)
    return Forge(await keys.current(), shop.account_id, session)


FORGERIES: dict[str, Any] = {
    "no algorithm": lambda f: f.by_hand({"alg": "none", "typ": "JWT", "kid": f.key_id}, lambda _: b""),
    "no algorithm, spelt otherwise": lambda f: f.by_hand({"alg": "nOnE", "kid": f.key_id}, lambda _: b""),
    "signed with the public key as a password": lambda f: f.by_hand(
        {"alg": "HS256", "kid": f.key_id}, lambda signed: hmac.digest(f.public_pem, signed, "sha256")
    ),
    "signed by somebody else": lambda f: f.token(key=ec.generate_private_key(ec.SECP256R1())),
    "of an unknown key": lambda f: f.token(headers={"kid": "0123456789abcdef"}),
    "of a key that is a file": lambda f: f.token(headers={"kid": "../../dev/null"}),
    "without a key id": lambda f: jwt.encode(f.claims, f.key, algorithm="ES256"),
    "with a key id that is a number": lambda f: f.by_hand({"alg": "ES256", "kid": 7}, lambda _: b"x" * 64),
    "with a key of its own": lambda f: f.by_hand(
        {"alg": "ES256", "jwk": {"kty": "EC"}, "kid": "x"}, lambda _: b"x" * 64
    ),
    "with an unknown critical extension": lambda f: f.token(headers={"crit": ["exp2"], "exp2": 1}),
    "for another audience": lambda f: f.token(aud="another-api"),
    "for no audience": lambda f: f.token(without="aud"),
    "of another issuer": lambda f: f.token(iss="https://evil.example"),
    "of no issuer": lambda f: f.token(without="iss"),
    "for nobody": lambda f: f.token(without="sub"),
    "for no account": lambda f: f.token(without="acct"),
    "of no session": lambda f: f.token(without="sid"),
    "of a session that is a list": lambda f: f.token(sid=["ses_1"]),
    "without a name of its own": lambda f: f.token(without="jti"),
    "that says not how": lambda f: f.token(without="amr"),
    "that says it in one word": lambda f: f.token(amr="pwd"),
    "that says not when": lambda f: f.token(without="auth_time"),
    "of the end of time": lambda f: f.token(auth_time=10**18),
    "longer than any": lambda f: f.token(amr=["x" * 5000]),
    "that never expires": lambda f: f.token(without="exp"),
    "that is not valid yet": lambda f: f.token(nbf=f.claims["exp"]),
    "issued in the future": lambda f: f.token(iat=f.claims["exp"]),
    "with a changed claim": lambda f: _with_claims(f.token(), f.claims | {"acct": "acct_other"}),
    "cut short": lambda f: f.token()[:-10],
    "with an empty signature": lambda f: f.token().rpartition(".")[0] + ".",
    "with a signature of zeros": lambda f: f"{f.token().rpartition('.')[0]}.{_encoded(bytes(64))}",
    "that is no JSON": lambda _: f"{_encoded(b'not json')}.{_encoded(b'{}')}.{_encoded(b'x')}",
    "that is a list": lambda _: f"{_encoded(b'[]')}.{_encoded(b'[]')}.{_encoded(b'x')}",
    "that is nothing": lambda _: "eyJ..",
}


def _with_claims(token: str, claims: Json) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{_encoded(json.dumps(claims).encode())}.{signature}"


async def _get(platform: Access, token: str | None) -> httpx.Response:
    async with http_client(platform, token) as client:
        return await client.get("/v1/payments")


def _check_refused(response: httpx.Response, code: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (401, "authentication_error", code)


async def test_a_proper_token_opens_the_door(platform: Access, forge: Forge) -> None:
    """Without this the refusals below would prove nothing."""
    response = await _get(platform, forge.token())
    assert (response.status_code, response.json()["data"]) == (200, [])


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_is_refused(platform: Access, forge: Forge, name: str) -> None:
    _check_refused(await _get(platform, FORGERIES[name](forge)), "credentials_invalid")


async def test_an_expired_token_says_so(platform: Access, forge: Forge) -> None:
    past = datetime.now(UTC) - timedelta(seconds=5)
    _check_refused(await _get(platform, forge.token(exp=int(past.timestamp()))), "session_expired")


async def test_a_token_for_a_user_of_another_account_sees_nothing(platform: Access, forge: Forge, shop: Shop) -> None:
    async with http_client(platform, forge.token(acct="acct_other")) as client:
        response = await client.get(f"/v1/users/{forge.claims['sub']}")
    assert response.status_code == 404


async def test_without_credentials_nobody_gets_in(platform: Access, shop: Shop) -> None:
    _check_refused(await _get(platform, None), "api_key_missing")
    async with http_client(platform, None) as client:
        for header in ("Bearer", "Bearer ", f"Basic {shop.key}", shop.key, "bearer"):
            response = await client.get("/v1/payments", headers={"Authorization": header.strip()})
            _check_refused(response, "api_key_missing")
        response = await client.get("/v1/payments", params={"api_key": shop.key})
        assert (response.status_code, response.json()["error"]["code"]) == (422, "parameter_unknown")


async def test_a_forged_or_revoked_key_is_refused(platform: Access, database: AsyncEngine, shop: Shop) -> None:
    key = shop.key
    changed = "A" if key[-1] != "A" else "B"
    forged = (
        key[:-1] + changed,
        key[:-1],
        key + "x",
        f"sk_live_{key[8:40]}{'x' * 35}",
        "sk_test_",
        "sk_test_ " + key[8:],
    )
    for wrong in forged:
        _check_refused(await _get(platform, wrong), "credentials_invalid")

    revoked = await Shop.open(platform, database)
    assert (await _get(platform, revoked.key)).status_code == 200
    async with database.begin() as connection:
        statement = text("UPDATE platform.api_keys SET revoked_at = now() WHERE account_id = :id")
        await connection.execute(statement, {"id": revoked.account_id})
    _check_refused(await _get(platform, revoked.key), "credentials_invalid")
    await revoked.http.aclose()


async def test_an_operators_session_is_no_operator(platform: Access, database: AsyncEngine) -> None:
    operator = await Shop.open(platform, database, operator=True)
    wallet = await operator.wallet()
    payment = await operator.authorized(wallet.card_id)
    token = (await operator.post(f"/v1/users/{wallet.user_id}/sessions")).json()["token"]
    session = Shop(http_client(platform, token), operator.account_id, token)
    decision = {"operator": "grace", "approve": True, "reason": "mine"}
    response = await session.post(f"/v1/payments/{payment['id']}/review", decision)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
    await session.http.aclose()
    await operator.http.aclose()
