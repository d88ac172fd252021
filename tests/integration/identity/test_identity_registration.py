"""Somebody becomes a user, on the whole platform. Codes come by e-mail and SMS; nothing tells who is a user already."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from identity.registration import forget_expired
from tests.support.app import PASSWORD, App, Someone, code_in, wrong
from tests.support.shop import Json, Shop, until

_TABLES = """
SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname IN ('identity', 'platform', 'notify')
"""


async def _execute(database: AsyncEngine, statement: str, **values: object) -> None:
    async with database.begin() as connection:
        await connection.execute(text(statement), values)


def _refused(response: object, status: int, code: str) -> Json:
    error: Json = response.json()["error"]  # type: ignore[attr-defined]
    assert (response.status_code, error["code"]) == (status, code), error  # type: ignore[attr-defined]
    return error


async def test_two_codes_make_a_user_with_a_session_who_can_sign_in(app: App) -> None:
    someone = Someone()
    registration = await app.begin(someone)
    assert (registration["status"], registration["user"], registration["session"]) == ("pending", None, None)

    half = (await app.verify(registration["id"], "email", await app.code(someone.email))).json()
    assert (half["status"], half["email"]["verified"], half["phone"]["verified"]) == ("pending", True, False)

    done = (await app.verify(registration["id"], "phone", await app.code(someone.phone))).json()
    assert done["status"] == "completed"
    user = (await app.get(f"/v1/users/{done['user']}", done["session"]["token"])).json()
    assert (user["name"], user["email"], user["phone"]) == (someone.name, someone.email, someone.phone)

    for login in ({"email": someone.email.upper()}, {"phone": someone.phone}):
        signed_in = await app.sign_in(**login, password=PASSWORD)
        assert (signed_in.status_code, signed_in.json()["user"]) == (201, done["user"])


async def test_a_registration_that_is_sent_again_is_the_same_and_sends_nothing_more(app: App) -> None:
    someone = Someone()
    headers = {"Idempotency-Key": f"again-{someone.phone}"}
    answers = await asyncio.gather(
        *(app.http.post("/v1/registrations", json=someone.body(), headers=headers) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    await app.code(someone.phone)
    assert len(await app.sandbox.messages(someone.phone)) == 1


@pytest.mark.parametrize("known", ["email", "phone"])
async def test_the_owner_of_a_known_contact_is_told_and_whoever_asks_learns_nothing(app: App, known: str) -> None:
    owner, stranger = Someone(), Someone()
    user = (await app.register(owner))["user"]
    address = getattr(owner, known)
    before = len(await app.sandbox.messages(address))

    fresh = (await app.post("/v1/registrations", Someone().body())).json()
    response = await app.post("/v1/registrations", stranger.body(**{known: address}))
    assert response.status_code == 201
    assert response.json().keys() == fresh.keys()
    assert response.json()[known].keys() == fresh[known].keys()
    assert response.json()[known]["attempts_remaining"] == fresh[known]["attempts_remaining"]

    told = await until(lambda: app.sandbox.messages(address), lambda found: len(found) > before)
    assert "already" in str(told[0])
    # No code is right, and each is refused as a wrong one is, up to the last attempt.
    path = (response.json()["id"], known)
    for left in (4, 3, 2, 1, 0):
        assert _refused(await app.verify(*path, "000000"), 422, "code_incorrect")["attempts_remaining"] == left
    _refused(await app.verify(*path, "000000"), 409, "code_attempts_exceeded")
    assert (await app.sign_in(**{known: address}, password=PASSWORD)).json()["user"] == user


async def test_known_and_unknown_contacts_take_the_same_time(app: App) -> None:
    """Compared by their medians, alternating, so that the machine's other work falls on both."""
    taken: dict[str, list[float]] = {"known": [], "unknown": []}
    owners = [Someone() for _ in range(4)]
    for owner in owners:
        await app.register(owner)
    for attempt in range(16):
        for kind, email in (("known", owners[attempt % 4].email), ("unknown", Someone().email)):
            started = time.perf_counter()
            response = await app.post("/v1/registrations", Someone().body(email=email))
            taken[kind].append(time.perf_counter() - started)
            assert response.status_code == 201, response.text
    known, unknown = (statistics.median(taken[kind]) for kind in ("known", "unknown"))
    spread = statistics.quantiles(taken["unknown"], n=4)
    assert abs(known - unknown) < max(spread[2] - spread[0], 0.15 * unknown), (known, unknown, spread)


async def test_of_many_guesses_at_once_five_are_judged(app: App) -> None:
    someone = Someone()
    registration = await app.begin(someone)
    right = await app.code(someone.email)
    guesses = [f"{(int(right) + number) % 1_000_000:06d}" for number in range(1, 41)]
    answers = await asyncio.gather(*(app.verify(registration["id"], "email", guess) for guess in guesses))
    codes = sorted(answer.json()["error"]["code"] for answer in answers)
    assert codes == ["code_attempts_exceeded"] * 35 + ["code_incorrect"] * 5
    _refused(await app.verify(registration["id"], "email", right), 409, "code_attempts_exceeded")


async def test_a_code_is_good_once_also_for_many_at_once(app: App) -> None:
    someone = Someone()
    registration = await app.begin(someone)
    await app.verify(registration["id"], "phone", await app.code(someone.phone))
    code = await app.code(someone.email)
    answers = await asyncio.gather(*(app.verify(registration["id"], "email", code) for _ in range(5)))
    completed = [answer for answer in answers if answer.status_code == 200]
    assert len(completed) == 1
    assert completed[0].json()["session"] is not None


async def test_an_expired_code_is_refused_and_another_one_takes_its_place(app: App, database: AsyncEngine) -> None:
    someone = Someone()
    registration = await app.begin(someone)
    first = await app.code(someone.email)
    await _execute(
        database,
        "UPDATE identity.contact_codes SET expires_at = now(), sent_at = now() - interval '1 hour'"
        " WHERE registration_id = :id",
        id=registration["id"],
    )
    _refused(await app.verify(registration["id"], "email", first), 409, "code_expired")

    again = await app.post(f"/v1/registrations/{registration['id']}/resend", {"contact": "email"})
    assert again.status_code == 200, again.text
    second = await app.code(someone.email, known=1)
    if first != second:
        _refused(await app.verify(registration["id"], "email", first), 422, "code_incorrect")
    assert (await app.verify(registration["id"], "email", second)).json()["email"]["verified"]
    _refused(await app.verify(registration["id"], "email", second), 409, "code_used")


async def test_a_code_is_not_sent_again_at_once(app: App) -> None:
    registration = await app.begin(Someone())
    response = await app.post(f"/v1/registrations/{registration['id']}/resend", {"contact": "phone"})
    _refused(response, 429, "too_many_codes")
    assert 0 < int(response.headers["Retry-After"]) <= 30


async def test_an_address_is_sent_so_many_codes_and_no_more_whoever_asks(app: App) -> None:
    victim = Someone()
    answers = [await app.post("/v1/registrations", Someone().body(phone=victim.phone)) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [201] * 6 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 3000


async def test_of_two_who_prove_the_same_address_one_gets_it(app: App) -> None:
    first, second = Someone(), Someone()
    shared = first.email
    begun = [await app.begin(first), (await app.post("/v1/registrations", second.body(email=shared))).json()]
    mails = await until(lambda: app.sandbox.messages(shared), lambda found: len(found) == 2)
    given = {code_in(mail) for mail in mails}
    for registration, someone in zip(begun, (first, second), strict=True):
        await app.verify(registration["id"], "phone", await app.code(someone.phone))
    outcomes = []
    for registration in begun:
        for code in given:
            response = await app.verify(registration["id"], "email", code)
            if response.status_code != 422:
                outcomes.append((response.status_code, response.json().get("error", {}).get("code")))
                break
    assert outcomes == [(200, None), (409, "contact_taken")]


@pytest.mark.parametrize(
    ("changed", "code", "param"),
    [
        ({"password": "short"}, "password_refused", "password"),
        ({"password": "correct horse battery staple"}, "password_refused", "password"),
        ({"password": "Grace Hopper grace"}, "password_refused", "password"),
        ({"email": "no address"}, "parameter_invalid", "email"),
        ({"email": "a@b..com"}, "parameter_invalid", "email"),
        ({"phone": "0415 555 0100"}, "parameter_invalid", "phone"),
        ({"role": "operator"}, "parameter_unknown", "role"),
    ],
)
async def test_what_cannot_be_registered_is_named_and_leaves_nothing(
    app: App, database: AsyncEngine, changed: Json, code: str, param: str
) -> None:
    someone = Someone()
    error = _refused(await app.post("/v1/registrations", someone.body(**changed)), 422, code)
    assert error["param"] == param
    async with database.connect() as connection:
        statement = text("SELECT count(*) FROM identity.registrations WHERE email = :email OR phone = :phone")
        assert await connection.scalar(statement, {"email": someone.email, "phone": someone.phone}) == 0


async def test_another_accounts_registration_does_not_exist(app: App, shop: Shop, database: AsyncEngine) -> None:
    other = await Shop.open(app.access, database)
    foreign = await App.of(app.access, database, other.account_id, app.sandbox)
    someone = Someone()
    registration = await app.begin(someone)
    code = await app.code(someone.email)
    _refused(await foreign.verify(registration["id"], "email", code), 404, "resource_missing")
    _refused(await foreign.http.get(f"/v1/registrations/{registration['id']}"), 404, "resource_missing")
    _refused(await app.verify(registration["id"], "email", wrong(code)), 422, "code_incorrect")
    await foreign.close()
    await other.http.aclose()


async def test_who_applied_is_forgotten_a_day_after_it_expired(app: App, database: AsyncEngine) -> None:
    waiting, done, gone = Someone(), Someone(), Someone()
    kept = await app.begin(waiting)
    user = (await app.register(done))["user"]
    forgotten = await app.begin(gone)
    for someone in (done, gone):
        await _execute(
            database,
            "UPDATE identity.registrations SET expires_at = now() - interval '2 days' WHERE email = :email",
            email=someone.email,
        )
    assert await forget_expired(database) >= 2
    async with database.connect() as connection:
        statement = text("SELECT id FROM identity.registrations WHERE email = ANY(:emails)")
        emails = [someone.email for someone in (waiting, done, gone)]
        assert (await connection.execute(statement, {"emails": emails})).scalars().all() == [kept["id"]]
    _refused(await app.http.get(f"/v1/registrations/{forgotten['id']}"), 404, "resource_missing")
    assert (await app.sign_in(email=done.email, password=PASSWORD)).json()["user"] == user


async def test_no_code_password_or_token_is_kept_in_clear(app: App, database: AsyncEngine) -> None:
    someone = Someone(password=f"canary of {Someone().email}")
    registration = await app.begin(someone)
    code = await app.code(someone.email)
    done = (await app.verify(registration["id"], "email", code)).json()
    done = (await app.verify(registration["id"], "phone", await app.code(someone.phone))).json()
    secrets = [str(someone.password), done["session"]["token"], done["session"]["refresh_token"]]
    async with database.connect() as connection:
        tables = await connection.execute(text(_TABLES))
        for table in [row.name for row in tables]:
            rows = await connection.execute(text(f"SELECT * FROM {table} AS content"))
            content = " ".join(str(tuple(row)) for row in rows)
            assert not [secret for secret in secrets if secret in content], table
            if table in ("identity.contact_codes", "platform.outbox", "notify.deliveries"):
                assert f"'{code}'" not in content
