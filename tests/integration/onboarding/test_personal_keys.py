"""A person's key is wrapped by the HSM, lent to one worker, and gone for good once it is destroyed."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError as ConstraintViolated
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.softhsm import HsmToken, find_module
from onboarding.cases import Borrower
from onboarding.errors import LoanLapsed
from sealing import SealBroken, Sealer, Unsealer
from sealing.personal import seal, unseal
from tests.support.persons import add_user
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.hsm.provider import IntegrityError
from vault.personal_keys import PersonalKeyDestroyed, PersonalKeys

PRIVATE = secrets.token_bytes(32)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def provider(hsm_token: HsmToken) -> Iterator[Pkcs11Provider]:
    provider = Pkcs11Provider(find_module(), hsm_token.label, hsm_token.pin)
    yield provider
    provider.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@pytest_asyncio.fixture
async def keys(
    engine: AsyncEngine, redis: Redis, provider: Pkcs11Provider, clock: Clock
) -> AsyncIterator[PersonalKeys]:
    keys = PersonalKeys(engine, redis, provider, Sealer(_public(PRIVATE)), clock=clock)
    yield keys
    keys.close()


async def test_a_user_has_one_key_and_keeps_it(keys: PersonalKeys, engine: AsyncEngine) -> None:
    user = await add_user(engine)
    first = await keys.key_of(user.user_id)
    assert await keys.key_of(user.user_id) == first
    assert first.key.hex() not in repr(first)
    other = await keys.key_of((await add_user(engine)).user_id)
    assert other.key != first.key


async def test_the_key_is_in_the_database_only_wrapped_and_bound_to_its_user(
    keys: PersonalKeys, engine: AsyncEngine
) -> None:
    user, thief = await add_user(engine), await add_user(engine)
    key = await keys.key_of(user.user_id)
    await keys.key_of(thief.user_id)
    async with engine.begin() as connection:
        row = (await connection.execute(_ROW, {"user": user.user_id})).one()
        assert key.key not in bytes(row.wrapped_key)
        await connection.execute(
            text("UPDATE vault.personal_keys SET iv = :iv, wrapped_key = :key WHERE user_id = :user"),
            {"iv": row.iv, "key": row.wrapped_key, "user": thief.user_id},
        )
    with pytest.raises(IntegrityError):
        await keys.key_of(thief.user_id)


async def test_a_loan_is_taken_once_and_by_its_borrower_alone(
    keys: PersonalKeys, engine: AsyncEngine, redis: Redis
) -> None:
    user = await add_user(engine)
    borrower = Borrower(redis, Unsealer([PRIVATE]))
    handle = await keys.lend(user.user_id)
    assert 0 < await redis.ttl(handle) <= 300
    lent = await borrower.take(handle)
    assert (lent.user_id, lent.key) == (user.user_id, (await keys.key_of(user.user_id)).key)
    with pytest.raises(LoanLapsed):
        await borrower.take(handle)
    with pytest.raises(SealBroken):
        await Borrower(redis, Unsealer([secrets.token_bytes(32)])).take(await keys.lend(user.user_id))


async def test_a_destroyed_key_is_gone_from_rows_and_from_the_hsm(
    keys: PersonalKeys, engine: AsyncEngine, provider: Pkcs11Provider, clock: Clock
) -> None:
    """Also a copy of the row from before the erasure, as a backup has it, opens nothing any more."""
    first, second = await add_user(engine), await add_user(engine)
    key = await keys.key_of(first.user_id)
    await keys.key_of(second.user_id)
    sealed = seal(key.key, b"Anna Eriksson", "details")
    for user in (first, second):
        await keys.retire(user.user_id)
        await keys.retire(user.user_id)
    assert await keys.key_of(first.user_id) == key
    backup = await _row(engine, first.user_id)
    assert backup.wrapped_by == "PDK-closed-2026-11"

    clock.now = datetime(2031, 11, 23, tzinfo=UTC)
    assert await keys.destroy(first.user_id) == key.key_id
    assert await keys.destroy(first.user_id) == key.key_id
    with pytest.raises(PersonalKeyDestroyed):
        await keys.key_of(first.user_id)
    # Somebody who closed in the same month is still there.
    assert backup.wrapped_by in provider.key_labels()
    await keys.destroy(second.user_id)
    assert backup.wrapped_by not in provider.key_labels()
    with pytest.raises(SealBroken):
        unseal(secrets.token_bytes(32), sealed, "details")


async def test_who_never_said_anything_has_nothing_to_destroy(keys: PersonalKeys, engine: AsyncEngine) -> None:
    user = await add_user(engine)
    await keys.retire(user.user_id)
    assert await keys.destroy(user.user_id) is None


async def test_the_database_brings_no_key_back(keys: PersonalKeys, engine: AsyncEngine) -> None:
    user = await add_user(engine)
    await keys.key_of(user.user_id)
    row = await _row(engine, user.user_id)
    await keys.destroy(user.user_id)
    back = "UPDATE vault.personal_keys SET destroyed_at = NULL, wrapped_by = 'x', iv = :iv, wrapped_key = :key"
    for statement in (f"{back} WHERE user_id = :user", "DELETE FROM vault.personal_keys WHERE user_id = :user"):
        parameters = {"iv": row.iv, "key": row.wrapped_key, "user": user.user_id}
        with pytest.raises(ConstraintViolated):
            async with engine.begin() as connection:
                await connection.execute(text(statement), parameters)


_ROW = text("SELECT * FROM vault.personal_keys WHERE user_id = :user")


async def _row(engine: AsyncEngine, user_id: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(_ROW, {"user": user_id})).one()
