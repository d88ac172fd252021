"""Sessions: refreshed, listed, ended; and the keys by which others verify their tokens."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from api.auth import Caller, Principal, count_public
from api.context import ApiContext, Context
from api.errors import ApiError, missing, unavailable
from api.schemas.auth import KeySetObject, Refresh, SessionRecordObject
from api.schemas.common import Page
from api.schemas.users import SessionObject
from identity.errors import RefreshRefused, SessionsUnavailable
from identity.sessions import OpenSession, Revoked
from store.queries import find_user

router = APIRouter(tags=["Sessions"])


@router.get(
    "/.well-known/jwks.json", dependencies=[Depends(count_public)], summary="Retrieve the keys that sign session tokens"
)
async def get_keys(context: Context, response: Response) -> KeySetObject:
    """Whoever verifies session tokens elsewhere may keep a copy for five minutes. A key is here before it signs."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return KeySetObject(**(await context.identity.signing_keys.current()).as_jwks())


@router.post("/v1/sessions/refresh", dependencies=[Depends(count_public)], summary="Refresh a session")
async def refresh_session(body: Refresh, context: Context) -> SessionObject:
    """A new pair of tokens for a refresh token, which is then used up. One that is used twice ends its session."""
    try:
        return session_object(await context.identity.sessions.refresh(body.refresh_token))
    except RefreshRefused:
        raise ApiError("refresh_token_invalid", "The refresh token is not valid; sign in again.") from None
    except SessionsUnavailable:
        raise unavailable("register of sessions") from None


@router.post("/v1/sessions/sign_out", status_code=204, summary="Sign out")
async def sign_out(context: Context, caller: Caller) -> Response:
    """Ends the session that asks. Its tokens open nothing from then on."""
    if caller.session is None:
        raise ApiError("permission_denied", "This needs a user's session.")
    await _end(context, caller.session.user_id, caller.session.session_id, Revoked.SIGNED_OUT)
    return Response(status_code=204)


@router.get("/v1/users/{user_id}/sessions", summary="List a user's sessions")
async def list_sessions(user_id: str, context: Context, caller: Caller) -> Page[SessionRecordObject]:
    """All that have not ended, newest first."""
    await _require_user(context, caller, user_id)
    asking = caller.session.session_id if caller.session else None
    data = [
        SessionRecordObject(
            id=session.id,
            user=session.user_id,
            methods=list(session.amr),
            device=session.device_id,
            device_name=session.device_name,
            authenticated_at=session.authenticated_at,
            created=session.created_at,
            refreshed_at=session.refreshed_at,
            expires_at=session.expires_at,
            current=session.id == asking,
        )
        for session in await context.identity.sessions.list_open(user_id)
    ]
    return Page(url=f"/v1/users/{user_id}/sessions", has_more=False, data=data)


@router.delete("/v1/users/{user_id}/sessions/{session_id}", status_code=204, summary="End a session")
async def end_session(user_id: str, session_id: str, context: Context, caller: Caller) -> Response:
    await _require_user(context, caller, user_id)
    if not await _end(context, user_id, session_id, _reason(caller)):
        raise missing("session", session_id)
    return Response(status_code=204)


@router.delete("/v1/users/{user_id}/sessions", status_code=204, summary="End all sessions of a user")
async def end_sessions(user_id: str, context: Context, caller: Caller) -> Response:
    """The one that asks, too."""
    await _require_user(context, caller, user_id)
    try:
        await context.identity.sessions.revoke_all(user_id, _reason(caller))
    except SessionsUnavailable:
        raise unavailable("register of sessions") from None
    return Response(status_code=204)


def session_object(opened: OpenSession) -> SessionObject:
    return SessionObject(
        id=opened.id,
        user=opened.user_id,
        token=opened.access_token,
        expires_at=opened.access_expires_at,
        refresh_token=opened.refresh_token,
        refresh_expires_at=opened.refresh_expires_at,
    )


async def _end(context: ApiContext, user_id: str, session_id: str, reason: Revoked) -> bool:
    try:
        return await context.identity.sessions.revoke(user_id, session_id, reason)
    except SessionsUnavailable:
        # It has ended in the database. Whoever asks again is told so once it counts everywhere.
        raise unavailable("register of sessions") from None


def _reason(caller: Principal) -> Revoked:
    return Revoked.BY_CLIENT if caller.user_id is None else Revoked.BY_USER


async def _require_user(context: ApiContext, caller: Principal, user_id: str) -> None:
    async with context.reader.connect() as connection:
        row = await find_user(connection, user_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(user_id):
        raise missing("user", user_id)
