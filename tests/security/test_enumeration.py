"""Whether somebody, something or a secret exists: no answer tells, neither by its words nor by its time.

What is known and what is not are asked about in turns. Words are compared without what differs between any two answers;
times by their medians, with generous bounds and up to three tries, because a busy machine can do anything once. What
no clock can prove, counting does: the same statements are run, and as many passwords hashed.
"""

from __future__ import annotations

import re
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import argon2
import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.contact_codes import ContactCodes
from domain.ids import ACCOUNT, REGISTRATION, USER, new_id
from identity import contacts
from identity.codes import ContactCodeDesk
from identity.credentials import Credentials
from identity.errors import PasswordIncorrect
from identity.locks import Locks
from identity.passwords import Passwords
from identity.registration import Applicant, Registrations
from identity.sessions import Sessions
from tests.support.app import PASSWORD, App, Someone
from tests.support.authenticator import Authenticator
from tests.support.member import Member, signed_up
from tests.support.platform import Access
from tests.support.shop import Json, Sandbox, Shop, http_client, new_key

SAMPLES = 14
TRIES = 3
Ask = Callable[[], Awaitable[httpx.Response]]


@pytest_asyncio.fixture(scope="module")
async def app(platform: Access, database: AsyncEngine, shop: Shop, sandbox: Sandbox) -> AsyncIterator[App]:
    app = await App.of(platform, database, shop.account_id, sandbox)
    yield app
    await app.close()


@pytest_asyncio.fixture(scope="module")
async def member(app: App, platform: Access) -> Member:
    return await signed_up(app, platform)


async def known_person(database: AsyncEngine, account_id: str) -> Someone:
    """Somebody whose e-mail address and phone are proved, as a row says."""
    someone, user_id = Someone(), new_id(USER)
    async with database.begin() as connection:
        await connection.execute(text(NEW_USER), {"user": user_id, "account": account_id})
        for contact in (contacts.email(someone.email), contacts.phone(someone.phone)):
            values = {"user": user_id, "account": account_id, "kind": contact.kind.value}
            values |= {"address": contact.address, "lookup": contact.lookup}
            await connection.execute(text(NEW_CONTACT), values)
    return someone


def words(response: httpx.Response) -> tuple[int, str, list[str]]:
    """What an answer says, without ids, times and what a request itself named."""
    said = re.sub(r"\b(?:req|reg|otc|usr|pm|ses|pay|pky)_[A-Za-z0-9]+", "…", response.text)
    said = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", said)
    headers = sorted(name for name in response.headers if not name.startswith("ratelimit"))
    return response.status_code, re.sub(r'"challenge":"[^"]+"', "…", said), headers


async def check_alike(known: Ask, unknown: Ask) -> None:
    """Both answer in the same words and, as far as a clock can tell, in the same time."""
    found = ""
    for _ in range(TRIES):
        taken: dict[str, list[float]] = {"known": [], "unknown": []}
        for turn in range(SAMPLES):
            pair = [("known", known), ("unknown", unknown)]
            said = []
            # Whoever comes first in a turn may find the machine otherwise than who comes second.
            for name, ask in pair if turn % 2 else reversed(pair):
                started = time.perf_counter()
                answer = await ask()
                taken[name].append(time.perf_counter() - started)
                said.append(words(answer))
            assert said[0] == said[1]
        medians = [statistics.median(times) for times in taken.values()]
        low, _, high = statistics.quantiles([*taken["known"], *taken["unknown"]], n=4)
        if abs(medians[0] - medians[1]) < max(high - low, 0.2 * max(medians), 0.004):
            return
        found = f"medians {medians}, quartiles {low} and {high}"
    pytest.fail(f"the times differ: {found}")


async def test_registering_tells_nobody_who_is_a_user(app: App, database: AsyncEngine, shop: Shop) -> None:
    people = [await known_person(database, shop.account_id) for _ in range(SAMPLES * TRIES)]

    async def known() -> httpx.Response:
        return await app.post("/v1/registrations", people.pop().body())

    async def unknown() -> httpx.Response:
        return await app.post("/v1/registrations", Someone().body())

    await check_alike(known, unknown)


async def test_asking_for_a_reset_tells_nobody_who_is_a_user(app: App, database: AsyncEngine, shop: Shop) -> None:
    people = [await known_person(database, shop.account_id) for _ in range(SAMPLES * TRIES)]

    async def known() -> httpx.Response:
        return await app.post("/v1/password_resets", {"email": people.pop().email})

    async def unknown() -> httpx.Response:
        return await app.post("/v1/password_resets", {"email": Someone().email})

    await check_alike(known, unknown)


async def test_a_wrong_code_and_another_sending_say_the_same_whoever_has_the_address(
    app: App, database: AsyncEngine, shop: Shop
) -> None:
    begun = [await app.begin(person) for person in (await known_person(database, shop.account_id), Someone())]
    for path, body in (
        ("verify_email", {"code": "000000"}),
        ("verify_phone", {"code": "000000"}),
        ("resend", {"contact": "email"}),
    ):
        said = [words(await app.post(f"/v1/registrations/{each['id']}/{path}", body)) for each in begun]
        assert said[0] == said[1], path
        assert said[0][0] in (422, 429)
    shown = [words(await app.http.get(f"/v1/registrations/{each['id']}")) for each in begun]
    assert shown[0] == shown[1]


async def test_signing_in_tells_nobody_who_has_a_password(app: App, member: Member, database: AsyncEngine) -> None:
    """The times of known and unknown users are compared in test_identity_sign_in.py; here it is who has none."""
    without = [await known_person(database, await _account(database, member)) for _ in range(SAMPLES * TRIES)]

    async def known() -> httpx.Response:
        return await app.sign_in(email=without.pop().email, password=PASSWORD)

    async def unknown() -> httpx.Response:
        return await app.sign_in(email=Someone().email, password=PASSWORD)

    await check_alike(known, unknown)


async def test_a_contact_that_is_taken_is_asked_for_like_a_free_one(
    app: App, member: Member, database: AsyncEngine
) -> None:
    taken = await known_person(database, await _account(database, member))
    path = f"/v1/users/{member.user_id}/contact_changes"
    said = [words(await member.post(path, {"email": each.email})) for each in (taken, Someone())]
    assert said[0] == said[1]


async def test_passkey_options_are_the_same_for_everybody(app: App, member: Member) -> None:
    await member.add_passkey()
    said = [await app.post("/v1/sessions/passkey_options") for _ in range(2)]
    assert words(said[0]) == words(said[1])
    assert said[0].json()["public_key"].get("allowCredentials", []) == []


async def test_a_passkey_that_is_known_unknown_removed_or_suspended_is_refused_alike_without_its_key(
    app: App, platform: Access, database: AsyncEngine
) -> None:
    """Whoever knows its id and not its key learns nothing of it."""
    stranger, members = Authenticator(origin=""), []
    for _ in range(3):
        member = await signed_up(app, platform)
        await member.add_passkey()
        members.append(member)
    async with database.begin() as connection:
        for member, change in ((members[1], "removed_at"), (members[2], "suspended_at")):
            await connection.execute(
                text(f"UPDATE identity.passkeys SET {change} = now() WHERE user_id = :user"), {"user": member.user_id}
            )
    stranger.origin = members[0].authenticator.origin

    async def refused(credential_id: bytes, handle: str | None) -> httpx.Response:
        options = (await app.post("/v1/sessions/passkey_options")).json()["public_key"]
        stranger.credential_id, stranger.user_handle = credential_id, handle
        return await app.post("/v1/sessions/passkey", {"credential": stranger.sign(options)})

    answers = [
        await refused(member.authenticator.credential_id, member.authenticator.user_handle) for member in members
    ]
    answers.append(await refused(secrets.token_bytes(32), members[0].authenticator.user_handle))
    assert len({words(answer)[:2] for answer in answers}) == 1
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (401, "passkey_not_accepted")
    known = members[0].authenticator
    await check_alike(
        lambda: refused(known.credential_id, known.user_handle),
        lambda: refused(secrets.token_bytes(32), known.user_handle),
    )


async def test_refresh_tokens_that_are_unknown_used_or_ended_are_refused_alike(app: App, platform: Access) -> None:
    member = await signed_up(app, platform)
    second = (await app.refresh(member.refresh_token)).json()
    third = (await app.refresh(second["refresh_token"])).json()
    await app.post("/v1/sessions/sign_out", token=third["token"])
    dead = (member.refresh_token, second["refresh_token"], third["refresh_token"])
    unknown = f"rt_{secrets.token_urlsafe(32)}"
    answers = [words(await app.refresh(token)) for token in (*dead, unknown, "nonsense")]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 401
    await check_alike(lambda: app.refresh(dead[2]), lambda: app.refresh(f"rt_{secrets.token_urlsafe(32)}"))


async def test_keys_that_are_unknown_or_revoked_are_refused_alike(shop: Shop, platform: Access) -> None:
    revoked: Json = (await shop.post("/v1/api_keys")).json()
    assert (await shop.http.delete(f"/v1/api_keys/{revoked['id']}")).status_code == 204
    like_it = revoked["key"][:-20] + secrets.token_hex(10)
    async with http_client(platform, revoked["key"]) as known, http_client(platform, like_it) as unknown:
        answer = await known.get("/v1/payments")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "credentials_invalid")
        await check_alike(lambda: known.get("/v1/payments"), lambda: unknown.get("/v1/payments"))


async def test_what_is_somebody_elses_takes_as_long_as_what_is_not_there(
    shop: Shop, platform: Access, database: AsyncEngine
) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id)
    stranger = await Shop.open(platform, database)
    nowhere = "a" * 24

    def ask(path: str) -> Ask:
        return lambda: stranger.http.get(path)

    def verify(card_id: str) -> Ask:
        path = f"/v1/payment_methods/{card_id}/verify"
        return lambda: stranger.http.post(path, json={}, headers={"Idempotency-Key": new_key()})

    for known, unknown in (
        (ask(f"/v1/payment_methods/{wallet.card_id}"), ask(f"/v1/payment_methods/pm_{nowhere}")),
        (ask(f"/v1/users/{wallet.user_id}"), ask(f"/v1/users/usr_{nowhere}")),
        (ask(f"/v1/payments/{payment['id']}/step_up"), ask(f"/v1/payments/pay_{nowhere}/step_up")),
        (verify(wallet.card_id), verify(f"pm_{nowhere}")),
    ):
        assert (await known()).status_code == 404
        await check_alike(known, unknown)
    await stranger.http.aclose()


# ------------------------------------------------------------------------------------------------------ the same work


class Work:
    """The statements that an engine runs, and how many passwords are hashed or compared."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.hashes = 0


@contextmanager
def counted(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    work = Work()

    def note(*arguments: Any) -> None:
        work.statements.append(arguments[2])

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            work.hashes += 1
            return method(*arguments, **named)

        return call

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    with monkeypatch.context() as patch:
        for name in ("hash", "verify"):
            patch.setattr(argon2.PasswordHasher, name, counting(getattr(argon2.PasswordHasher, name)))
        yield work
    event.remove(engine.sync_engine, "before_cursor_execute", note)


@pytest_asyncio.fixture
async def account(engine: AsyncEngine) -> str:
    identifier = new_id(ACCOUNT)
    async with engine.begin() as connection:
        new = text("INSERT INTO platform.accounts (id, name) VALUES (:id, :id)")
        await connection.execute(new, {"id": identifier})
    return identifier


async def test_known_and_unknown_cost_the_same_statements_and_hashes(
    engine: AsyncEngine, redis: Redis, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher, desk = Passwords(), ContactCodeDesk(engine, ContactCodes(bytes(32)))
    nobody = cast("Sessions", None)  # no session comes of what fails
    credentials = Credentials(engine, hasher, desk, nobody, Locks(redis, bytes(32)))
    registrations = Registrations(engine, hasher, desk, nobody)
    known, with_password = await known_person(engine, account), await known_person(engine, account)
    async with engine.begin() as connection:
        password = {"email": with_password.email, "hash": await hasher.hash(PASSWORD)}
        await connection.execute(text(NEW_PASSWORD), password)

    async def sign_in(someone: Someone) -> None:
        with pytest.raises(PasswordIncorrect):
            await credentials.sign_in(
                account, contacts.email(someone.email), "not this one", address="192.0.2.1", device_name=None
            )

    async def reset(someone: Someone) -> None:
        await credentials.ask_reset(account, contacts.email(someone.email), "en")

    async def register(someone: Someone) -> None:
        email, phone = contacts.email(someone.email), contacts.phone(someone.phone)
        applicant = Applicant(someone.name, email, phone, "en", PASSWORD)
        await registrations.begin(account, new_id(REGISTRATION), applicant)

    for ask, hashes in ((sign_in, 1), (reset, 0), (register, 1)):
        done = []
        for someone in (known, with_password, Someone()):
            with counted(engine, monkeypatch) as work:
                await ask(someone)
            done.append((work.statements, work.hashes))
        assert done[0] == done[1] == done[2]
        assert done[0][0]
        assert done[0][1] == hashes
    hasher.close()


async def _account(database: AsyncEngine, member: Member) -> str:
    async with database.connect() as connection:
        query = text("SELECT account_id FROM platform.users WHERE id = :user")
        return str(await connection.scalar(query, {"user": member.user_id}))


NEW_USER = "INSERT INTO platform.users (id, account_id, name) VALUES (:user, :account, 'Grace Hopper')"
NEW_CONTACT = """
INSERT INTO identity.contacts (user_id, account_id, kind, address, lookup)
VALUES (:user, :account, :kind, :address, :lookup)
"""
NEW_PASSWORD = """
INSERT INTO identity.passwords (user_id, hash) SELECT user_id, :hash FROM identity.contacts WHERE address = :email
"""
