"""Signing in by password, changing and resetting it, and changing the contacts of a user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.ids import CONTACT_CODE, new_id
from identity import passwords
from identity.codes import Asked, ContactCodeDesk, Purpose, Request, Unless
from identity.contacts import Contact
from identity.errors import ContactTaken, PasswordIncorrect
from identity.locks import Locks
from identity.registration import INSERT_CONTACT
from identity.security_events import FormerContact, SecurityEvent, record, tell_former_contact
from identity.sessions import OpenSession, Revoked, Sessions
from identity.tokens import SessionClaims

# RFC 8176: a password.
_METHODS = ("pwd",)
# Who has no password yet may set one for so long after signing in by other means.
_FRESH = timedelta(minutes=10)


class Credentials:
    def __init__(
        self,
        engine: AsyncEngine,
        hasher: passwords.Passwords,
        desk: ContactCodeDesk,
        sessions: Sessions,
        locks: Locks,
    ) -> None:
        self._engine = engine
        self._hasher = hasher
        self._desk = desk
        self._sessions = sessions
        self._locks = locks

    async def sign_in(
        self, account_id: str, contact: Contact, password: str, *, address: str, device_name: str | None
    ) -> OpenSession:
        """A session for whoever knows the password. `address` is the caller's on the network.

        An unknown contact, a user without a password and a wrong password answer alike and take as long.

        Raises:
            PasswordIncorrect: no.
            LockedOut: it is too early for another attempt, whatever the password.
            LocksUnavailable: attempts cannot be counted.
            Busy: too many passwords are being hashed.
        """
        attempt = await self._locks.begin(account_id, contact.lookup, address)
        values = {"account_id": account_id, "kind": contact.kind.value, "lookup": contact.lookup}
        async with self._engine.connect() as connection:
            row = (await connection.execute(_FIND, values)).one_or_none()
        hashed = None if row is None else row.hash
        if not await self._hasher.verify(hashed, password) or row is None:
            raise PasswordIncorrect("no")
        await self._locks.succeeded(attempt)
        if self._hasher.is_outdated(row.hash):
            await self._rehash(row, password)
        return await self._sessions.open(account_id, row.user_id, _METHODS, device_name=device_name)

    async def change_password(self, session: SessionClaims, current: str | None, new: str, *, address: str) -> None:
        """Ends all other sessions of the user and tells them. Without a password yet, a fresh sign-in stands for it.

        Raises:
            PasswordIncorrect: `current` is wrong, or missing.
            PasswordRefused: the new one is too short or too common.
            LockedOut, LocksUnavailable, Busy: not now.
            SessionsUnavailable: it is changed; that the others ended cannot be told now.
        """
        async with self._engine.connect() as connection:
            user = (await connection.execute(_USER, {"user_id": session.user_id})).one()
        passwords.check(new, _personal(user))
        if user.hash is None:
            if datetime.now(UTC) - session.authenticated_at > _FRESH:
                raise PasswordIncorrect("the sign-in is too old")
        else:
            attempt = await self._locks.begin(session.account_id, session.user_id, address)
            if not await self._hasher.verify(user.hash, current or ""):
                raise PasswordIncorrect("no")
            await self._locks.succeeded(attempt)
        hashed = await self._hasher.hash(new)
        async with self._engine.begin() as connection:
            await self._set(connection, session.account_id, session.user_id, hashed, but=session.session_id)
        await self._sessions.tell_ended()

    async def ask_reset(self, account_id: str, contact: Contact, locale: str) -> Asked:
        """Sends a code to the contact if a user proved it; whether one did shows in nothing here.

        Raises:
            TooManyCodes: it was sent enough of them.
        """
        request = Request(
            id=new_id(CONTACT_CODE),
            account_id=account_id,
            purpose=Purpose.PASSWORD_RESET,
            contact=contact,
            unless=Unless.UNKNOWN,
            locale=locale,
        )
        async with self._engine.begin() as connection:
            return await self._desk.ask(connection, request)

    async def reset(self, account_id: str, code_id: str, code: str, new: str) -> None:
        """Sets the password of whoever got the code, and ends all their sessions.

        Raises:
            PasswordRefused: it is too short or too common.
            NotFound, CodeIncorrect, CodeExpired, CodeUsed, CodeAttemptsExceeded: the code is no good.
            Busy: too many passwords are being hashed.
            SessionsUnavailable: it is set; that the sessions ended cannot be told now.
        """
        passwords.check(new, ())
        proved = await self._desk.prove(account_id, code_id, Purpose.PASSWORD_RESET, code)
        assert proved.user_id is not None, "only a user's contact is sent a code"
        hashed = await self._hasher.hash(new)
        async with self._engine.begin() as connection:
            await self._desk.use(connection, proved)
            await self._set(connection, account_id, proved.user_id, hashed, but=None)
        await self._sessions.tell_ended()

    async def ask_contact(self, account_id: str, user_id: str, contact: Contact, locale: str) -> Asked:
        """Sends a code to what is to be the user's contact.

        Raises:
            TooManyCodes: it was sent enough of them.
        """
        request = Request(
            id=new_id(CONTACT_CODE),
            account_id=account_id,
            purpose=Purpose.CONTACT_CHANGE,
            contact=contact,
            unless=Unless.TAKEN,
            locale=locale,
            user_id=user_id,
        )
        async with self._engine.begin() as connection:
            return await self._desk.ask(connection, request)

    async def change_contact(self, account_id: str, user_id: str, code_id: str, code: str) -> None:
        """The contact is the user's from now on, and what they sign in with. They are told, and so is the old address.

        Raises:
            NotFound, CodeIncorrect, CodeExpired, CodeUsed, CodeAttemptsExceeded: the code is no good.
            ContactTaken: another user proved it in the meantime.
        """
        proved = await self._desk.prove(account_id, code_id, Purpose.CONTACT_CHANGE, code, user_id=user_id)
        values = {"user_id": user_id, "account_id": account_id, "address": proved.address}
        values |= {"kind": proved.kind, "lookup": proved.lookup}
        try:
            async with self._engine.begin() as connection:
                await self._desk.use(connection, proved)
                former = await connection.scalar(_FORMER_CONTACT[proved.kind], values)
                await connection.execute(INSERT_CONTACT, values)
                await connection.execute(_CHANGE_USER[proved.kind], values)
                await record(connection, SecurityEvent(account_id, user_id, f"{proved.kind}_changed"))
                if former is not None and former != proved.address:
                    await tell_former_contact(connection, FormerContact(user_id, proved.kind, former))
        except IntegrityError as error:
            if "uq_contacts_lookup" in str(error.orig):
                raise ContactTaken("taken") from None
            raise

    async def _set(
        self, connection: AsyncConnection, account_id: str, user_id: str, hashed: str, *, but: str | None
    ) -> None:
        await connection.execute(_SET, {"user_id": user_id, "hash": hashed})
        await self._sessions.end_all(connection, user_id, Revoked.PASSWORD_CHANGED, but=but)
        await record(connection, SecurityEvent(account_id, user_id, "password_changed"))

    async def _rehash(self, row: Row[Any], password: str) -> None:
        hashed = await self._hasher.hash(password)
        async with self._engine.begin() as connection:
            await connection.execute(_REHASH, {"user_id": row.user_id, "old": row.hash, "new": hashed})


def _personal(user: Row[Any]) -> tuple[str, ...]:
    return tuple(value for value in (user.name, user.email, user.phone) if value)


_FIND = text("""
SELECT contact.user_id, password.hash FROM identity.contacts contact
LEFT JOIN identity.passwords password ON password.user_id = contact.user_id
WHERE contact.account_id = :account_id AND contact.kind = :kind AND contact.lookup = :lookup
""")

_USER = text("""
SELECT users.name, users.email, users.phone, password.hash FROM platform.users users
LEFT JOIN identity.passwords password ON password.user_id = users.id
WHERE users.id = :user_id
""")

_SET = text("""
INSERT INTO identity.passwords (user_id, hash) VALUES (:user_id, :hash)
ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, changed_at = now()
""")

# A password that was changed in the meantime stays changed.
_REHASH = text("UPDATE identity.passwords SET hash = :new WHERE user_id = :user_id AND hash = :old")

# The user's row is locked: of two changes at once, the second replaces what the first has made.
_FORMER_CONTACT = {
    "email": text("SELECT email FROM platform.users WHERE id = :user_id FOR NO KEY UPDATE"),
    "phone": text("SELECT phone FROM platform.users WHERE id = :user_id FOR NO KEY UPDATE"),
}

_CHANGE_USER = {
    "email": text("UPDATE platform.users SET email = :address WHERE id = :user_id"),
    "phone": text("UPDATE platform.users SET phone = :address WHERE id = :user_id"),
}
