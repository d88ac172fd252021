"""Access tokens of sessions: JWT (RFC 7519) signed with ES256, short-lived, for one audience (RFC 8725)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from domain.ids import SESSION_TOKEN, new_id
from identity.errors import TokenExpired, TokenInvalid
from identity.signing_keys import KeySet, SigningKeys

_ALGORITHM = "ES256"
_REQUIRED = ("iss", "aud", "sub", "acct", "sid", "jti", "iat", "exp", "amr", "auth_time")
# A token is a few hundred bytes; what is much longer is not worth decoding.
_LONGEST_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class AccessToken:
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """Whose session it is. `amr` says how the user proved who they are (RFC 8176), `authenticated_at` when."""

    account_id: str
    user_id: str
    session_id: str
    amr: tuple[str, ...]
    authenticated_at: datetime


class AccessTokens:
    """Issues and checks access tokens of `issuer` for `audience` that live for `lifetime`."""

    def __init__(self, keys: SigningKeys, issuer: str, audience: str, lifetime: timedelta) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime

    async def issue(self, claims: SessionClaims) -> AccessToken:
        known = await self._keys.current()
        now = datetime.now(UTC)
        content = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": claims.user_id,
            "acct": claims.account_id,
            "sid": claims.session_id,
            "jti": new_id(SESSION_TOKEN),
            "iat": now,
            "exp": now + self._lifetime,
            "amr": list(claims.amr),
            "auth_time": int(claims.authenticated_at.timestamp()),
        }
        headers = {"kid": known.active_id}
        return AccessToken(jwt.encode(content, known.active, _ALGORITHM, headers), now + self._lifetime)

    async def verify(self, token: str) -> SessionClaims:
        """The claims of a token that is signed properly and lives. Whether its session does too is not looked at.

        Raises:
            TokenExpired: it was valid once.
            TokenInvalid: anything else is wrong with it.
        """
        if len(token) > _LONGEST_TOKEN:
            raise TokenInvalid("too long")
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            if not isinstance(key_id, str):
                raise TokenInvalid("no key id")
            return self._claims(token, key_id, await self._keys.knowing(key_id))
        except jwt.ExpiredSignatureError:
            raise TokenExpired("expired") from None
        except jwt.InvalidTokenError:
            raise TokenInvalid("not valid") from None

    def _claims(self, token: str, key_id: str, known: KeySet) -> SessionClaims:
        # The algorithm is ours to say and the key's, never the token's (RFC 8725 section 3.1).
        if key_id not in known.trusted:
            raise TokenInvalid("unknown key id")
        content: dict[str, Any] = jwt.decode(
            token,
            known.trusted[key_id],
            algorithms=[_ALGORITHM],
            audience=self._audience,
            issuer=self._issuer,
            options={"require": list(_REQUIRED)},
        )
        texts = [content[name] for name in ("acct", "sub", "sid")]
        amr, authenticated_at = content["amr"], content["auth_time"]
        if (
            not all(isinstance(value, str) for value in texts)
            or not isinstance(amr, list)
            or not all(isinstance(method, str) for method in amr)
            or type(authenticated_at) is not int
        ):
            raise TokenInvalid("a claim has the wrong type")
        try:
            when = datetime.fromtimestamp(authenticated_at, UTC)
        except (OSError, OverflowError, ValueError):
            raise TokenInvalid("no such time") from None
        return SessionClaims(texts[0], texts[1], texts[2], tuple(amr), when)
