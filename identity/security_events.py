"""What happened to a user's access: kept for good, and told to the user on every channel that reaches them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import EVENT, FORMER_CONTACT, SECURITY_EVENT, new_id


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


@dataclass(frozen=True, slots=True)
class FormerContact:
    """Where a user could be reached until now. `kind` is `email` or `phone`."""

    user_id: str
    kind: str
    address: str = field(repr=False)


async def tell_former_contact(connection: AsyncConnection, former: FormerContact) -> None:
    """Owes the old address word that it was replaced, in the caller's transaction.

    Whoever takes an account over would otherwise be the only one to hear of it. The address is kept for a day, in a
    table of its own: no event has it.
    """
    identifier = new_id(FORMER_CONTACT)
    values = {"id": identifier, "user_id": former.user_id, "kind": former.kind, "address": former.address}
    await connection.execute(_KEEP_FORMER, values)
    data = json.dumps({"user_id": former.user_id, "event": f"{former.kind}_replaced", "former_contact": identifier})
    await connection.execute(_PUBLISH, {"id": new_id(EVENT), "subject_id": identifier, "data": data})


_KEEP_FORMER = text("""
INSERT INTO identity.former_contacts (id, user_id, kind, address) VALUES (:id, :user_id, :kind, :address)
""")

_RECORD = text("""
INSERT INTO identity.security_events (id, account_id, user_id, session_id, kind)
VALUES (:id, :account_id, :user_id, :session_id, :kind)
""")

# Each security event is a subject of its own.
_PUBLISH = text("""
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:id, :subject_id, 1, 'identity.security_event', CAST(:data AS jsonb))
""")
