"""Who is asking: a client or operator by API key, or a user by session token. Both come as `Authorization: Bearer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.context import ApiContext, Context
from api.errors import ApiError, unavailable
from api.scopes import Access, Need, need_of
from domain.scopes import Scope
from identity.errors import SessionsUnavailable, TokenExpired, TokenInvalid
from identity.tokens import SessionClaims
from store.api_keys import find_owner

# What changes nothing: while Redis is away, sessions may still do this much.
_READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Principal:
    """`user_id` and `session` are set for a session: then nothing of any other user exists for it.

    Otherwise it is a key: `publishable` ones are in every copy of an app; `scopes` None is all that the role may do.
    """

    account_id: str
    user_id: str | None
    operator: bool
    session: SessionClaims | None = None
    key_id: str | None = None
    publishable: bool = False
    scopes: frozenset[Scope] | None = None

    @property
    def name(self) -> str:
        """What idempotency keys are scoped to."""
        return self.user_id or self.account_id

    @property
    def is_backend(self) -> bool:
        """Whether it is a client's own server: all of its users come from there."""
        return self.user_id is None and not self.publishable

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
    need = _need(request)
    try:
        if credentials.startswith(("sk_", "pk_")):
            caller = await _by_api_key(context, credentials)
        else:
            caller = await _by_session(context, credentials, reading=request.method in _READING)
    except ApiError as refused:
        if refused.code == "credentials_invalid":
            request.state.rate_limit = await context.limits.take_refusal(client_address(request))
        raise
    request.state.rate_limit = await context.limits.take(
        need.rate_class,
        key=caller.key_id,
        user=caller.user_id,
        address=None if caller.is_backend else client_address(request),
    )
    _permit(need, caller)
    return caller


async def count_public(request: Request, context: Context) -> None:
    """What a route without credentials depends on instead."""
    rate_class = _need(request).rate_class
    request.state.rate_limit = await context.limits.take(rate_class, address=client_address(request))


def client_address(request: Request) -> str:
    """Where the request comes from, as far as the gateway can be trusted (`DURAPAY_API_TRUSTED_PROXIES`)."""
    return request.client.host if request.client else "unknown"


def _need(request: Request) -> Need:
    route = request.scope.get("route")
    assert isinstance(route, APIRoute), "dependencies run on routes alone"
    return need_of(request.method, route.path, route.tags)


async def _by_api_key(context: ApiContext, key: str) -> Principal:
    async with context.reader.connect() as connection:
        owner = await find_owner(connection, key)
    if owner is None:
        raise ApiError("credentials_invalid", "The API key is not valid.")
    return Principal(
        owner.account_id,
        None,
        owner.role == "operator",
        key_id=owner.key_id,
        publishable=owner.publishable,
        scopes=owner.scopes,
    )


def _permit(need: Need, caller: Principal) -> None:
    """
    Raises:
        ApiError: the key is not for this route.
    """
    if caller.publishable:
        if need.access is not Access.APP:
            raise ApiError("permission_denied", "A publishable key may not do this.")
    elif caller.scopes is not None and need.scope not in caller.scopes:
        raise ApiError("permission_denied", f"The key lacks the scope {need.scope or 'of this route'}.")


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


async def _app(caller: Caller) -> Principal:
    if caller.user_id is not None:
        raise ApiError("permission_denied", "This needs an API key, publishable or secret.")
    return caller


Client = Annotated[Principal, Depends(_client)]
Operator = Annotated[Principal, Depends(_operator)]
App = Annotated[Principal, Depends(_app)]
