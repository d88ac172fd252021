"""Tells people what happened to their payments and their access, from the events that the transactions left behind,
and sends the one-time codes that prove their addresses.

The database queues an event that a payer is to hear of in the transaction that writes it (`notify.owed`), so a crash
loses none and a payment waits for none. A relay takes what is due, many at a time, and delivers it; several may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.contact_codes import ContactCodes
from domain.currency import Currency
from domain.money import Money
from notify.errors import DeliveryIncomplete, InvalidNotification
from notify.messages import Kind, Notification
from notify.service import LEASE, Notifier, side_by_side

_log = logging.getLogger(__name__)

# A vendor's outage may last a day; a receipt that comes later than that helps nobody.
GIVE_UP_AFTER = timedelta(hours=24)
_LONGEST_BACKOFF_SECONDS = 600.0

# What an event is told as, and the step in the notification's key.
_TOLD_AS: Mapping[str, tuple[Kind, str]] = {
    "payment.authorized": (Kind.PAYMENT_AUTHORIZED, "authorized"),
    "payment.sold": (Kind.PAYMENT_AUTHORIZED, "authorized"),
    "payment.declined": (Kind.PAYMENT_DECLINED, "declined"),
    "payment.never_sent": (Kind.PAYMENT_DECLINED, "declined"),
    "payment.blocked": (Kind.PAYMENT_DECLINED, "blocked"),
    "payment.reversed": (Kind.PAYMENT_REVERSED, "reversed"),
    "payment.refund_succeeded": (Kind.PAYMENT_REFUNDED, "refunded"),
}


class Relay:
    """Delivers what is owed with `notifier`: at most `batch` at a time, looking every `pause_seconds` while idle."""

    def __init__(
        self,
        engine: AsyncEngine,
        notifier: Notifier,
        codes: ContactCodes,
        *,
        batch: int = 32,
        pause_seconds: float = 0.25,
    ) -> None:
        # Each statement here is a transaction of its own.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._notifier = notifier
        self._codes = codes
        self._batch = batch
        self._pause_seconds = pause_seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Relays until the end of the block. What is being sent then is brought to its end."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(stop), name="notify-relay")
        try:
            yield
        finally:
            stop.set()
            await task

    async def _run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                taken = await self.deliver_due()
            except Exception:
                # Whatever it was, a relay that ended would be silence: what is owed stays queued, and this is logged.
                _log.exception("notifications could not be relayed; trying again")
                taken = 0
            if taken < self._batch:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._pause_seconds)

    async def deliver_due(self) -> int:
        """Delivers one batch of what is due; how many were taken."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(_CLAIM, {"limit": self._batch, "lease": LEASE})).all()
        told = await side_by_side([self._settle(row) for row in rows])
        if done := [row.event_id for row, is_told in zip(rows, told, strict=True) if is_told]:
            await self._execute(_DONE, event_ids=done)
        return len(rows)

    async def _settle(self, row: Row[Any]) -> bool:
        """Whether everybody who was to hear of it has."""
        try:
            notification = self._notification(row)
            if notification is not None:
                await self._notifier.deliver(notification)
        except InvalidNotification as error:
            _log.error("event %s cannot be told: %s", row.event_id, error)
            await self._execute(_GIVE_UP, event_id=row.event_id, reason=type(error).__name__)
            return False
        except DeliveryIncomplete as incomplete:
            await self._later(row, ",".join(incomplete.channels), incomplete.retry_after_seconds)
            return False
        return True

    async def _later(self, row: Row[Any], reason: str, asked_seconds: float | None) -> None:
        if row.age >= GIVE_UP_AFTER:
            _log.error("event %s was not told for a day and is given up: %s", row.event_id, reason)
            await self._execute(_GIVE_UP, event_id=row.event_id, reason=reason)
            return
        backoff = min(2.0 ** min(row.attempts - 1, 10), _LONGEST_BACKOFF_SECONDS)
        delay = timedelta(seconds=max(backoff, asked_seconds or 0.0))
        await self._execute(_LATER, event_id=row.event_id, reason=reason, delay=delay)

    async def _execute(self, statement: Any, **parameters: Any) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(statement, parameters)

    def _notification(self, row: Row[Any]) -> Notification | None:
        """What the event is told as; None where nothing is to be told any more."""
        match row.type:
            case "identity.code_asked":
                return self._code(row)
            case "identity.security_event":
                when = f"{row.created_at:%Y-%m-%d %H:%M} UTC"
                if former := row.data.get("former_contact"):
                    return Notification(f"{row.subject_id}:notify", former, Kind.CONTACT_REPLACED, {"when": when})
                facts = {"event": str(row.data["event"]), "when": when}
                return Notification(f"{row.subject_id}:notify", row.data["user_id"], Kind.SECURITY_NOTICE, facts)
            case "payment_method.expiring":
                return _expiry_notification(row)
            case type_ if type_.startswith("micro_deposit."):
                return _deposit_notification(row)
            case type_ if type_.startswith("dispute."):
                return _dispute_notification(row)
            case _:
                return _payment_notification(row)

    def _code(self, row: Row[Any]) -> Notification | None:
        # Another one was sent since, or it is too late for it: what came then would only confuse.
        if row.code_tells is None or row.code_is_over or row.data["sending"] != row.code_sends:
            return None
        key = f"{row.subject_id}:notify:{row.code_sends}"
        match row.code_tells:
            case "code":
                code = self._codes.code(row.subject_id, row.code_sends, row.code_address)
                facts = {"contact_code": code, "purpose": row.code_purpose}
                return Notification(key, row.subject_id, Kind.CONTACT_CODE, facts)
            case "known":
                return Notification(key, row.subject_id, Kind.CONTACT_KNOWN, {})
            case _:
                return None


def _expiry_notification(row: Row[Any]) -> Notification:
    data = row.data
    facts = {"last4": data["last4"], "expiry": f"{data['exp_month']:02}/{data['exp_year']}"}
    key = f"{row.subject_id}:notify:expiring:{data['exp_year']}-{data['exp_month']:02}:{data['days']}"
    return Notification(key, data["user_id"], Kind.CARD_EXPIRING, facts)


def _deposit_notification(row: Row[Any]) -> Notification | None:
    """How a bank account's verification goes, without its amounts. Who removed the account need not hear of it."""
    data, event = row.data, row.type.partition(".")[2]
    if data.get("method_status") == "removed":
        return None
    facts = {"last4": row.last4}
    match event:
        case "originated":
            kind, facts["arrives"] = Kind.DEPOSITS_SENT, data["effective_on"]
        case "confirmed":
            kind = Kind.BANK_ACCOUNT_VERIFIED
        case "returned" if data.get("method_status") == "active":
            kind = Kind.BANK_ACCOUNT_REVOKED
        case _:
            locked = event != "refused" and data.get("locked", False)
            kind, facts["why"] = Kind.BANK_ACCOUNT_NOT_VERIFIED, "locked" if locked else event
    return Notification(f"{row.subject_id}:notify:{event}", data["user"], kind, facts)


def _dispute_notification(row: Row[Any]) -> Notification:
    """A case may come back after its end, so each event is told by itself."""
    kind = Kind.DISPUTE_OPENED
    if row.type == "dispute.closed":
        # `won` and `lost` are the merchant's view.
        kind = Kind.DISPUTE_UPHELD if row.data["status"] == "lost" else Kind.DISPUTE_REJECTED
    amount = Money(row.data["amount_minor"], Currency[row.data["currency"]])
    facts = {"merchant": row.merchant, "last4": row.last4, "amount": str(amount)}
    return Notification(f"{row.subject_id}:notify:v{row.subject_sequence}", row.user_id, kind, facts)


def _payment_notification(row: Row[Any]) -> Notification:
    kind, step = _TOLD_AS[row.type]
    facts = {"merchant": row.merchant, "last4": row.last4}
    amount_minor = row.amount_minor
    if kind is Kind.PAYMENT_REFUNDED:
        step, amount_minor = f"refunded:{row.data['refund_id']}", row.data["amount_minor"]
    if code := row.data.get("decline_code"):
        facts["decline_code"] = code
    facts["amount"] = str(Money(amount_minor, Currency[row.currency]))
    return Notification(f"{row.payment_id}:notify:{step}", row.user_id, kind, facts)


# A claim is a due time in the future: when its holder dies, the row is due again by itself.
_CLAIM = text("""
WITH due AS (
    SELECT event_id FROM notify.owed
    WHERE due_at <= now() AND given_up_at IS NULL
    ORDER BY due_at LIMIT :limit
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE notify.owed SET due_at = now() + :lease, attempts = attempts + 1
    FROM due WHERE owed.event_id = due.event_id
    RETURNING owed.event_id, owed.attempts, now() - owed.owed_since AS age
)
SELECT
    claimed.event_id, claimed.attempts, claimed.age, event.type, event.data, event.subject_id, event.subject_sequence,
    event.created_at,
    code.tells AS code_tells, code.sends AS code_sends, code.address AS code_address, code.purpose AS code_purpose,
    code.expires_at <= now() OR code.used_at IS NOT NULL AS code_is_over, payment.id AS payment_id,
    payment.user_id, payment.amount_minor, payment.currency, payment.merchant ->> 'name' AS merchant, method.last4
FROM claimed
JOIN platform.outbox event ON event.id = claimed.event_id
LEFT JOIN identity.contact_codes code ON code.id = event.subject_id
LEFT JOIN platform.payments payment
    ON payment.id = CASE WHEN starts_with(event.type, 'dispute.') THEN event.data ->> 'payment_id'
        ELSE event.subject_id END
LEFT JOIN platform.payment_methods method ON method.id = coalesce(payment.payment_method_id, CASE
    WHEN starts_with(event.type, 'micro_deposit.') THEN event.data ->> 'payment_method' END)
""")

_DONE = text("DELETE FROM notify.owed WHERE event_id = ANY(:event_ids)")

_LATER = text("UPDATE notify.owed SET due_at = now() + :delay, reason = :reason WHERE event_id = :event_id")

_GIVE_UP = text("UPDATE notify.owed SET given_up_at = now(), reason = :reason WHERE event_id = :event_id")
