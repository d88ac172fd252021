"""What happened to a user's access: kept for good, and told to the user on every channel that reaches them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import EVENT, SECURITY_EVENT, new_id


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """`kind` picks the text that the user gets (notify/templates, `security_notice`)."""

    account_id: str
    user_id: str
    kind: str
    session_id: str | None = None


async def record(connection: AsyncConnection, event: SecurityEvent) -> None:
    """Writes the event, and what owes the user its notice, in the caller's transaction."""
    event_id = new_id(SECURITY_EVENT)
    await connection.execute(
        _RECORD,
        {
            "id": event_id,
            "account_id": event.account_id,
            "user_id": event.user_id,
            "session_id": event.session_id,
            "kind": event.kind,
        },
    )
    data = json.dumps({"user_id": event.user_id, "event": event.kind})
    await connection.execute(_PUBLISH, {"id": new_id(EVENT), "subject_id": event_id, "data": data})


_RECORD = text("""
INSERT INTO identity.security_events (id, account_id, user_id, session_id, kind)
VALUES (:id, :account_id, :user_id, :session_id, :kind)
""")

# Each security event is a subject of its own.
_PUBLISH = text("""
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:id, :subject_id, 1, 'identity.security_event', CAST(:data AS jsonb))
""")
