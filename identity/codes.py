"""One-time codes to e-mail addresses and phones: asked for, sent again, and tried.

Whether a contact is known already shows in nothing that the caller gets: the same rows are written by the same
statements, and a code that was never sent is refused like a wrong one. Only who reads the address's mail can tell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.contact_codes import ContactCodes
from domain.errors import NotFound
from domain.ids import EVENT, new_id
from identity.contacts import Contact
from identity.errors import CodeAttemptsExceeded, CodeExpired, CodeIncorrect, CodeUsed, TooManyCodes

# NIST SP 800-63B-4 section 3.1.3.2: an out-of-band secret is good for ten minutes at most, and once.
LIFETIME = timedelta(minutes=10)
# Five of a million: who guesses has one chance in 200,000 with each code.
MOST_ATTEMPTS = 5
MOST_SENDS = 5
# The first repetition may come after this, and each further one after twice the last.
_FIRST_PAUSE = timedelta(seconds=30)
# To one address of one account, whoever asks: a mailbox is not to be filled, and SMS cost money.
_MOST_CODES = 6
_MOST_CODES_WITHIN = timedelta(hours=1)


class Purpose(StrEnum):
    REGISTRATION = "registration"
    CONTACT_CHANGE = "contact_change"
    PASSWORD_RESET = "password_reset"  # noqa: S105 - a purpose


class Unless(StrEnum):
    """When an address is sent something else than the code."""

    TAKEN = "taken"  # another user proved that it is theirs: they are told so
    UNKNOWN = "unknown"  # nobody did: nothing is sent


@dataclass(frozen=True, slots=True)
class Request:
    """What a code is for. `id` follows from it where asking again is to be the same request."""

    id: str
    account_id: str
    purpose: Purpose
    contact: Contact
    unless: Unless
    locale: str
    registration_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A code that is on its way, as far as anybody can tell."""

    id: str
    expires_at: datetime
    attempts_remaining: int
    resend_after: datetime


@dataclass(frozen=True, slots=True)
class Proved:
    """The right code was given. `use` it in the transaction of what it permits."""

    id: str
    user_id: str | None
    registration_id: str | None
    kind: str
    address: str = field(repr=False)
    lookup: str = field(repr=False)


class ContactCodeDesk:
    def __init__(self, engine: AsyncEngine, codes: ContactCodes) -> None:
        # An attempt is counted for good before it is judged: a statement that stands by itself.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._engine = engine
        self._codes = codes

    async def ask(self, connection: AsyncConnection, request: Request) -> Asked:
        """Makes a code and leaves word that it is to be sent, in the caller's transaction. Again changes nothing.

        Raises:
            TooManyCodes: the address was sent enough of them.
        """
        values = {
            "id": request.id,
            "account_id": request.account_id,
            "purpose": request.purpose.value,
            "registration_id": request.registration_id,
            "user_id": request.user_id,
            "kind": request.contact.kind.value,
            "address": request.contact.address,
            "lookup": request.contact.lookup,
            "taken_tells": "known" if request.unless is Unless.TAKEN else "code",
            "unknown_tells": "code" if request.unless is Unless.TAKEN else "nothing",
            "locale": request.locale,
            "lifetime": LIFETIME,
        }
        await connection.execute(_LOCK_ADDRESS, {"address": f"{request.account_id}\x1f{request.contact.lookup}"})
        recent = (
            await connection.execute(
                _RECENT,
                {"account_id": request.account_id, "lookup": request.contact.lookup, "within": _MOST_CODES_WITHIN},
            )
        ).one()
        if recent.codes >= _MOST_CODES:
            raise TooManyCodes(max(1, int(recent.seconds)))
        inserted = (await connection.execute(_INSERT, values)).one_or_none()
        if inserted is not None:
            await _leave_word(connection, request.id, 1)
        return _asked((await connection.execute(_STANDING, {"id": request.id})).one())

    async def ask_again(self, account_id: str, code_id: str) -> Asked:
        """Another code to the same address; the one before is good no more.

        Raises:
            NotFound, CodeUsed: there is none to send again.
            CodeAttemptsExceeded: no attempt is left.
            TooManyCodes: it is too early, or it was sent often enough.
        """
        async with self._engine.begin() as connection:
            values = {"id": code_id, "account_id": account_id, "first": _FIRST_PAUSE, "lifetime": LIFETIME}
            values |= {"most_sends": MOST_SENDS, "most_attempts": MOST_ATTEMPTS}
            row = (await connection.execute(_SEND_AGAIN, values)).one_or_none()
            if row is not None:
                await _leave_word(connection, code_id, row.sends)
                return _asked(row)
            standing = await self._standing(connection, account_id, code_id)
        if standing.used_at is not None:
            raise CodeUsed("used")
        if standing.attempts >= MOST_ATTEMPTS:
            raise CodeAttemptsExceeded("no attempt is left")
        if standing.sends >= MOST_SENDS:
            raise TooManyCodes(int(_MOST_CODES_WITHIN.total_seconds()))
        raise TooManyCodes(max(1, int(standing.wait_seconds)))

    async def prove(
        self, account_id: str, code_id: str, purpose: Purpose, given: str, *, user_id: str | None = None
    ) -> Proved:
        """Counts the attempt, then judges it. With `user_id`, the code must have been asked for by that user.

        Raises:
            NotFound: there is no such code.
            CodeIncorrect, CodeExpired, CodeUsed, CodeAttemptsExceeded: it is not proved.
        """
        values: dict[str, object] = {"id": code_id, "account_id": account_id, "purpose": purpose.value}
        values |= {"most": MOST_ATTEMPTS, "user_id": user_id}
        async with self._single.connect() as connection:
            row = (await connection.execute(_COUNT, values)).one_or_none()
            if row is None:
                raise _refusal(await self._standing(connection, account_id, code_id, purpose, user_id))
        right = self._codes.matches(code_id, row.sends, row.address, given)
        if not right or row.tells != "code":
            raise CodeIncorrect(MOST_ATTEMPTS - row.attempts)
        return Proved(code_id, row.user_id, row.registration_id, row.kind, row.address, row.lookup)

    async def use(self, connection: AsyncConnection, proved: Proved) -> None:
        """The code is good no more.

        Raises:
            CodeUsed: somebody was faster.
        """
        used = await connection.execute(_USE, {"id": proved.id})
        if used.rowcount != 1:
            raise CodeUsed("used")

    @staticmethod
    def standing_of(row: Row[Any]) -> Asked:
        """How a code's row (id, expires_at, attempts, sends, sent_at) stands."""
        return _asked(row)

    async def _standing(
        self,
        connection: AsyncConnection,
        account_id: str,
        code_id: str,
        purpose: Purpose | None = None,
        user_id: str | None = None,
    ) -> Row[Any]:
        values = {"id": code_id, "account_id": account_id, "first": _FIRST_PAUSE}
        row = (await connection.execute(_STATE, values)).one_or_none()
        foreign = row is not None and (purpose not in (None, row.purpose) or user_id not in (None, row.user_id))
        if row is None or foreign:
            raise NotFound("code", code_id)
        return row


def _refusal(standing: Row[Any]) -> Exception:
    if standing.used_at is not None:
        return CodeUsed("used")
    if standing.attempts >= MOST_ATTEMPTS:
        return CodeAttemptsExceeded("no attempt is left")
    return CodeExpired("expired")


def _asked(row: Row[Any]) -> Asked:
    pause = _FIRST_PAUSE * 2 ** (row.sends - 1)
    return Asked(row.id, row.expires_at, MOST_ATTEMPTS - row.attempts, row.sent_at + pause)


async def _leave_word(connection: AsyncConnection, code_id: str, sending: int) -> None:
    data = json.dumps({"sending": sending})
    values = {"id": new_id(EVENT), "subject_id": code_id, "sequence": sending, "data": data}
    await connection.execute(_PUBLISH, values)


# Whoever asks for the same address at once is counted one after the other.
_LOCK_ADDRESS = text("SELECT pg_advisory_xact_lock(hashtextextended(:address, 13))")

_RECENT = text("""
SELECT count(*) AS codes,
    extract(epoch FROM min(created_at) + CAST(:within AS interval) - now()) AS seconds
FROM identity.contact_codes
WHERE account_id = :account_id AND lookup = :lookup AND created_at > now() - CAST(:within AS interval)
""")

_INSERT = text("""
INSERT INTO identity.contact_codes
    (id, account_id, purpose, registration_id, user_id, kind, address, lookup, tells, locale, expires_at)
SELECT :id, :account_id, :purpose, :registration_id, coalesce(:user_id, owner.user_id), :kind, :address, :lookup,
    CASE WHEN owner.user_id IS NULL THEN :unknown_tells ELSE :taken_tells END, :locale,
    now() + CAST(:lifetime AS interval)
FROM (SELECT) nothing
LEFT JOIN identity.contacts owner
    ON owner.account_id = :account_id AND owner.kind = :kind AND owner.lookup = :lookup
ON CONFLICT (id) DO NOTHING
RETURNING id
""")

_STANDING = text("SELECT id, expires_at, attempts, sends, sent_at FROM identity.contact_codes WHERE id = :id")

_STATE = text("""
SELECT purpose, user_id, used_at, attempts, sends, expires_at,
    extract(epoch FROM sent_at + CAST(:first AS interval) * (2 ^ (sends - 1)) - now()) AS wait_seconds
FROM identity.contact_codes WHERE id = :id AND account_id = :account_id
""")

_SEND_AGAIN = text("""
UPDATE identity.contact_codes
SET sends = sends + 1, sent_at = now(), expires_at = now() + CAST(:lifetime AS interval)
WHERE id = :id AND account_id = :account_id AND used_at IS NULL AND sends < :most_sends AND attempts < :most_attempts
    AND sent_at + CAST(:first AS interval) * (2 ^ (sends - 1)) <= now()
RETURNING id, expires_at, attempts, sends, sent_at
""")

_COUNT = text("""
UPDATE identity.contact_codes SET attempts = attempts + 1
WHERE id = :id AND account_id = :account_id AND purpose = :purpose AND used_at IS NULL AND attempts < :most
    AND expires_at > now() AND (CAST(:user_id AS text) IS NULL OR user_id = :user_id)
RETURNING attempts, sends, tells, kind, address, lookup, user_id, registration_id
""")

_USE = text("UPDATE identity.contact_codes SET used_at = now() WHERE id = :id AND used_at IS NULL")

_PUBLISH = text("""
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:id, :subject_id, :sequence, 'identity.code_asked', CAST(:data AS jsonb))
""")
