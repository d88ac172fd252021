"""Sessions on PostgreSQL and Redis: their tokens, their end, and what happens when one of the servers forgets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import jwt
import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidTag
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import ACCOUNT, USER, new_id
from embedded.processes import free_port
from identity.errors import RefreshRefused, SessionsUnavailable, TokenInvalid
from identity.revocations import Revocations
from identity.sessions import OpenSession, Revoked, Sessions
from identity.signing_keys import SigningKeys
from identity.tokens import AccessTokens
from store.engine import reading

_LIFETIME = timedelta(minutes=10)
_SECRET = secrets.token_bytes(32)


def _keys(engine: AsyncEngine) -> SigningKeys:
    return SigningKeys(engine, _SECRET, token_lifetime=_LIFETIME, rotate_after=timedelta(days=30))


def _sessions(engine: AsyncEngine, redis: Redis, keys: SigningKeys | None = None) -> Sessions:
    return Sessions(
        engine,
        AccessTokens(keys or _keys(engine), "https://durapay.test", "durapay-test", _LIFETIME),
        Revocations(reading(engine), redis, _LIFETIME),
        _SECRET,
        idle=timedelta(days=30),
        lifetime=timedelta(days=180),
    )


async def _execute(engine: AsyncEngine, statement: str, **values: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), values)


async def _value(engine: AsyncEngine, statement: str, **values: object) -> object:
    async with engine.connect() as connection:
        found: object = await connection.scalar(text(statement), values)
        return found


@pytest_asyncio.fixture(autouse=True)
async def no_keys_of_other_tests(engine: AsyncEngine) -> None:
    """Private halves of other tests' keys are encrypted under other secrets. Keys are not deleted, for good reasons."""
    statement = "ALTER TABLE identity.signing_keys {} TRIGGER keep_signing_key"
    await _execute(engine, statement.format("DISABLE"))
    await _execute(engine, "DELETE FROM identity.signing_keys")
    await _execute(engine, statement.format("ENABLE"))


@pytest_asyncio.fixture
async def user(engine: AsyncEngine) -> AsyncIterator[tuple[str, str]]:
    """An account and a user of it."""
    account_id, user_id = new_id(ACCOUNT), new_id(USER)
    await _execute(engine, "INSERT INTO platform.accounts (id, name) VALUES (:id, :id)", id=account_id)
    statement = "INSERT INTO platform.users (id, account_id, name) VALUES (:id, :account, 'Ada')"
    await _execute(engine, statement, id=user_id, account=account_id)
    yield account_id, user_id


@pytest.fixture
def sessions(engine: AsyncEngine, redis: Redis) -> Sessions:
    return _sessions(engine, redis)


async def _open(sessions: Sessions, user: tuple[str, str]) -> OpenSession:
    return await sessions.open(*user, ["pwd"], device_name="a phone")


# ---------------------------------------------------------------------------------------------------------- refreshing


async def test_a_refresh_token_gets_the_next_pair_and_the_old_access_token_lives_on(
    sessions: Sessions, user: tuple[str, str]
) -> None:
    first = await _open(sessions, user)
    second = await sessions.refresh(first.refresh_token)
    assert second.id == first.id
    assert second.refresh_token != first.refresh_token
    for opened in (first, second):
        assert (await sessions.verify(opened.access_token, reading=False)).session_id == first.id


async def test_a_refresh_token_that_is_used_twice_ends_the_session_and_its_user_is_told(
    engine: AsyncEngine, sessions: Sessions, user: tuple[str, str]
) -> None:
    first = await _open(sessions, user)
    second = await sessions.refresh(first.refresh_token)
    third = await sessions.refresh(second.refresh_token)
    with pytest.raises(RefreshRefused):
        await sessions.refresh(first.refresh_token)
    with pytest.raises(RefreshRefused):
        await sessions.refresh(third.refresh_token)
    with pytest.raises(TokenInvalid):
        await sessions.verify(third.access_token, reading=False)
    statement = "SELECT revoke_reason FROM identity.sessions WHERE id = :id"
    assert await _value(engine, statement, id=first.id) == Revoked.REFRESH_REUSED
    statement = """
        SELECT count(*) FROM notify.owed JOIN platform.outbox event ON event.id = owed.event_id
        JOIN identity.security_events told ON told.id = event.subject_id WHERE told.session_id = :id"""
    assert await _value(engine, statement, id=first.id) == 1


async def test_an_answer_that_was_lost_is_given_again_once_and_soon(
    engine: AsyncEngine, sessions: Sessions, user: tuple[str, str]
) -> None:
    first = await _open(sessions, user)
    lost = await sessions.refresh(first.refresh_token)
    again = await sessions.refresh(first.refresh_token)
    assert again.refresh_token == lost.refresh_token
    # The rule of one use is lifted for this test, as if time had passed.
    await _execute(engine, "ALTER TABLE identity.refresh_tokens DISABLE TRIGGER keep_refresh_token")
    statement = (
        "UPDATE identity.refresh_tokens SET used_at = now() - interval '11 s'"
        " WHERE session_id = :id AND used_at IS NOT NULL"
    )
    await _execute(engine, statement, id=first.id)
    await _execute(engine, "ALTER TABLE identity.refresh_tokens ENABLE TRIGGER keep_refresh_token")
    with pytest.raises(RefreshRefused):
        await sessions.refresh(first.refresh_token)
    with pytest.raises(RefreshRefused):
        await sessions.refresh(again.refresh_token)


async def test_of_many_refreshes_at_once_all_get_the_same_pair(sessions: Sessions, user: tuple[str, str]) -> None:
    first = await _open(sessions, user)
    opened = await asyncio.gather(*(sessions.refresh(first.refresh_token) for _ in range(10)))
    assert len({each.refresh_token for each in opened}) == 1


@pytest.mark.parametrize("token", ["", "rt_", f"rt_{'x' * 43}", "\udc80", "rt_\0"])
async def test_an_unknown_refresh_token_is_refused(sessions: Sessions, token: str) -> None:
    with pytest.raises(RefreshRefused):
        await sessions.refresh(token)


async def test_an_expired_refresh_token_is_refused_and_ends_nothing(
    engine: AsyncEngine, redis: Redis, user: tuple[str, str]
) -> None:
    brief = Sessions(
        engine,
        AccessTokens(_keys(engine), "https://durapay.test", "durapay-test", _LIFETIME),
        Revocations(reading(engine), redis, _LIFETIME),
        _SECRET,
        idle=timedelta(0),
        lifetime=timedelta(days=1),
    )
    opened = await _open(brief, user)
    with pytest.raises(RefreshRefused):
        await brief.refresh(opened.refresh_token)
    assert (await brief.verify(opened.access_token, reading=False)).session_id == opened.id


# -------------------------------------------------------------------------------------------------------------- ending


async def test_an_ended_session_opens_nothing_from_then_on(sessions: Sessions, user: tuple[str, str]) -> None:
    opened, other = await _open(sessions, user), await _open(sessions, user)
    assert [session.id for session in await sessions.list_open(user[1])] == [other.id, opened.id]
    assert await sessions.revoke(user[1], opened.id, Revoked.SIGNED_OUT)
    with pytest.raises(TokenInvalid):
        await sessions.verify(opened.access_token, reading=True)
    with pytest.raises(RefreshRefused):
        await sessions.refresh(opened.refresh_token)
    assert [session.id for session in await sessions.list_open(user[1])] == [other.id]
    assert not await sessions.revoke("usr_other", other.id, Revoked.BY_USER)
    assert (await sessions.verify(other.access_token, reading=False)).user_id == user[1]


async def test_all_sessions_but_one_end_at_once(sessions: Sessions, user: tuple[str, str]) -> None:
    opened = [await _open(sessions, user) for _ in range(3)]
    assert await sessions.revoke_all(user[1], Revoked.PASSWORD_CHANGED, but=opened[1].id) == 2
    for number, each in enumerate(opened):
        if number == 1:
            await sessions.verify(each.access_token, reading=False)
        else:
            with pytest.raises(TokenInvalid):
                await sessions.verify(each.access_token, reading=False)


async def test_an_emptied_redis_forgets_no_end(sessions: Sessions, redis: Redis, user: tuple[str, str]) -> None:
    opened, other = await _open(sessions, user), await _open(sessions, user)
    await sessions.revoke(user[1], opened.id, Revoked.BY_USER)
    await redis.flushdb()
    with pytest.raises(TokenInvalid):
        await sessions.verify(opened.access_token, reading=False)
    assert (await sessions.verify(other.access_token, reading=False)).session_id == other.id


async def test_without_redis_sessions_read_what_postgresql_permits_and_do_nothing_else(
    engine: AsyncEngine, sessions: Sessions, user: tuple[str, str]
) -> None:
    opened, ended = await _open(sessions, user), await _open(sessions, user)
    await sessions.revoke(user[1], ended.id, Revoked.BY_USER)
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}")
    cut_off = _sessions(engine, nowhere)
    assert (await cut_off.verify(opened.access_token, reading=True)).session_id == opened.id
    with pytest.raises(TokenInvalid):
        await cut_off.verify(ended.access_token, reading=True)
    with pytest.raises(SessionsUnavailable):
        await cut_off.verify(opened.access_token, reading=False)
    # An end that cannot be told is not confirmed; it holds all the same.
    with pytest.raises(SessionsUnavailable):
        await cut_off.revoke(user[1], opened.id, Revoked.BY_USER)
    assert await sessions.revoke(user[1], opened.id, Revoked.BY_USER)
    with pytest.raises(TokenInvalid):
        await sessions.verify(opened.access_token, reading=True)
    await nowhere.aclose()


# -------------------------------------------------------------------------------------------------------- signing keys


async def test_the_next_key_is_published_before_it_signs_and_the_old_one_trusted_after(
    engine: AsyncEngine, redis: Redis, user: tuple[str, str]
) -> None:
    keys = _keys(engine)
    sessions = _sessions(engine, redis, keys)
    before = await keys.current()
    assert len(before.trusted) == 2
    opened = await _open(sessions, user)
    after = await keys.rotate()
    assert after.active_id in before.trusted
    assert after.active_id != before.active_id
    assert before.active_id in after.trusted
    again = await _open(sessions, user)
    assert jwt.get_unverified_header(again.access_token)["kid"] == after.active_id
    # Another process, whose copy is the old one, knows the new key; and the new process knows the old one.
    for token in (opened.access_token, again.access_token):
        await sessions.verify(token, reading=False)
        await _sessions(engine, redis).verify(token, reading=False)
    statement = "SELECT count(*) FROM identity.signing_keys WHERE state = 'retired' AND sealed_private_key IS NULL"
    assert await _value(engine, statement) == 1


async def test_a_key_that_is_distrusted_ends_its_tokens_at_once(
    engine: AsyncEngine, redis: Redis, user: tuple[str, str]
) -> None:
    keys = _keys(engine)
    sessions = _sessions(engine, redis, keys)
    opened = await _open(sessions, user)
    await keys.rotate(distrust=True)
    with pytest.raises(TokenInvalid):
        await sessions.verify(opened.access_token, reading=False)
    assert (await sessions.refresh(opened.refresh_token)).id == opened.id


async def test_an_old_key_is_followed_by_the_next_whichever_process_notices(engine: AsyncEngine) -> None:
    first = await _keys(engine).current()
    impatient = [SigningKeys(engine, _SECRET, token_lifetime=_LIFETIME, rotate_after=timedelta(0)) for _ in range(4)]
    await asyncio.sleep(0.01)
    found = await asyncio.gather(*(each.current() for each in impatient))
    assert all(each.active_id != first.active_id for each in found)
    statement = "SELECT count(*) FROM identity.signing_keys WHERE state = :state"
    assert [await _value(engine, statement, state=state) for state in ("next", "active")] == [1, 1]


async def test_the_key_set_holds_public_halves_alone(engine: AsyncEngine) -> None:
    keys = (await _keys(engine).current()).as_jwks()["keys"]
    assert len(keys) == 2
    for key in keys:
        assert key.keys() == {"kty", "crv", "use", "alg", "kid", "x", "y"}
        assert jwt.PyJWK(key).key_id == key["kid"]


async def test_a_private_half_opens_with_the_right_secret_alone(engine: AsyncEngine) -> None:
    await _keys(engine).current()
    other = SigningKeys(engine, bytes(32), token_lifetime=_LIFETIME, rotate_after=timedelta(days=30))
    with pytest.raises(InvalidTag):
        await other.current()


# ------------------------------------------------------------------------------------------- rules in the database


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE identity.sessions SET revoked_at = NULL, revoke_reason = NULL WHERE id = :ended",
        "UPDATE identity.sessions SET user_id = (SELECT min(id) FROM platform.users) WHERE id = :open",
        "UPDATE identity.sessions SET expires_at = expires_at + interval '1 day' WHERE id = :open",
        "UPDATE identity.sessions SET revoked_at = now() WHERE id = :open",
        "UPDATE identity.refresh_tokens SET used_at = NULL WHERE session_id = :refreshed AND used_at IS NOT NULL",
        "UPDATE identity.refresh_tokens SET expires_at = now() + interval '1 year' WHERE session_id = :open",
        "INSERT INTO identity.refresh_tokens (token_hash, session_id, generation, expires_at)"
        " VALUES (sha256('x'), :open, 9, now() + interval '1 day')",
        "UPDATE identity.signing_keys SET state = 'next', activated_at = NULL WHERE state = 'active'",
        "DELETE FROM identity.signing_keys",
        "UPDATE identity.security_events SET kind = 'nothing'",
        "DELETE FROM identity.security_events",
    ],
)
async def test_the_database_keeps_the_rules_against_raw_sql(
    engine: AsyncEngine, sessions: Sessions, user: tuple[str, str], statement: str
) -> None:
    opened, ended, refreshed = [await _open(sessions, user) for _ in range(3)]
    await sessions.revoke(user[1], ended.id, Revoked.BY_USER)
    await sessions.refresh(refreshed.refresh_token)
    values = {"open": opened.id, "ended": ended.id, "refreshed": refreshed.id}
    named = {name: value for name, value in values.items() if f":{name}" in statement}
    with pytest.raises(IntegrityError):
        await _execute(engine, statement, **named)
