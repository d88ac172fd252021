"""The in-app inbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import NotFound
from notify.messages import Outgoing
from store.models.notify import InboxMessage

_MESSAGE = "message"
_COLUMNS = (
    InboxMessage.id,
    InboxMessage.kind,
    InboxMessage.title,
    InboxMessage.body,
    InboxMessage.created_at,
    InboxMessage.read_at,
)


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is `msg_…`; times are UTC; `read_at` is None until the user has read it."""

    id: str
    kind: str
    title: str = field(repr=False)
    body: str = field(repr=False)
    created_at: datetime
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first. `has_more` says whether older ones follow."""

    messages: tuple[Message, ...]
    has_more: bool


async def put(connection: AsyncConnection, message: Outgoing) -> None:
    """Adds a message; one that is there already stays as it is."""
    statement = insert(InboxMessage).values(
        id=message.message_id,
        user_id=message.user_id,
        kind=message.kind.value,
        title=message.content.title,
        body=message.content.body,
    )
    await connection.execute(statement.on_conflict_do_nothing(index_elements=[InboxMessage.id]))


async def list_messages(
    connection: AsyncConnection, user_id: str, limit: int = 10, starting_after: str | None = None
) -> Page:
    """At most `limit` of the user's messages, newest first, older than the message `starting_after`.

    Raises:
        NotFound: the user has no message `starting_after`.
    """
    query = (
        select(*_COLUMNS)
        .where(InboxMessage.user_id == user_id)
        .order_by(InboxMessage.created_at.desc(), InboxMessage.id.desc())
        .limit(limit + 1)
    )
    if starting_after is not None:
        created_at = await connection.scalar(
            select(InboxMessage.created_at).where(InboxMessage.id == starting_after, InboxMessage.user_id == user_id)
        )
        if created_at is None:
            raise NotFound(_MESSAGE, starting_after)
        query = query.where(tuple_(InboxMessage.created_at, InboxMessage.id) < (created_at, starting_after))
    messages = [Message(*row) for row in await connection.execute(query)]
    return Page(tuple(messages[:limit]), has_more=len(messages) > limit)


async def mark_read(connection: AsyncConnection, user_id: str, message_id: str) -> Message:
    """The message, read. Reading it again keeps the first time.

    Raises:
        NotFound: the user has no such message.
    """
    row = (
        await connection.execute(
            update(InboxMessage)
            .where(InboxMessage.id == message_id, InboxMessage.user_id == user_id)
            .values(read_at=func.coalesce(InboxMessage.read_at, func.now()))
            .returning(*_COLUMNS)
        )
    ).first()
    if row is None:
        raise NotFound(_MESSAGE, message_id)
    return Message(*row)
