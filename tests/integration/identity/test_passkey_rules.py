"""Rules of passkeys, devices and step-up challenges that the database keeps, also against wrong code."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import ACCOUNT, DEVICE, PASSKEY, SESSION, STEP_UP_CHALLENGE, USER, new_id


@dataclass(frozen=True, slots=True)
class Rows:
    """A user with a session, a passkey and a device, and no password."""

    engine: AsyncEngine
    account: str
    user: str
    session: str
    passkey: str
    device: str

    async def run(self, statement: str, **values: object) -> None:
        known = {"user": self.user, "session": self.session, "passkey": self.passkey, "device": self.device}
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), known | {"account": self.account} | values)

    async def one(self, statement: str) -> object:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement), {"session": self.session, "device": self.device})


async def _rows(engine: AsyncEngine) -> Rows:
    rows = Rows(engine, new_id(ACCOUNT), new_id(USER), new_id(SESSION), new_id(PASSKEY), new_id(DEVICE))
    await rows.run("INSERT INTO platform.accounts (id, name) VALUES (:account, :account)")
    await rows.run("INSERT INTO platform.users (id, account_id, name) VALUES (:user, :account, 'Ada')")
    await rows.run(
        """INSERT INTO identity.sessions (id, account_id, user_id, amr, authenticated_at, expires_at)
        VALUES (:session, :account, :user, '{pwd}', now(), now() + interval '1 day')"""
    )
    await rows.run(_PASSKEY, id=rows.passkey, credential=secrets.token_bytes(32))
    key = b"\4" + secrets.token_bytes(64)
    await rows.run(_DEVICE, thumbprint=secrets.token_bytes(32), key=key)
    return rows


_PASSKEY = """
INSERT INTO identity.passkeys (id, account_id, user_id, credential_id, public_key, sign_count, aaguid, transports,
    backup_eligible, backed_up, name)
VALUES (:id, :account, :user, :credential, decode(repeat('01', 77), 'hex'), 5,
    '00000000-0000-0000-0000-000000000000', '{}', false, false, 'Phone')"""

_DEVICE = """
INSERT INTO identity.devices (id, account_id, user_id, name, platform, thumbprint, public_key, attested)
VALUES (:device, :account, :user, 'Phone', 'ios', :thumbprint, :key, 'none')"""


@pytest_asyncio.fixture
async def rows(engine: AsyncEngine) -> Rows:
    return await _rows(engine)


@pytest.mark.parametrize(
    "change",
    [
        "sign_count = 4",
        "public_key = decode(repeat('02', 77), 'hex')",
        "credential_id = decode(repeat('02', 32), 'hex')",
        "user_id = 'usr_other'",
        "backup_eligible = true",
        "backed_up = true",
    ],
)
async def test_a_passkey_stays_what_it_is(rows: Rows, change: str) -> None:
    with pytest.raises(IntegrityError):
        await rows.run(f"UPDATE identity.passkeys SET {change} WHERE id = :passkey")
    with pytest.raises(IntegrityError):
        await rows.run("DELETE FROM identity.passkeys WHERE id = :passkey")


async def test_a_suspended_or_removed_passkey_does_not_come_back(rows: Rows) -> None:
    await rows.run(_PASSKEY, id=new_id(PASSKEY), credential=secrets.token_bytes(32))
    for column in ("suspended_at", "removed_at"):
        await rows.run(f"UPDATE identity.passkeys SET {column} = now() WHERE id = :passkey")
        with pytest.raises(IntegrityError):
            await rows.run(f"UPDATE identity.passkeys SET {column} = NULL WHERE id = :passkey")


async def test_the_last_way_in_is_not_removed_but_a_password_is_one_too(rows: Rows) -> None:
    remove = "UPDATE identity.passkeys SET removed_at = now() WHERE id = :passkey"
    with pytest.raises(IntegrityError, match="a way in"):
        await rows.run(remove)
    await rows.run("INSERT INTO identity.passwords (user_id, hash) VALUES (:user, '$argon2id$x')")
    await rows.run(remove)


async def test_a_session_is_bound_to_a_device_of_its_own_user_for_good(rows: Rows) -> None:
    bind = "UPDATE identity.sessions SET device_id = :other WHERE id = :session"
    stranger = await _rows(rows.engine)
    with pytest.raises(IntegrityError):
        await rows.run(bind, other=stranger.device)
    await rows.run(bind, other=rows.device)
    with pytest.raises(IntegrityError):
        await rows.run(bind, other=None)


async def test_revoking_a_device_by_hand_ends_its_sessions_and_push_tokens(rows: Rows) -> None:
    await rows.run("UPDATE identity.sessions SET device_id = :device WHERE id = :session")
    await rows.run(
        """INSERT INTO notify.push_tokens (token_hash, user_id, token, platform, device_id)
        VALUES (sha256(convert_to(:device, 'UTF8')), :user, :device, 'ios', :device)"""
    )
    await rows.run("UPDATE identity.devices SET revoked_at = now() WHERE id = :device")
    assert await rows.one("SELECT revoke_reason FROM identity.sessions WHERE id = :session") == "device_revoked"
    assert await rows.one("SELECT pruned_at FROM notify.push_tokens WHERE device_id = :device") is not None
    for change in ("revoked_at = NULL", "name = 'Other'"):
        with pytest.raises(IntegrityError):
            await rows.run(f"UPDATE identity.devices SET {change} WHERE id = :device")
    with pytest.raises(IntegrityError):
        await rows.run("DELETE FROM identity.devices WHERE id = :device")


async def test_nobody_but_the_payer_is_asked(rows: Rows) -> None:
    with pytest.raises(DBAPIError):
        await rows.run(
            """INSERT INTO identity.step_up_challenges (id, payment_id, user_id, nonce, expires_at)
            VALUES (:id, 'pay_nobody', :user, decode(repeat('00', 32), 'hex'), now())""",
            id=new_id(STEP_UP_CHALLENGE),
        )
