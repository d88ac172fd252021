"""Who is asking: a client or operator by API key, or a user by session token. Both come as `Authorization: Bearer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.context import ApiContext, Context
from api.errors import ApiError, unavailable
from identity.errors import SessionsUnavailable, TokenExpired, TokenInvalid
from identity.tokens import SessionClaims
from store.api_keys import find_owner

# What changes nothing: while Redis is away, sessions may still do this much.
_READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Principal:
    """`user_id` and `session` are set for a session: then nothing of any other user exists for it."""

    account_id: str
    user_id: str | None
    operator: bool
    session: SessionClaims | None = None

    @property
    def name(self) -> str:
        """What idempotency keys are scoped to."""
        return self.user_id or self.account_id

    def may_see(self, user_id: str) -> bool:
        return self.user_id is None or self.user_id == user_id


_bearer = HTTPBearer(auto_error=False, description="An API key (`sk_…`) or a user's session token")


async def authenticate(
    request: Request,
    context: Context,
    _documented: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> Principal:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credentials:
        raise ApiError("api_key_missing", "Send an API key or session token as `Authorization: Bearer …`.")
    if credentials.startswith("sk_"):
        return await _by_api_key(context, credentials)
    return await _by_session(context, credentials, reading=request.method in _READING)


async def _by_api_key(context: ApiContext, key: str) -> Principal:
    async with context.reader.connect() as connection:
        owner = await find_owner(connection, key)
    if owner is None:
        raise ApiError("credentials_invalid", "The API key is not valid.")
    return Principal(owner.account_id, None, owner.role == "operator")


async def _by_session(context: ApiContext, token: str, *, reading: bool) -> Principal:
    try:
        claims = await context.identity.sessions.verify(token, reading=reading)
    except TokenExpired:
        raise ApiError("session_expired", "The session has expired.") from None
    except TokenInvalid:
        raise ApiError("credentials_invalid", "The session token is not valid.") from None
    except SessionsUnavailable:
        raise unavailable("register of sessions") from None
    return Principal(claims.account_id, claims.user_id, operator=False, session=claims)


Caller = Annotated[Principal, Depends(authenticate)]


async def _client(caller: Caller) -> Principal:
    if caller.user_id is not None:
        raise ApiError("permission_denied", "This needs an API key.")
    return caller


async def _operator(caller: Caller) -> Principal:
    if not caller.operator:
        raise ApiError("permission_denied", "This needs an operator's API key.")
    return caller


Client = Annotated[Principal, Depends(_client)]
Operator = Annotated[Principal, Depends(_operator)]
