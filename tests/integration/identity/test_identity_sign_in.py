"""Signing in, changing what one signs in with, and keys that may do less, on the whole platform."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.scopes import Access
from domain.scopes import Scope
from identity.registration import forget_expired
from tests.support.app import PASSWORD, App, Someone, wrong
from tests.support.shop import GOOD_CARD, Json, Shop, http_client, new_key, until

_NEW = "herons wade in silence"


def _check(response: httpx.Response, status: int, code: str) -> Json:
    error: Json = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    return error


@pytest_asyncio.fixture
async def someone(app: App) -> tuple[Someone, Json]:
    """A user and the session of their registration."""
    person = Someone()
    session: Json = (await app.register(person))["session"]
    return person, session


async def _told(app: App, address: str, words: str) -> None:
    await until(lambda: app.sandbox.messages(address), lambda found: any(words in str(each) for each in found))


# ------------------------------------------------------------------------------------------------------------ sign-in


async def test_a_wrong_password_and_an_unknown_user_are_refused_in_the_same_words(
    app: App, someone: tuple[Someone, Json]
) -> None:
    known = await app.sign_in(email=someone[0].email, password=_NEW)
    unknown = await app.sign_in(email=Someone().email, password=_NEW)
    errors = [_check(response, 401, "sign_in_failed") for response in (known, unknown)]
    for error in errors:
        error.pop("request_id")
    assert errors[0] == errors[1]
    assert known.headers.keys() == unknown.headers.keys()


async def test_a_wrong_password_and_an_unknown_user_take_the_same_time(app: App) -> None:
    owners = [Someone() for _ in range(6)]
    await asyncio.gather(*(app.register(owner) for owner in owners))
    taken: dict[str, list[float]] = {"known": [], "unknown": []}
    for round_ in range(18):
        for kind, email in (("known", owners[round_ % 6].email), ("unknown", Someone().email)):
            started = time.perf_counter()
            response = await app.sign_in(email=email, password=_NEW)
            taken[kind].append(time.perf_counter() - started)
            _check(response, 401, "sign_in_failed")
        # The address is this machine's for every test: what fails here must not lock the others out.
        await app.sign_in(email=owners[round_ % 6].email, password=PASSWORD)
    known, unknown = (statistics.median(taken[kind]) for kind in ("known", "unknown"))
    quartiles = statistics.quantiles(taken["unknown"], n=4)
    assert abs(known - unknown) < max(quartiles[2] - quartiles[0], 0.15 * unknown), (known, unknown, quartiles)


async def test_a_password_that_is_guessed_at_is_locked_also_for_who_knows_it(
    app: App, someone: tuple[Someone, Json]
) -> None:
    answers = await asyncio.gather(*(app.sign_in(email=someone[0].email, password=_NEW) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 7
    locked = await app.sign_in(email=someone[0].email, password=PASSWORD)
    if locked.status_code == 429:  # the first wait is a second, and the machine may be slow
        assert int(_retry(locked)) >= 1

    async def sign_in() -> httpx.Response:
        return await app.sign_in(email=someone[0].email, password=PASSWORD)

    assert (await until(sign_in, lambda answer: answer.status_code != 429)).status_code == 201


def _retry(response: httpx.Response) -> str:
    _check(response, 429, "sign_in_locked")
    return response.headers["Retry-After"]


# ----------------------------------------------------------------------------------------------------------- sessions


async def test_sessions_are_listed_refreshed_and_ended(app: App, someone: tuple[Someone, Json]) -> None:
    person, first = someone
    second = (await app.sign_in(phone=person.phone, password=PASSWORD)).json()
    path = f"/v1/users/{first['user']}/sessions"
    listed = (await app.get(path, second["token"])).json()["data"]
    assert [(each["id"], each["current"]) for each in listed] == [(second["id"], True), (first["id"], False)]
    assert [each["methods"] for each in listed] == [["pwd"], ["otp", "sms"]]

    refreshed = (await app.refresh(second["refresh_token"])).json()
    assert (refreshed["id"], refreshed["user"]) == (second["id"], second["user"])

    headers = {"Authorization": f"Bearer {refreshed['token']}"}
    assert (await app.http.delete(f"{path}/{first['id']}", headers=headers)).status_code == 204
    _check(await app.get(path, first["token"]), 401, "credentials_invalid")
    _check(await app.http.delete(f"{path}/ses_none", headers=headers), 404, "resource_missing")

    assert (await app.post("/v1/sessions/sign_out", token=refreshed["token"])).status_code == 204
    for token in (second["token"], refreshed["token"]):
        _check(await app.get(path, token), 401, "credentials_invalid")
    _check(await app.refresh(refreshed["refresh_token"]), 401, "refresh_token_invalid")


async def test_a_stolen_refresh_token_ends_the_session_and_its_owner_hears_of_it(
    app: App, someone: tuple[Someone, Json]
) -> None:
    person, session = someone
    stolen = session["refresh_token"]
    second = (await app.refresh(stolen)).json()
    third = (await app.refresh(second["refresh_token"])).json()
    _check(await app.refresh(stolen), 401, "refresh_token_invalid")
    _check(await app.refresh(third["refresh_token"]), 401, "refresh_token_invalid")
    _check(await app.get(f"/v1/users/{session['user']}", third["token"]), 401, "credentials_invalid")
    await _told(app, person.email, "signed out")


async def test_the_published_keys_verify_a_session_token(app: App, someone: tuple[Someone, Json]) -> None:
    async with http_client(app.access, None) as anybody:
        published = (await anybody.get("/.well-known/jwks.json")).json()["keys"]
    token = someone[1]["token"]
    key = next(each for each in published if each["kid"] == jwt.get_unverified_header(token)["kid"])
    claims: Json = jwt.decode(token, jwt.PyJWK(key), algorithms=["ES256"], audience="durapay-api")
    assert (claims["sub"], claims["sid"]) == (someone[1]["user"], someone[1]["id"])
    assert claims["exp"] - claims["iat"] == 600


# -------------------------------------------------------------------------------------------- passwords and contacts


async def test_a_changed_password_ends_the_other_sessions_and_is_told(app: App, someone: tuple[Someone, Json]) -> None:
    person, session = someone
    other = (await app.sign_in(email=person.email, password=PASSWORD)).json()
    path = f"/v1/users/{session['user']}/password"
    _check(await app.post(path, {"password": _NEW}, token=session["token"]), 401, "password_incorrect")
    bad = {"current_password": PASSWORD, "password": "too short"}
    _check(await app.post(path, bad, token=session["token"]), 422, "password_refused")
    good = {"current_password": PASSWORD, "password": _NEW}
    assert (await app.post(path, good, token=session["token"])).status_code == 204
    _check(await app.get(f"/v1/users/{session['user']}", other["token"]), 401, "credentials_invalid")
    assert (await app.get(f"/v1/users/{session['user']}", session["token"])).status_code == 200
    _check(await app.sign_in(email=person.email, password=PASSWORD), 401, "sign_in_failed")
    assert (await app.sign_in(email=person.email, password=_NEW)).status_code == 201
    await _told(app, person.email, "password was changed")


async def test_a_code_resets_the_password_of_a_user_and_of_nobody_else(app: App, someone: tuple[Someone, Json]) -> None:
    person, session = someone
    seen = len(await app.sandbox.messages(person.email))
    asked = [await app.post("/v1/password_resets", {"email": email}) for email in (person.email, Someone().email)]
    assert [answer.status_code for answer in asked] == [201, 201]
    known, unknown = (answer.json() for answer in asked)
    assert {name: known[name] for name in known if name.endswith("remaining")} == {"attempts_remaining": 5}
    assert known.keys() == unknown.keys()

    code = await app.code(person.email, known=seen)
    guess = {"code": wrong(code), "password": _NEW}
    for reset in (known, unknown):
        _check(await app.post(f"/v1/password_resets/{reset['id']}/confirm", guess), 422, "code_incorrect")
    right = {"code": code, "password": _NEW}
    _check(await app.post(f"/v1/password_resets/{unknown['id']}/confirm", right), 422, "code_incorrect")
    assert (await app.post(f"/v1/password_resets/{known['id']}/confirm", right)).status_code == 204
    _check(await app.post(f"/v1/password_resets/{known['id']}/confirm", right), 409, "code_used")
    _check(await app.get(f"/v1/users/{session['user']}", session["token"]), 401, "credentials_invalid")
    assert (await app.sign_in(email=person.email, password=_NEW)).status_code == 201


async def test_a_contact_is_changed_by_the_code_that_it_was_sent(app: App, someone: tuple[Someone, Json]) -> None:
    person, session = someone
    address, path = Someone().email, f"/v1/users/{session['user']}/contact_changes"
    asked = (await app.post(path, {"email": address}, token=session["token"])).json()
    code = await app.code(address)
    stranger = (await app.register(Someone()))["session"]
    foreign = f"/v1/users/{stranger['user']}/contact_changes/{asked['id']}/confirm"
    _check(await app.post(foreign, {"code": code}, token=stranger["token"]), 404, "resource_missing")
    answer = await app.post(f"{path}/{asked['id']}/confirm", {"code": code}, token=session["token"])
    assert answer.status_code == 204, answer.text
    assert (await app.get(f"/v1/users/{session['user']}", session["token"])).json()["email"] == address
    assert (await app.sign_in(email=address, password=PASSWORD)).status_code == 201
    _check(await app.sign_in(email=person.email, password=PASSWORD), 401, "sign_in_failed")
    await _told(app, person.phone, "e-mail address was changed")
    await _told(app, person.email, "address was replaced")
    assert not any("address was replaced" in str(each) for each in await app.sandbox.messages(address))


async def test_the_old_number_is_told_and_is_kept_no_longer_than_that_takes(
    app: App, someone: tuple[Someone, Json], database: AsyncEngine
) -> None:
    person, session = someone
    number, path = Someone().phone, f"/v1/users/{session['user']}/contact_changes"
    asked = (await app.post(path, {"phone": number}, token=session["token"])).json()
    for code, status in ((wrong(await app.code(number)), 422), (await app.code(number), 204)):
        # Until the new one has proved itself nothing is changed, and nobody told.
        assert not any("was replaced" in str(each) for each in await app.sandbox.messages(person.phone))
        answer = await app.post(f"{path}/{asked['id']}/confirm", {"code": code}, token=session["token"])
        assert answer.status_code == status
    await _told(app, person.phone, "was replaced by another")
    async with database.begin() as connection:
        user = {"user": session["user"]}
        kept = text("SELECT address FROM identity.former_contacts WHERE user_id = :user")
        assert (await connection.scalars(kept, user)).all() == [person.phone]
        events = text("SELECT data::text FROM platform.outbox WHERE data ->> 'user_id' = :user")
        assert person.phone not in "".join((await connection.scalars(events, user)).all())
        later = text(
            "UPDATE identity.former_contacts SET replaced_at = now() - interval '26 hours' WHERE user_id = :user"
        )
        await connection.execute(later, user)
    await forget_expired(database)
    async with database.connect() as connection:
        assert (await connection.scalars(kept, user)).all() == []


# --------------------------------------------------------------------------------------------------------------- keys


def _routes(document: Json) -> list[tuple[str, str, Json]]:
    return [
        (method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


@pytest_asyncio.fixture(scope="module")
async def routes(app: App) -> list[tuple[str, str, Json]]:
    return _routes((await app.http.get("/openapi.json")).json())


async def _call(key: str, app: App, method: str, path: str) -> httpx.Response:
    async with http_client(app.access, key) as client:
        address = re.sub(r"\{[^}]+\}", "absent", path)
        return await client.request(method, address, json={}, headers={"Idempotency-Key": new_key()})


async def test_every_route_says_what_it_needs(routes: list[tuple[str, str, Json]]) -> None:
    for method, path, operation in routes:
        access = Access(operation["x-access"])
        if access is not Access.PUBLIC:
            assert Scope(operation["x-scope"]), (method, path)
        assert (access is Access.PUBLIC) == ("security" not in operation), (method, path)


async def test_a_publishable_key_does_what_an_app_without_a_session_does_and_nothing_else(
    app: App, routes: list[tuple[str, str, Json]]
) -> None:
    key = app.http.headers["Authorization"].removeprefix("Bearer ")
    for method, path, operation in routes:
        response = await _call(key, app, method, path)
        refused = response.status_code == 403
        assert refused == (operation["x-access"] == "key"), (method, path, response.text)


async def test_a_key_with_scopes_does_what_they_say_and_nothing_else(
    app: App, shop: Shop, routes: list[tuple[str, str, Json]]
) -> None:
    for scopes in (["payments:read"], ["users:write", "disputes:read"]):
        made = (await shop.post("/v1/api_keys", {"scopes": scopes})).json()
        for method, path, operation in routes:
            if operation["x-access"] == "public":
                continue
            response = await _call(made["key"], app, method, path)
            permitted = operation["x-scope"] in scopes
            if not permitted:
                assert response.status_code == 403, (method, path, response.text)
            else:
                assert "lacks the scope" not in response.text, (method, path, response.text)


async def test_a_key_gives_no_more_than_it_has(app: App, shop: Shop) -> None:
    made = (await shop.post("/v1/api_keys", {"scopes": ["api_keys:write", "payments:read"]})).json()
    narrow = Shop(http_client(app.access, made["key"]), shop.account_id, made["key"])
    _check(await narrow.post("/v1/api_keys", {"scopes": ["payments:write"]}), 403, "permission_denied")
    inherited = (await narrow.post("/v1/api_keys")).json()
    assert inherited["scopes"] == ["api_keys:write", "payments:read"]
    broad = (await shop.post("/v1/api_keys")).json()
    assert (broad["scopes"], broad["operator"]) == (None, False)
    _check(await narrow.post(f"/v1/api_keys/{broad['id']}/roll"), 403, "permission_denied")
    _check(await narrow.http.delete(f"/v1/api_keys/{broad['id']}"), 403, "permission_denied")
    contradiction = {"kind": "publishable", "scopes": ["payments:read"]}
    _check(await shop.post("/v1/api_keys", contradiction), 422, "parameter_invalid")
    await narrow.http.aclose()


async def test_a_rolled_key_gives_way_and_a_revoked_one_is_dead(app: App, shop: Shop) -> None:
    old = (await shop.post("/v1/api_keys", {"name": "till 4", "scopes": ["payments:read"]})).json()
    new = (await shop.post(f"/v1/api_keys/{old['id']}/roll", {"overlap_seconds": 3600})).json()
    assert (new["name"], new["scopes"]) == ("till 4", ["payments:read"])
    for key in (old["key"], new["key"]):
        assert (await _call(key, app, "GET", "/v1/payments")).status_code == 200
    _check(await shop.post(f"/v1/api_keys/{old['id']}/roll"), 404, "resource_missing")
    gone = (await shop.post(f"/v1/api_keys/{new['id']}/roll", {"overlap_seconds": 0})).json()
    _check(await _call(new["key"], app, "GET", "/v1/payments"), 401, "credentials_invalid")
    assert (await shop.http.delete(f"/v1/api_keys/{gone['id']}")).status_code == 204
    _check(await _call(gone["key"], app, "GET", "/v1/payments"), 401, "credentials_invalid")
    listed = {each["id"]: each for each in (await shop.get("/v1/api_keys"))["data"]}
    assert listed[old["id"]]["replaced_by"] == new["id"]
    assert gone["id"] not in listed
    assert all(each["key"] is None for each in listed.values())


async def test_another_accounts_keys_do_not_exist(app: App, shop: Shop, database: AsyncEngine) -> None:
    stranger = await Shop.open(app.access, database)
    made = (await shop.post("/v1/api_keys")).json()
    _check(await stranger.post(f"/v1/api_keys/{made['id']}/roll"), 404, "resource_missing")
    _check(await stranger.http.delete(f"/v1/api_keys/{made['id']}"), 404, "resource_missing")
    assert made["id"] not in str(await stranger.get("/v1/api_keys"))
    await stranger.http.aclose()


@pytest.mark.parametrize(
    "change",
    [
        "scopes = ARRAY['payments:write']",
        "role = 'operator'",
        "kind = 'publishable'",
        "expires_at = NULL",
        "expires_at = now() + interval '1 year'",
        "secret_hash = sha256('x')",
    ],
)
async def test_the_database_lets_no_key_grow(shop: Shop, database: AsyncEngine, change: str) -> None:
    made = (await shop.post("/v1/api_keys", {"scopes": ["payments:read"], "expires_in_days": 1})).json()
    with pytest.raises(Exception, match="an API key only ends"):
        async with database.begin() as connection:
            await connection.execute(text(f"UPDATE platform.api_keys SET {change} WHERE id = :id"), {"id": made["id"]})


async def test_an_app_adds_a_card_for_a_user_before_anybody_is_signed_in(
    app: App, someone: tuple[Someone, Json]
) -> None:
    card: dict[str, Any] = {"number": GOOD_CARD, "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    body = {"user": someone[1]["user"]} | card
    response = await app.post("/v1/payment_methods/cards", body)
    assert response.status_code in (201, 202), response.text


async def test_an_answer_says_how_much_of_the_limit_is_left(shop: Shop) -> None:
    first, second = [await shop.http.get("/v1/payments") for _ in range(2)]
    left = [int(answer.headers["RateLimit-Remaining"]) for answer in (first, second)]
    assert 0 < left[1] < left[0] < int(first.headers["RateLimit-Limit"])
    assert 0 < int(first.headers["RateLimit-Reset"]) <= 65
