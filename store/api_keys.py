"""API keys: `sk_test_` or `sk_live_`, 24 characters that name the key, 43 that prove it (256 random bits)."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import ACCOUNT, API_KEY, derived_id, new_id
from store.engine import create_engine

_NAME_LENGTH = 24
_SECRET_LENGTH = 43


@dataclass(frozen=True, slots=True)
class KeyOwner:
    key_id: str
    account_id: str
    role: str


def create_api_key(database_url: str, account_name: str, *, operator: bool = False, livemode: bool = False) -> str:
    """A new key for the account of that name, which is opened if there is none. The key is shown this once."""
    return asyncio.run(_create(database_url, account_name, "operator" if operator else "client", livemode))


async def _create(database_url: str, account_name: str, role: str, livemode: bool) -> str:
    engine = create_engine(database_url, pool_size=1)
    async with engine.begin() as connection:
        key = await insert_key(connection, account_name, role, livemode)
    await engine.dispose()
    return key


async def insert_key(connection: AsyncConnection, account_name: str, role: str, livemode: bool = False) -> str:
    """Opens the account if need be and inserts a key with `role` (`client` or `operator`)."""
    account_id = derived_id(ACCOUNT, account_name)
    key_id, secret = new_id(API_KEY), secrets.token_urlsafe(32)
    await connection.execute(
        text("INSERT INTO platform.accounts (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING"),
        {"id": account_id, "name": account_name},
    )
    await connection.execute(
        text(
            "INSERT INTO platform.api_keys (id, account_id, secret_hash, role)"
            " VALUES (:id, :account_id, :secret_hash, :role)"
        ),
        {"id": key_id, "account_id": account_id, "secret_hash": _hash(secret), "role": role},
    )
    mode = "live" if livemode else "test"
    return f"sk_{mode}_{key_id.removeprefix(f'{API_KEY}_')}{secret}"


async def find_owner(connection: AsyncConnection, key: str) -> KeyOwner | None:
    """Whose key this is; None for an unknown, revoked or malformed one."""
    _, _, rest = key.split("_", 2) if key.count("_") >= 2 else ("", "", "")
    name, secret = rest[:_NAME_LENGTH], rest[_NAME_LENGTH:]
    if len(name) != _NAME_LENGTH or len(secret) != _SECRET_LENGTH or not (key.isascii() and key.isprintable()):
        return None
    found = await connection.execute(
        text("SELECT account_id, role, secret_hash FROM platform.api_keys WHERE id = :id AND revoked_at IS NULL"),
        {"id": f"{API_KEY}_{name}"},
    )
    row = found.one_or_none()
    # An unknown key is compared too, so that it takes as long as a wrong one.
    expected = bytes(row.secret_hash) if row is not None else bytes(32)
    if not secrets.compare_digest(expected, _hash(secret)) or row is None:
        return None
    return KeyOwner(f"{API_KEY}_{name}", row.account_id, row.role)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
