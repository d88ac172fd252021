"""Users of an account, their sessions, in-app messages and push tokens."""

from __future__ import annotations

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import text

from api.auth import Caller, Client, Principal
from api.context import ApiContext, Context
from api.errors import missing
from api.idempotency import KeyHeader, reserve, store_answer
from api.limits import require_open
from api.routes.auth import session_object
from api.schemas.common import Page
from api.schemas.users import MessageObject, NewPushToken, NewUser, PushTokenObject, SessionObject, UserObject
from domain.errors import NotFound
from domain.ids import USER
from notify import inbox, push_tokens
from store.queries import Row, find_user

router = APIRouter(prefix="/v1", tags=["Users"])


@router.post("/users", status_code=201, response_model=UserObject, summary="Create a user")
async def create_user(
    body: NewUser, request: Request, context: Context, caller: Client, key: KeyHeader = None
) -> UserObject | Response:
    reservation = await reserve(context.reader, request, caller, key, USER, body.model_dump())
    if reservation.response is not None:
        return reservation.response
    async with context.engine.begin() as connection:
        await connection.execute(
            _INSERT_USER, {"id": reservation.resource_id, "account_id": caller.account_id, **body.model_dump()}
        )
        row = await find_user(connection, reservation.resource_id)
    assert row is not None
    user = user_object(row, context.settings.livemode)
    await store_answer(context.reader, reservation, 201, user.model_dump(mode="json"))
    return user


@router.get("/users/{user_id}", summary="Retrieve a user")
async def get_user(user_id: str, context: Context, caller: Caller) -> UserObject:
    return user_object(await visible_user(context, caller, user_id), context.settings.livemode)


@router.post("/users/{user_id}/sessions", status_code=201, summary="Create a session for a user")
async def create_session(user_id: str, context: Context, caller: Client) -> SessionObject:
    """A short-lived token with which the user's own device calls this API. Each call makes a new one."""
    await visible_user(context, caller, user_id)
    await require_open(context, user_id)
    # How the user proved who they are is the client's word: no method of RFC 8176 says so.
    opened = await context.identity.sessions.open(caller.account_id, user_id, ["client"])
    return session_object(opened)


@router.post("/users/{user_id}/push_tokens", status_code=201, summary="Register a device for push notifications")
async def register_push_token(user_id: str, body: NewPushToken, context: Context, caller: Caller) -> PushTokenObject:
    """Registering a token again changes nothing. One of a session that is bound to a device goes with that device."""
    await visible_user(context, caller, user_id)
    await require_open(context, user_id)
    device = await context.identity.devices.bound_to(caller.session.session_id) if caller.session else None
    device_id = device.id if device else None
    async with context.engine.begin() as connection:
        await push_tokens.register(connection, user_id, body.token, push_tokens.Platform(body.platform), device_id)
    return PushTokenObject(user=user_id, platform=body.platform)


@router.get("/users/{user_id}/messages", summary="List a user's in-app messages")
async def list_messages(
    user_id: str,
    context: Context,
    caller: Caller,
    limit: int = Query(default=10, ge=1, le=100),
    starting_after: str | None = None,
) -> Page[MessageObject]:
    await visible_user(context, caller, user_id)
    async with context.reader.connect() as connection:
        try:
            found = await inbox.list_messages(connection, user_id, limit, starting_after)
        except NotFound:
            raise missing("message", str(starting_after), "starting_after") from None
    data = [
        MessageObject(
            id=message.id,
            kind=message.kind,
            title=message.title,
            body=message.body,
            created=message.created_at,
            read_at=message.read_at,
        )
        for message in found.messages
    ]
    return Page(url=f"/v1/users/{user_id}/messages", has_more=found.has_more, data=data)


@router.post("/users/{user_id}/messages/{message_id}/read", status_code=204, summary="Mark a message as read")
async def mark_message_read(user_id: str, message_id: str, context: Context, caller: Caller) -> Response:
    await visible_user(context, caller, user_id)
    async with context.engine.begin() as connection:
        try:
            await inbox.mark_read(connection, user_id, message_id)
        except NotFound:
            raise missing("message", message_id) from None
    return Response(status_code=204)


async def visible_user(context: ApiContext, caller: Principal, user_id: str, param: str | None = None) -> Row:
    """The user, if the caller may know of it; otherwise it is missing, whether it exists or not."""
    async with context.reader.connect() as connection:
        row = await find_user(connection, user_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(user_id):
        raise missing("user", user_id, param)
    return row


def user_object(row: Row, livemode: bool) -> UserObject:
    return UserObject(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        phone=row["phone"],
        locale=row["locale"],
        livemode=livemode,
        created=row["created_at"],
    )


_INSERT_USER = text("""
INSERT INTO platform.users (id, account_id, name, email, phone, locale)
VALUES (:id, :account_id, :name, :email, :phone, :locale)
ON CONFLICT (id) DO NOTHING
""")
