"""Passkeys (WebAuthn Level 3): added by a user who is signed in, used to sign in, listed, renamed, removed.

A passkey whose counter does not rise may have been copied (section 6.1.1): it is suspended and its user told. Synced
passkeys do not count; theirs stays zero.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from webauthn.authentication.verify_authentication_response import VerifiedAuthentication

from domain.ids import PASSKEY, new_id
from identity.challenges import Challenge, ChallengePurpose, Challenges
from identity.devices import Device
from identity.key_errors import (
    LastWayIn,
    PasskeyRefused,
    PasskeySuspended,
    PasskeyTaken,
    TooManyPasskeys,
)
from identity.relying_party import Json, RelyingParty, claimed_credential, is_backup_eligible, signed_challenge
from identity.security_events import SecurityEvent, record
from identity.sessions import OpenSession, Sessions
from identity.tokens import SessionClaims

MAX_PASSKEYS = 20
# Whoever adds or removes a way in has proved lately who they are: a stolen session alone must not suffice.
FRESH = timedelta(minutes=10)
_TRANSPORTS = frozenset({"ble", "cable", "hybrid", "internal", "nfc", "smart-card", "usb"})
_A_WAY_IN = "passkeys_a_way_in"
_CREDENTIAL = "uq_passkeys_credential_id"


@dataclass(frozen=True, slots=True)
class Passkey:
    id: str
    account_id: str
    user_id: str
    credential_id: bytes
    public_key: bytes = field(repr=False)
    sign_count: int
    aaguid: uuid.UUID
    transports: tuple[str, ...]
    backup_eligible: bool
    backed_up: bool
    name: str
    created_at: datetime
    last_used_at: datetime | None
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Options:
    """`public_key` is what a browser takes (`PublicKeyCredential.parse…OptionsFromJSON`)."""

    public_key: Json
    expires_at: datetime


def is_fresh(session: SessionClaims) -> bool:
    return datetime.now(UTC) - session.authenticated_at < FRESH


class Passkeys:
    def __init__(
        self, engine: AsyncEngine, challenges: Challenges, relying_party: RelyingParty, sessions: Sessions
    ) -> None:
        self._engine = engine
        self._challenges = challenges
        self._relying_party = relying_party
        self._sessions = sessions

    async def registration_options(self, session: SessionClaims, user_name: str) -> Options:
        """
        Raises:
            TooManyPasskeys, ChallengesUnavailable
        """
        known = await self.list_of(session.user_id)
        if len(known) >= MAX_PASSKEYS:
            raise TooManyPasskeys(f"a user has {MAX_PASSKEYS} passkeys at most")
        challenge = await self._challenges.issue(ChallengePurpose.ADD_PASSKEY, session.session_id)
        ids = [passkey.credential_id for passkey in known]
        asked = self._relying_party.registration_options(session.user_id, user_name, challenge.value, ids)
        return Options(asked, challenge.expires_at)

    async def add(self, session: SessionClaims, credential: Json, name: str) -> Passkey:
        """Stores what an authenticator made for this session's challenge, and tells the user.

        Raises:
            ChallengeRefused, PasskeyRefused, PasskeyTaken, TooManyPasskeys, ChallengesUnavailable
        """
        challenge = signed_challenge(credential)
        await self._challenges.use(ChallengePurpose.ADD_PASSKEY, session.session_id, challenge)
        verified = self._relying_party.verify_registration(credential, challenge)
        values = {
            "id": new_id(PASSKEY),
            "account_id": session.account_id,
            "user_id": session.user_id,
            "credential_id": verified.credential_id,
            "public_key": verified.credential_public_key,
            "sign_count": verified.sign_count,
            "aaguid": verified.aaguid,
            "transports": _transports(credential),
            "backup_eligible": is_backup_eligible(verified),
            "backed_up": verified.credential_backed_up,
            "name": name,
        }
        try:
            async with self._engine.begin() as connection:
                await connection.execute(_LOCK_USER, {"user_id": session.user_id})
                if await connection.scalar(_COUNT, {"user_id": session.user_id}) >= MAX_PASSKEYS:
                    raise TooManyPasskeys(f"a user has {MAX_PASSKEYS} passkeys at most")
                row = (await connection.execute(_INSERT, values)).one()
                event = SecurityEvent(session.account_id, session.user_id, "passkey_added", session.session_id)
                await record(connection, event)
        except IntegrityError as error:
            if _constraint(error) == _CREDENTIAL:
                raise PasskeyTaken("the credential is known") from None
            raise
        return _passkey(row)

    async def sign_in_options(self, account_id: str) -> Options:
        """For whoever may come: the authenticator finds the passkey, and with it the user.

        Raises:
            ChallengesUnavailable
        """
        challenge: Challenge = await self._challenges.issue(ChallengePurpose.SIGN_IN, account_id)
        return Options(self._relying_party.assertion_options(challenge.value), challenge.expires_at)

    async def sign_in(
        self, account_id: str, assertion: Json, *, device: Device | None = None, device_name: str | None = None
    ) -> OpenSession:
        """A session of the user whose passkey signed; bound to `device`, which must be a device of theirs.

        Raises:
            ChallengeRefused: no such challenge.
            PasskeyRefused: for whatever reason.
            PasskeySuspended: it is, or was just now.
            ChallengesUnavailable
        """
        challenge = signed_challenge(assertion)
        await self._challenges.use(ChallengePurpose.SIGN_IN, account_id, challenge)
        async with self._engine.begin() as connection:
            passkey = await find_by_assertion(connection, assertion)
            if passkey.account_id != account_id:
                raise PasskeyRefused("of another account")
            if device is not None and device.user_id != passkey.user_id:
                raise PasskeyRefused("on a device of another user")
            verified = self._relying_party.verify_assertion(assertion, challenge, passkey.public_key)
            usable = await use(connection, passkey, verified)
            if usable:
                row, refresh_token = await self._sessions.insert(
                    connection,
                    account_id,
                    passkey.user_id,
                    _methods(verified),
                    device_id=device.id if device else None,
                    device_name=device.name if device else device_name,
                )
        if not usable:
            raise PasskeySuspended("the counter went back")
        return await self._sessions.issue(row, refresh_token)

    async def list_of(self, user_id: str) -> list[Passkey]:
        """Those that were not removed, newest first."""
        async with self._engine.connect() as connection:
            return [_passkey(row) for row in await connection.execute(_LIST, {"user_id": user_id})]

    async def find(self, account_id: str, passkey_id: str) -> Passkey | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(_FIND, {"account_id": account_id, "id": passkey_id})).one_or_none()
        return None if row is None else _passkey(row)

    async def rename(self, user_id: str, passkey_id: str, name: str) -> Passkey | None:
        """None if the user has no such passkey."""
        async with self._engine.begin() as connection:
            values = {"user_id": user_id, "id": passkey_id, "name": name}
            row = (await connection.execute(_RENAME, values)).one_or_none()
        return None if row is None else _passkey(row)

    async def remove(self, account_id: str, user_id: str, passkey_id: str) -> bool:
        """Whether there was such a passkey. It never comes back.

        Raises:
            LastWayIn: the user would have none left (the database says so).
        """
        try:
            async with self._engine.begin() as connection:
                await connection.execute(_LOCK_USER, {"user_id": user_id})
                removed = await connection.execute(_REMOVE, {"user_id": user_id, "id": passkey_id})
                found = removed.one_or_none() is not None
                if found:
                    await record(connection, SecurityEvent(account_id, user_id, "passkey_removed"))
        except IntegrityError as error:
            if _constraint(error) == _A_WAY_IN:
                raise LastWayIn("a user keeps a way in") from None
            raise
        return found


async def find_by_assertion(connection: AsyncConnection, assertion: Json) -> Passkey:
    """The passkey that an assertion claims to be by, locked: nothing of it is verified yet.

    Raises:
        PasskeyRefused: malformed, unknown, removed, or of another user than the assertion says.
    """
    credential_id, user_handle = claimed_credential(assertion)
    row = (await connection.execute(_FIND_CREDENTIAL, {"credential_id": credential_id})).one_or_none()
    if row is None:
        raise PasskeyRefused("unknown")
    if user_handle is not None and user_handle != row.user_id.encode():
        raise PasskeyRefused("of another user than it says")
    return _passkey(row)


async def use(connection: AsyncConnection, passkey: Passkey, verified: VerifiedAuthentication) -> bool:
    """Counts a use that is verified, in the caller's transaction; False, and the passkey suspended, if it cannot be.

    The caller commits in both cases. That a passkey is suspended is told to whoever has it, and to nobody else: a
    stranger who knows its id gets no further than the signature.

    Raises:
        PasskeySuspended: it was, before.
    """
    if passkey.suspended_at is not None:
        raise PasskeySuspended("suspended")
    count = verified.new_sign_count
    if (count or passkey.sign_count) and count <= passkey.sign_count:
        await connection.execute(_SUSPEND, {"id": passkey.id})
        await record(connection, SecurityEvent(passkey.account_id, passkey.user_id, "passkey_suspended"))
        return False
    backed_up = verified.credential_backed_up and passkey.backup_eligible
    await connection.execute(_USE, {"id": passkey.id, "sign_count": count, "backed_up": backed_up})
    return True


def _methods(verified: VerifiedAuthentication) -> tuple[str, ...]:
    """RFC 8176: a key in hardware or one that is synced, a user who was verified: two factors."""
    return ("swk" if is_backup_eligible(verified) else "hwk", "user", "mfa")


def _transports(credential: Json) -> list[str]:
    given = credential["response"].get("transports")
    return sorted(_TRANSPORTS.intersection(name for name in given if isinstance(name, str))) if given else []


def _constraint(error: IntegrityError) -> str | None:
    diagnosis = getattr(error.orig, "diag", None)
    return None if diagnosis is None else diagnosis.constraint_name


def _passkey(row: Row[Any]) -> Passkey:
    return Passkey(
        id=row.id,
        account_id=row.account_id,
        user_id=row.user_id,
        credential_id=bytes(row.credential_id),
        public_key=bytes(row.public_key),
        sign_count=row.sign_count,
        aaguid=row.aaguid,
        transports=tuple(row.transports),
        backup_eligible=row.backup_eligible,
        backed_up=row.backed_up,
        name=row.name,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        suspended_at=row.suspended_at,
    )


_LOCK_USER = text("SELECT FROM platform.users WHERE id = :user_id FOR UPDATE")

_COUNT = text("SELECT count(*) FROM identity.passkeys WHERE user_id = :user_id AND removed_at IS NULL")

_INSERT = text("""
INSERT INTO identity.passkeys (id, account_id, user_id, credential_id, public_key, sign_count, aaguid, transports,
    backup_eligible, backed_up, name)
VALUES (:id, :account_id, :user_id, :credential_id, :public_key, :sign_count, CAST(:aaguid AS uuid), :transports,
    :backup_eligible, :backed_up, :name)
RETURNING *
""")

_LIST = text("""
SELECT * FROM identity.passkeys WHERE user_id = :user_id AND removed_at IS NULL
ORDER BY created_at DESC, id DESC
""")

_FIND = text("SELECT * FROM identity.passkeys WHERE account_id = :account_id AND id = :id AND removed_at IS NULL")

_FIND_CREDENTIAL = text("""
SELECT * FROM identity.passkeys WHERE credential_id = :credential_id AND removed_at IS NULL FOR UPDATE
""")

_RENAME = text("""
UPDATE identity.passkeys SET name = :name WHERE user_id = :user_id AND id = :id AND removed_at IS NULL
RETURNING *
""")

_REMOVE = text("""
UPDATE identity.passkeys SET removed_at = now() WHERE user_id = :user_id AND id = :id AND removed_at IS NULL
RETURNING id
""")

_SUSPEND = text("UPDATE identity.passkeys SET suspended_at = now() WHERE id = :id")

_USE = text("""
UPDATE identity.passkeys SET sign_count = :sign_count, backed_up = :backed_up, last_used_at = now() WHERE id = :id
""")
