"""API keys: `sk_test_` or `pk_live_` and the like, 24 characters that name the key, 43 that prove it (256 random bits).

A secret key (`sk_`) is a client's backend; scopes narrow what it may do. A publishable key (`pk_`) is in every copy of
an app, so it proves nothing but whose app that is.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import DurapayError
from domain.ids import ACCOUNT, API_KEY, derived_id, new_id
from domain.scopes import Scope
from store.engine import create_engine

SECRET = "secret"  # noqa: S105 - a kind
PUBLISHABLE = "publishable"
CLIENT = "client"
OPERATOR = "operator"

_PREFIXES = {SECRET: "sk", PUBLISHABLE: "pk"}
_NAME_LENGTH = 24
_SECRET_LENGTH = 43


class ApiKeyInvalid(DurapayError):
    """Such a key cannot be made. The message says why."""


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """`scopes` None: all that `role` may do. A publishable key has none, whatever its role."""

    key_id: str
    account_id: str
    role: str
    publishable: bool = False
    scopes: frozenset[Scope] | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be.

    Raises:
        ApiKeyInvalid: a publishable or an operator's key with scopes, a publishable operator's, or none at all.
    """

    role: str = CLIENT
    kind: str = SECRET
    scopes: tuple[Scope, ...] | None = None
    name: str | None = None
    lifetime: timedelta | None = None
    livemode: bool = False

    def __post_init__(self) -> None:
        if self.kind == PUBLISHABLE and (self.role != CLIENT or self.scopes is not None):
            raise ApiKeyInvalid("a publishable key has no scopes and is no operator's")
        if self.role == OPERATOR and self.scopes is not None:
            raise ApiKeyInvalid("an operator's key has no scopes: what operators may do is not divided")
        if self.lifetime is not None and self.lifetime <= timedelta():
            raise ApiKeyInvalid("a key must be good for some time")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """`key` is shown this once."""

    id: str
    key: str = field(repr=False)


def create_api_key(
    database_url: str,
    account_name: str,
    *,
    operator: bool = False,
    livemode: bool = False,
    publishable: bool = False,
    scopes: Iterable[Scope] | None = None,
    name: str | None = None,
    lifetime: timedelta | None = None,
) -> str:
    """A new key for the account of that name, which is opened if there is none. The key is shown this once.

    Raises:
        ApiKeyInvalid: there can be no such key.
    """
    wanted = NewKey(
        role=OPERATOR if operator else CLIENT,
        kind=PUBLISHABLE if publishable else SECRET,
        scopes=None if scopes is None else tuple(sorted(set(scopes))),
        name=name,
        lifetime=lifetime,
        livemode=livemode,
    )
    return asyncio.run(_create(database_url, account_name, wanted))


async def _create(database_url: str, account_name: str, wanted: NewKey) -> str:
    engine = create_engine(database_url, pool_size=1)
    try:
        async with engine.begin() as connection:
            account_id = await _open_account(connection, account_name)
            return (await issue_key(connection, account_id, wanted)).key
    finally:
        await engine.dispose()


async def insert_key(connection: AsyncConnection, account_name: str, role: str, livemode: bool = False) -> str:
    """Opens the account if need be and inserts a secret key with `role` (`client` or `operator`)."""
    account_id = await _open_account(connection, account_name)
    return (await issue_key(connection, account_id, NewKey(role=role, livemode=livemode))).key


async def issue_key(connection: AsyncConnection, account_id: str, wanted: NewKey) -> IssuedKey:
    """Inserts a key of an account that is there."""
    key_id, secret = new_id(API_KEY), secrets.token_urlsafe(32)
    await connection.execute(
        _INSERT,
        {
            "id": key_id,
            "account_id": account_id,
            "secret_hash": _hash(secret),
            "role": wanted.role,
            "kind": wanted.kind,
            "name": wanted.name,
            "scopes": None if wanted.scopes is None else [scope.value for scope in wanted.scopes],
            "lifetime": wanted.lifetime,
        },
    )
    prefix = f"{_PREFIXES[wanted.kind]}_{'live' if wanted.livemode else 'test'}_"
    return IssuedKey(key_id, f"{prefix}{key_id.removeprefix(f'{API_KEY}_')}{secret}")


async def find_owner(connection: AsyncConnection, key: str) -> KeyOwner | None:
    """Whose key this is; None for an unknown, expired, revoked or malformed one."""
    prefix, _, rest = key.split("_", 2) if key.count("_") >= 2 else ("", "", "")
    name, secret = rest[:_NAME_LENGTH], rest[_NAME_LENGTH:]
    if len(name) != _NAME_LENGTH or len(secret) != _SECRET_LENGTH or not (key.isascii() and key.isprintable()):
        return None
    row = (await connection.execute(_FIND, {"id": f"{API_KEY}_{name}"})).one_or_none()
    # An unknown key is compared too, so that it takes as long as a wrong one.
    expected = bytes(row.secret_hash) if row is not None else bytes(32)
    if not secrets.compare_digest(expected, _hash(secret)) or row is None or prefix != _PREFIXES[row.kind]:
        return None
    scopes = None if row.scopes is None else frozenset(Scope(scope) for scope in row.scopes)
    return KeyOwner(f"{API_KEY}_{name}", row.account_id, row.role, row.kind == PUBLISHABLE, scopes)


async def list_keys(connection: AsyncConnection, account_id: str) -> Sequence[RowMapping]:
    """All keys of the account that are good, newest first, without what proves them."""
    return (await connection.execute(_LIST, {"account_id": account_id})).mappings().all()


async def find_key(connection: AsyncConnection, account_id: str, key_id: str) -> RowMapping | None:
    return (
        (await connection.execute(_FIND_OF_ACCOUNT, {"account_id": account_id, "id": key_id})).mappings().one_or_none()
    )


async def find_account(connection: AsyncConnection, key_id: str) -> str | None:
    """Whose key it is."""
    statement = text("SELECT account_id FROM platform.api_keys WHERE id = :id")
    found: str | None = await connection.scalar(statement, {"id": key_id})
    return found


async def roll_key(
    connection: AsyncConnection, account_id: str, key_id: str, overlap: timedelta, *, livemode: bool
) -> IssuedKey | None:
    """A new key that may do the same; the old one is good for `overlap` still. None: there is no such key."""
    row = (await connection.execute(_LOCK, {"account_id": account_id, "id": key_id})).one_or_none()
    if row is None:
        return None
    scopes = None if row.scopes is None else tuple(Scope(scope) for scope in row.scopes)
    wanted = NewKey(role=row.role, kind=row.kind, scopes=scopes, name=row.name, lifetime=row.left, livemode=livemode)
    issued = await issue_key(connection, account_id, wanted)
    await connection.execute(_REPLACE, {"id": key_id, "by": issued.id, "overlap": overlap})
    return issued


async def revoke_key(connection: AsyncConnection, account_id: str, key_id: str) -> bool:
    """The key opens nothing any more; whether there is one. Again changes nothing."""
    found = await connection.execute(_REVOKE, {"account_id": account_id, "id": key_id})
    return found.rowcount == 1


async def _open_account(connection: AsyncConnection, name: str) -> str:
    account_id = derived_id(ACCOUNT, name)
    await connection.execute(_OPEN_ACCOUNT, {"id": account_id, "name": name})
    return account_id


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


_OPEN_ACCOUNT = text("INSERT INTO platform.accounts (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING")

_INSERT = text("""
INSERT INTO platform.api_keys (id, account_id, secret_hash, role, kind, name, scopes, expires_at)
VALUES (:id, :account_id, :secret_hash, :role, :kind, :name, :scopes, now() + CAST(:lifetime AS interval))
""")

_FIND = text("""
SELECT account_id, role, kind, scopes, secret_hash FROM platform.api_keys
WHERE id = :id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
""")

_LIST = text("""
SELECT id, role, kind, name, scopes, created_at, expires_at, revoked_at, replaced_by FROM platform.api_keys
WHERE account_id = :account_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
ORDER BY created_at DESC, id DESC
""")

_FIND_OF_ACCOUNT = text("""
SELECT id, role, kind, name, scopes, created_at, expires_at, revoked_at, replaced_by FROM platform.api_keys
WHERE account_id = :account_id AND id = :id
""")

_LOCK = text("""
SELECT role, kind, name, scopes, expires_at - now() AS left FROM platform.api_keys
WHERE account_id = :account_id AND id = :id AND revoked_at IS NULL AND replaced_by IS NULL
    AND (expires_at IS NULL OR expires_at > now())
FOR UPDATE
""")

_REPLACE = text("""
UPDATE platform.api_keys
SET replaced_by = :by, expires_at = least(expires_at, now() + CAST(:overlap AS interval))
WHERE id = :id
""")

_REVOKE = text("""
UPDATE platform.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE account_id = :account_id AND id = :id
""")
