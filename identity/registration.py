"""Somebody becomes a user: by name, e-mail address and phone, once both are proved to be theirs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import NotFound
from domain.ids import CONTACT_CODE, USER, derived_id
from identity import passwords
from identity.codes import Asked, ContactCodeDesk, Purpose, Request, Unless
from identity.contacts import Contact, ContactKind
from identity.errors import ContactTaken
from identity.sessions import OpenSession, Sessions

_log = logging.getLogger(__name__)

# Then whoever began it begins anew.
_LIFETIME = timedelta(hours=24)
_FORGET_EVERY_SECONDS = 600.0
# What the two codes prove (RFC 8176): that somebody has the phone, and knows what was sent.
_METHODS = ("otp", "sms")


@dataclass(frozen=True, slots=True)
class Applicant:
    """`password` None: the user will sign in by other means."""

    name: str = field(repr=False)
    email: Contact
    phone: Contact
    locale: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Registration:
    """`user_id` once it is complete. `codes` are by the kind of contact; None where it is proved."""

    id: str
    created_at: datetime
    expires_at: datetime
    user_id: str | None
    codes: dict[ContactKind, Asked | None]


class Registrations:
    def __init__(
        self, engine: AsyncEngine, hasher: passwords.Passwords, desk: ContactCodeDesk, sessions: Sessions
    ) -> None:
        self._engine = engine
        self._hasher = hasher
        self._desk = desk
        self._sessions = sessions

    async def begin(self, account_id: str, registration_id: str, applicant: Applicant) -> Registration:
        """Sends a code to each contact. With the same id again it is the same registration.

        Whether a contact belongs to a user already shows in nothing but the message that its owner gets.

        Raises:
            PasswordRefused: it is too short or too common.
            TooManyCodes: a contact was sent enough codes.
            Busy: too many passwords are being hashed.
        """
        hashed = None
        if applicant.password is not None:
            personal = (applicant.name, applicant.email.address, applicant.phone.address)
            passwords.check(applicant.password, personal)
            hashed = await self._hasher.hash(applicant.password)
        values = {
            "id": registration_id,
            "account_id": account_id,
            "name": applicant.name,
            "locale": applicant.locale,
            "email": applicant.email.address,
            "phone": applicant.phone.address,
            "hash": hashed,
            "lifetime": _LIFETIME,
        }
        async with self._engine.begin() as connection:
            inserted = await connection.execute(_INSERT, values)
            if inserted.rowcount == 1:
                for contact in (applicant.email, applicant.phone):
                    await self._desk.ask(connection, _request(account_id, registration_id, contact, applicant.locale))
            return await self._read(connection, account_id, registration_id)

    async def find(self, account_id: str, registration_id: str) -> Registration:
        """
        Raises:
            NotFound: there is none, or none any more.
        """
        async with self._engine.connect() as connection:
            return await self._read(connection, account_id, registration_id)

    async def send_again(self, account_id: str, registration_id: str, kind: ContactKind) -> Registration:
        """
        Raises:
            NotFound, CodeUsed, CodeAttemptsExceeded, TooManyCodes: see ContactCodeDesk.ask_again.
        """
        await self._desk.ask_again(account_id, _code_id(registration_id, kind))
        return await self.find(account_id, registration_id)

    async def verify(
        self, account_id: str, registration_id: str, kind: ContactKind, code: str, device_name: str | None
    ) -> tuple[Registration, OpenSession | None]:
        """Proves one contact. With the second one the applicant is a user, and has a session.

        Raises:
            NotFound, CodeIncorrect, CodeExpired, CodeUsed, CodeAttemptsExceeded: it is not proved.
            ContactTaken: another user proved one of the contacts in the meantime.
        """
        proved = await self._desk.prove(account_id, _code_id(registration_id, kind), Purpose.REGISTRATION, code)
        opened = None
        try:
            async with self._engine.begin() as connection:
                row = (await connection.execute(_LOCK, {"id": registration_id, "account_id": account_id})).one_or_none()
                if row is None:
                    raise NotFound("registration", registration_id)
                await self._desk.use(connection, proved)
                contacts = (await connection.execute(_PROVED, {"id": registration_id})).all()
                if len(contacts) == len(ContactKind):
                    user_id = await _make_user(connection, row, contacts)
                    opened = await self._sessions.insert(
                        connection, account_id, user_id, _METHODS, device_name=device_name
                    )
                registration = await self._read(connection, account_id, registration_id)
        except IntegrityError as error:
            if "uq_contacts_lookup" in str(error.orig):
                raise ContactTaken("taken") from None
            raise
        return registration, None if opened is None else await self._sessions.issue(*opened)

    async def _read(self, connection: AsyncConnection, account_id: str, registration_id: str) -> Registration:
        values = {"id": registration_id, "account_id": account_id}
        rows = (await connection.execute(_READ, values)).all()
        if not rows:
            raise NotFound("registration", registration_id)
        codes = {ContactKind(row.kind): None if row.used_at else self._desk.standing_of(row) for row in rows}
        first = rows[0]
        return Registration(first.registration_id, first.created_at, first.ends_at, first.user_id, codes)


@asynccontextmanager
async def forgetting(engine: AsyncEngine) -> AsyncIterator[None]:
    """Until the end of the block: forgets applicants and codes a day after they expired. Several processes may."""
    stop = asyncio.Event()

    async def run() -> None:
        while not stop.is_set():
            try:
                await forget_expired(engine)
            except Exception as error:
                # Whatever it was: what is left is forgotten the next time.
                _log.warning("expired registrations could not be forgotten: %s", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _FORGET_EVERY_SECONDS)

    task = asyncio.create_task(run(), name="identity-forgetting")
    try:
        yield
    finally:
        stop.set()
        await task


async def forget_expired(engine: AsyncEngine) -> int:
    """How many applicants were forgotten, users or not: what was asked of them is in the user by now, or of no use."""
    async with engine.begin() as connection:
        await connection.execute(_FORGET_CODES)
        await connection.execute(_FORGET_FORMER_CONTACTS)
        return (await connection.execute(_FORGET)).rowcount


def _request(account_id: str, registration_id: str, contact: Contact, locale: str) -> Request:
    return Request(
        id=_code_id(registration_id, contact.kind),
        account_id=account_id,
        purpose=Purpose.REGISTRATION,
        contact=contact,
        unless=Unless.TAKEN,
        locale=locale,
        registration_id=registration_id,
    )


def _code_id(registration_id: str, kind: ContactKind) -> str:
    return derived_id(CONTACT_CODE, registration_id, kind.value)


async def _make_user(connection: AsyncConnection, applicant: Row[Any], contacts: Sequence[Row[Any]]) -> str:
    user_id = derived_id(USER, applicant.id)
    values = {"user_id": user_id, "id": applicant.id, "account_id": applicant.account_id}
    await connection.execute(_INSERT_USER, values)
    for contact in contacts:
        await connection.execute(
            INSERT_CONTACT,
            {
                "user_id": user_id,
                "account_id": applicant.account_id,
                "kind": contact.kind,
                "address": contact.address,
                "lookup": contact.lookup,
            },
        )
    if applicant.password_hash is not None:
        await connection.execute(_INSERT_PASSWORD, {"user_id": user_id, "hash": applicant.password_hash})
    await connection.execute(_COMPLETE, values)
    return user_id


_INSERT = text("""
INSERT INTO identity.registrations (id, account_id, name, locale, email, phone, password_hash, expires_at)
VALUES (:id, :account_id, :name, :locale, :email, :phone, :hash, now() + CAST(:lifetime AS interval))
ON CONFLICT (id) DO NOTHING
""")

_LOCK = text("""
SELECT id, account_id, password_hash FROM identity.registrations
WHERE id = :id AND account_id = :account_id AND user_id IS NULL AND expires_at > now()
FOR UPDATE
""")

_PROVED = text("""
SELECT kind, address, lookup FROM identity.contact_codes
WHERE registration_id = :id AND used_at IS NOT NULL ORDER BY kind
""")

_READ = text("""
SELECT registration.id AS registration_id, registration.created_at, registration.expires_at AS ends_at,
    registration.user_id, code.kind, code.id, code.expires_at, code.attempts, code.sends, code.sent_at, code.used_at
FROM identity.registrations registration
JOIN identity.contact_codes code ON code.registration_id = registration.id
WHERE registration.id = :id AND registration.account_id = :account_id AND registration.expires_at > now()
ORDER BY code.kind
""")

_INSERT_USER = text("""
INSERT INTO platform.users (id, account_id, name, email, phone, locale)
SELECT :user_id, account_id, name, email, phone, locale FROM identity.registrations WHERE id = :id
""")

INSERT_CONTACT = text("""
INSERT INTO identity.contacts (user_id, account_id, kind, address, lookup)
VALUES (:user_id, :account_id, :kind, :address, :lookup)
ON CONFLICT (user_id, kind) DO UPDATE
    SET address = excluded.address, lookup = excluded.lookup, verified_at = excluded.verified_at
""")

_INSERT_PASSWORD = text("INSERT INTO identity.passwords (user_id, hash) VALUES (:user_id, :hash)")

_COMPLETE = text("UPDATE identity.registrations SET user_id = :user_id, password_hash = NULL WHERE id = :id")

_FORGET_CODES = text("DELETE FROM identity.contact_codes WHERE expires_at < now() - interval '1 day'")

# By then the relay has told them, or given up.
_FORGET_FORMER_CONTACTS = text("""
DELETE FROM identity.former_contacts WHERE replaced_at < now() - interval '25 hours'
""")

_FORGET = text("DELETE FROM identity.registrations WHERE expires_at < now() - interval '1 day'")
