"""The record of deliveries: who may send what on which channel now, and what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, Update, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notify.errors import KeyReused
from notify.messages import ChannelName, Notification
from store.models.notify import Delivery


class State(StrEnum):
    """`PENDING` is owed, `SENDING` is being sent by somebody; the others are final."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send on one channel until the lease ends. `reached` are digests of addresses to leave out."""

    key: str
    channel: ChannelName
    attempt: int
    reached: frozenset[str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What this caller may do (`claims`) and how the other channels stand (`states`)."""

    claims: tuple[Claim, ...]
    states: Mapping[ChannelName, State]


async def claim(
    connection: AsyncConnection, notification: Notification, channels: Sequence[ChannelName], lease: timedelta
) -> Standing:
    """Takes every channel of `channels` that is owed and that nobody else is sending on.

    A claim whose lease has ended belongs to a process that died: it may be taken over.

    Raises:
        KeyReused: the key belongs to another notification.
    """
    if not channels:
        return Standing((), await _others(connection, notification, set()))
    rows = await connection.execute(
        _CLAIM,
        {
            "key": notification.key,
            "channels": sorted(channels),  # always in one order, or two callers could wait for each other
            "user_id": notification.user_id,
            "kind": notification.kind.value,
            "lease": lease,
        },
    )
    claims = tuple(
        Claim(notification.key, ChannelName(row.channel), row.attempts, frozenset(row.reached)) for row in rows
    )
    return Standing(claims, await _others(connection, notification, {held.channel for held in claims}))


_CLAIM = text("""
INSERT INTO notify.deliveries AS delivery (key, channel, user_id, kind, state, attempts, claimed_until)
SELECT :key, channel, :user_id, :kind, 'sending', 1, now() + :lease
FROM unnest(CAST(:channels AS text[])) WITH ORDINALITY AS wanted (channel, position) ORDER BY position
ON CONFLICT (key, channel) DO UPDATE
    SET state = 'sending', attempts = delivery.attempts + 1, claimed_until = excluded.claimed_until
    WHERE (delivery.state = 'pending' OR delivery.state = 'sending' AND delivery.claimed_until < now())
        AND delivery.user_id = excluded.user_id AND delivery.kind = excluded.kind
RETURNING channel, attempts, reached
""")


async def _others(
    connection: AsyncConnection, notification: Notification, claimed: set[ChannelName]
) -> dict[ChannelName, State]:
    rows = await connection.execute(
        select(Delivery.channel, Delivery.state, Delivery.user_id, Delivery.kind).where(
            Delivery.key == notification.key
        )
    )
    others: dict[ChannelName, State] = {}
    for channel, state, user_id, kind in rows:
        if (user_id, kind) != (notification.user_id, notification.kind.value):
            raise KeyReused(notification.key)
        if channel not in claimed:
            others[ChannelName(channel)] = State(state)
    return others


async def settle_sent(connection: AsyncConnection, held: Claim, provider_message_id: str | None) -> None:
    """Records the provider's yes, which is true whoever holds the claim by now.

    `provider_message_id` is None when an earlier attempt reached all that could be reached, and recorded its id.
    """
    await connection.execute(
        _of(held)
        .where(Delivery.state.in_((State.PENDING.value, State.SENDING.value)))
        .values(
            state=State.SENT.value,
            provider_message_id=_first(provider_message_id),
            claimed_until=None,
            reason=None,
        )
    )


async def settle_rejected(connection: AsyncConnection, held: Claim, reason: str) -> None:
    await connection.execute(_held(held).values(state=State.REJECTED.value, reason=reason, claimed_until=None))


async def release(
    connection: AsyncConnection, held: Claim, reason: str, reached: frozenset[str], provider_message_id: str | None
) -> None:
    """Gives the claim back: the channel is owed still, but for the addresses `reached`."""
    await connection.execute(
        _held(held).values(
            state=State.PENDING.value,
            reason=reason,
            claimed_until=None,
            reached=sorted(reached),
            provider_message_id=_first(provider_message_id),
        )
    )


def address_digest(key: str, address: str) -> str:
    """Names an address within one notification without telling it: the key salts it."""
    return hashlib.sha256(f"{key}\n{address}".encode()).hexdigest()[:32]


def _first(provider_message_id: str | None) -> ColumnElement[str | None]:
    return func.coalesce(Delivery.provider_message_id, provider_message_id)


def _of(held: Claim) -> Update:
    return update(Delivery).where(Delivery.key == held.key, Delivery.channel == held.channel.value)


def _held(held: Claim) -> Update:
    # Whoever lost the lease must not undo what its successor is doing.
    return _of(held).where(Delivery.state == State.SENDING.value, Delivery.attempts == held.attempt)
