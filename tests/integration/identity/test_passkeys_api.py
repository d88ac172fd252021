"""Passkeys, devices and confirmations by passkey, on the whole platform, with an authenticator made of keys."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from notify import push_tokens
from tests.support.app import App
from tests.support.authenticator import Authenticator, Handset
from tests.support.member import JSON, Member, signed_up, step_up_answer
from tests.support.platform import Access
from tests.support.shop import GOOD_CARD, Json, Shop, new_key, order

DOLLARS_3000 = 300_000


@pytest_asyncio.fixture
async def member(app: App, platform: Access) -> Member:
    return await signed_up(app, platform)


def _check(response: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error


async def _assertion(app: App, authenticator: Authenticator, **changed: Any) -> Json:
    options = (await app.post("/v1/sessions/passkey_options")).json()["public_key"]
    assert options["allowCredentials"] == []
    return authenticator.sign(options, **changed)


async def _sign_in(app: App, authenticator: Authenticator) -> httpx.Response:
    return await app.post("/v1/sessions/passkey", {"credential": await _assertion(app, authenticator)})


# ------------------------------------------------------------------------------------------------------------- passkeys


async def test_a_user_signs_in_with_a_passkey_that_was_added(member: Member) -> None:
    passkey = await member.add_passkey("Ada's phone")
    assert (passkey["user"], passkey["name"], passkey["status"]) == (member.user_id, "Ada's phone", "active")
    signed_in = await _sign_in(member.app, member.authenticator)
    assert (signed_in.status_code, signed_in.json()["user"]) == (201, member.user_id)
    sessions = (await member.app.get(f"/v1/users/{member.user_id}/sessions", signed_in.json()["token"])).json()["data"]
    assert next(session for session in sessions if session["current"])["methods"] == ["hwk", "user", "mfa"]
    assert (await member.get(f"/v1/passkeys/{passkey['id']}")).json()["last_used_at"] is not None


async def test_a_challenge_is_good_once_and_for_its_session_alone(member: Member, app: App, platform: Access) -> None:
    credential = member.authenticator.make(await member.options())
    stranger = await signed_up(app, platform)
    body = {"name": "Phone", "credential": credential}
    _check(await stranger.post("/v1/passkeys", body), 409, "challenge_expired")
    credential = member.authenticator.make(await member.options())
    answers = await asyncio.gather(*(member.post("/v1/passkeys", body | {"credential": credential}) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    # Signed anew by the same credential, it is known.
    again = member.authenticator.make(await member.options())
    _check(await member.post("/v1/passkeys", body | {"credential": again}), 409, "passkey_exists", "credential")
    assert len((await member.get("/v1/passkeys")).json()["data"]) == 1

    assertion = await _assertion(app, member.authenticator)
    assert (await app.post("/v1/sessions/passkey", {"credential": assertion})).status_code == 201
    _check(await app.post("/v1/sessions/passkey", {"credential": assertion}), 409, "challenge_expired")


async def test_what_is_signed_elsewhere_or_wrongly_signs_nobody_in(member: Member) -> None:
    await member.add_passkey()
    app, authenticator = member.app, member.authenticator
    for forged in (
        await _assertion(app, authenticator, origin="https://evil.example"),
        await _assertion(app, authenticator, type="webauthn.create"),
        await _assertion(app, Authenticator(origin=authenticator.origin, credential_id=authenticator.credential_id)),
        await _assertion(app, Authenticator(origin=authenticator.origin)),
    ):
        response = await app.post("/v1/sessions/passkey", {"credential": forged})
        _check(response, 401, "passkey_not_accepted", "credential")
    authenticator.verifies_user = False
    _check(await _sign_in(app, authenticator), 401, "passkey_not_accepted", "credential")
    authenticator.verifies_user = True
    assert (await _sign_in(app, authenticator)).status_code == 201


async def test_a_counter_that_goes_back_suspends_the_passkey_and_its_user_is_told(
    member: Member, database: AsyncEngine
) -> None:
    passkey = await member.add_passkey()
    assert (await _sign_in(member.app, member.authenticator)).status_code == 201
    member.authenticator.count -= 1
    for _ in range(2):
        _check(await _sign_in(member.app, member.authenticator), 403, "passkey_suspended", "credential")
    assert (await member.get(f"/v1/passkeys/{passkey['id']}")).json()["status"] == "suspended"
    async with database.connect() as connection:
        query = text("SELECT kind FROM identity.security_events WHERE user_id = :id ORDER BY created_at")
        told = list(await connection.scalars(query, {"id": member.user_id}))
    assert told == ["passkey_added", "passkey_suspended"]


async def test_passkeys_are_listed_renamed_and_removed_by_their_user_alone(
    member: Member, app: App, platform: Access, shop: Shop
) -> None:
    passkey = await member.add_passkey()
    path = f"/v1/passkeys/{passkey['id']}"
    stranger = await signed_up(app, platform)
    for response in (
        await stranger.get(path),
        await stranger.post(path, {"name": "Mine"}),
        await stranger.delete(path),
    ):
        _check(response, 404, "resource_missing")
    assert (await stranger.get("/v1/passkeys")).json()["data"] == []
    assert (await member.post(path, {"name": "Old phone"})).json()["name"] == "Old phone"
    assert (await shop.get("/v1/passkeys", user=member.user_id))["data"][0]["name"] == "Old phone"
    for parameters, refusal in (({}, (422, "parameter_missing")), ({"user": ""}, (404, "resource_missing"))):
        _check(await shop.http.get("/v1/passkeys", params=parameters), *refusal, "user")
    assert (await member.delete(path)).status_code == 204
    _check(await member.get(path), 404, "resource_missing")
    _check(await _sign_in(app, member.authenticator), 401, "passkey_not_accepted", "credential")


async def test_the_only_way_in_stays(app: App, platform: Access) -> None:
    member = await signed_up(app, platform, password=None)
    first = await member.add_passkey()
    _check(await member.delete(f"/v1/passkeys/{first['id']}"), 409, "passkey_last")
    old, member.authenticator = member.authenticator, Authenticator(origin=member.authenticator.origin)
    second = await member.add_passkey()
    # Of two removals at once one is refused.
    answers = await asyncio.gather(*(member.delete(f"/v1/passkeys/{key['id']}") for key in (first, second)))
    assert sorted(answer.status_code for answer in answers) == [204, 409]
    left = (await member.get("/v1/passkeys")).json()["data"]
    assert len(left) == 1
    assert (await _sign_in(app, old if left[0]["id"] == first["id"] else member.authenticator)).status_code == 201


async def test_who_signed_in_long_ago_signs_in_again_before_a_way_in_changes(
    member: Member, database: AsyncEngine
) -> None:
    async with database.begin() as connection:
        old = "UPDATE identity.sessions SET authenticated_at = now() - interval '11 minutes' WHERE user_id = :id"
        await connection.execute(text(old), {"id": member.user_id})
    refreshed = await member.app.refresh(member.refresh_token)
    assert refreshed.status_code == 200, refreshed.text
    member.token = refreshed.json()["token"]
    _check(await member.post("/v1/passkeys/registration_options"), 403, "reauthentication_required")
    _check(await member.post("/v1/devices/registration_options"), 403, "reauthentication_required")


# -------------------------------------------------------------------------------------------------------------- devices


async def test_a_device_binds_its_session_whose_payments_it_signs_from_then_on(member: Member, shop: Shop) -> None:
    card = await shop.add_card(member.user_id)
    device = await member.register_device()
    assert (device.status_code, device.json()["attestation"], device.json()["current"]) == (201, "none", True)
    body = order(card["id"])
    _check(await member.post("/v1/payments", body), 401, "device_proof_missing", "DPoP")
    for wrong in ({"htm": "GET"}, {"htu": "http://localhost/v1/payments"}, {"ath": "x"}, {"iat": 1}):
        _check(await member.signed("/v1/payments", body, **wrong), 401, "device_proof_invalid", "DPoP")
    other = Handset(origin=member.handset.origin)
    proof = other.prove("POST", "/v1/payments", json.dumps(body).encode(), member.token)
    _check(await member.post("/v1/payments", body, DPoP=proof), 401, "device_proof_invalid", "DPoP")
    assert (await member.get("/v1/payments")).json()["data"] == []
    paid = await member.signed("/v1/payments", body)
    assert (paid.status_code, paid.json()["status"]) == (201, "captured")
    # What was seen on the wire is worth nothing, also under the same key and for another body.
    proof = member.handset.prove("POST", "/v1/payments", json.dumps(body).encode(), member.token)
    assert (await member.post("/v1/payments", body, DPoP=proof)).status_code == 201
    _check(await member.post("/v1/payments", body, DPoP=proof), 401, "device_proof_invalid", "DPoP")
    fresh = member.handset.prove("POST", "/v1/payments", json.dumps(body).encode(), member.token)
    more = body | {"amount_minor": 9999}
    _check(await member.post("/v1/payments", more, DPoP=fresh), 401, "device_proof_invalid", "DPoP")
    assert len((await member.get("/v1/payments")).json()["data"]) == 2


async def test_a_key_is_of_one_device_for_good_and_proves_itself(member: Member, app: App, platform: Access) -> None:
    asked = (await member.post("/v1/devices/registration_options")).json()
    body = {"name": "Phone", "platform": "android"}
    elsewhere = member.handset.register(asked["challenge"], "https://evil.example")
    _check(await member.post("/v1/devices", body | {"proof": elsewhere}), 422, "device_invalid", "proof")
    # It was used up by that.
    late = member.handset.register(asked["challenge"], asked["audience"])
    _check(await member.post("/v1/devices", body | {"proof": late}), 409, "challenge_expired", "proof")
    device = (await member.register_device()).json()
    _check(await member.register_device(), 409, "device_exists", "proof")
    stranger = await signed_up(app, platform)
    stranger.handset = member.handset
    _check(await stranger.register_device(), 409, "device_exists", "proof")
    for response in (
        await stranger.get(f"/v1/devices/{device['id']}"),
        await stranger.delete(f"/v1/devices/{device['id']}"),
    ):
        _check(response, 404, "resource_missing")
    assert (await stranger.get("/v1/devices")).json()["data"] == []


async def test_a_revoked_device_takes_its_sessions_along(member: Member, database: AsyncEngine, shop: Shop) -> None:
    await member.add_passkey()
    device = (await member.register_device()).json()
    assertion = {"credential": await _assertion(member.app, member.authenticator)}
    proof = member.handset.prove("POST", "/v1/sessions/passkey", json.dumps(assertion).encode())
    headers = JSON | {"DPoP": proof, "Idempotency-Key": new_key()}
    bound = await member.app.http.post("/v1/sessions/passkey", content=json.dumps(assertion), headers=headers)
    assert bound.status_code == 201, bound.text
    free = (await _sign_in(member.app, member.authenticator)).json()["token"]
    push_token = f"push-{member.user_id}"
    reached = await member.post(f"/v1/users/{member.user_id}/push_tokens", {"token": push_token, "platform": "ios"})
    assert reached.status_code == 201, reached.text
    revoked = await shop.http.delete(f"/v1/devices/{device['id']}")
    assert revoked.status_code == 204
    for token in (member.token, bound.json()["token"]):
        assert (await member.app.get("/v1/devices", token)).status_code == 401
    assert (await member.app.get("/v1/devices", free)).json()["data"] == []
    _check(await shop.http.delete(f"/v1/devices/{device['id']}"), 404, "resource_missing")
    async with database.connect() as connection:
        query = text("SELECT DISTINCT revoke_reason FROM identity.sessions WHERE device_id = :id")
        assert list(await connection.scalars(query, {"id": device["id"]})) == ["device_revoked"]
        assert await push_tokens.list_live(connection, member.user_id) == ()


# -------------------------------------------------------------------------------------------------------------- step-up


async def _waiting(member: Member, shop: Shop, amount_minor: int = DOLLARS_3000) -> Json:
    card = await shop.add_card(member.user_id, GOOD_CARD)
    response = await member.post("/v1/payments", order(card["id"], amount_minor, capture_method="manual"))
    assert (response.status_code, response.json()["status"]) == (202, "requires_action"), response.text
    payment: Json = response.json()
    return payment


async def _asked(member: Member, payment_id: str) -> Json:
    response = await member.get(f"/v1/payments/{payment_id}/step_up")
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store"
    asked: Json = response.json()
    return asked


async def test_a_payment_is_confirmed_by_what_the_payers_passkey_signed(
    member: Member, shop: Shop, database: AsyncEngine
) -> None:
    await member.add_passkey()
    payment = await _waiting(member, shop)
    asked = await _asked(member, payment["id"])
    assert asked["methods"] == ["passkey", "code"]
    document = json.loads(asked["passkey"]["document"])
    assert (document["payment"], document["amount_minor"], document["merchant"]) == (
        payment["id"],
        DOLLARS_3000,
        "Corner Coffee",
    )
    assert (await _asked(member, payment["id"]))["passkey"]["challenge"] == asked["passkey"]["challenge"]
    body, key, path = step_up_answer(asked, member.authenticator), new_key(), f"/v1/payments/{payment['id']}/confirm"
    confirmed = await member.post(path, body, **{"Idempotency-Key": key})
    assert (confirmed.status_code, confirmed.json()["status"]) == (200, "authorized"), confirmed.text
    again = await member.post(path, body, **{"Idempotency-Key": key})
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    _check(await member.post(path, body), 409, "step_up_challenge_used", "passkey.challenge")
    async with database.connect() as connection:
        query = text("SELECT correct FROM identity.step_up_challenges WHERE payment_id = :id")
        assert list(await connection.scalars(query, {"id": payment["id"]})) == [True]


async def test_an_answer_for_something_else_is_refused_and_costs_no_attempt(
    member: Member, shop: Shop, app: App, platform: Access, database: AsyncEngine
) -> None:
    await member.add_passkey()
    stranger = await signed_up(app, platform)
    await stranger.add_passkey()
    first, second = await _waiting(member, shop), await _waiting(member, shop, DOLLARS_3000 + 1)
    asked, other = await _asked(member, first["id"]), await _asked(member, second["id"])
    path = f"/v1/payments/{first['id']}/confirm"
    invalid = (422, "step_up_assertion_invalid", "passkey.credential")
    challenge = {"challenge": asked["passkey"]["challenge"]}
    for authenticator, question in ((member.authenticator, other), (stranger.authenticator, asked)):
        forged = step_up_answer(question, authenticator)["passkey"] | challenge
        for _ in range(2):
            _check(await member.post(path, {"passkey": forged}), *invalid)
    _check(
        await member.post(path, step_up_answer(asked, member.authenticator, origin="https://evil.example")), *invalid
    )
    foreign = step_up_answer(other, member.authenticator)
    _check(await member.post(path, foreign), 409, "step_up_challenge_expired", "passkey.challenge")
    _check(await stranger.post(path, step_up_answer(asked, member.authenticator)), 404, "resource_missing")
    _check(await stranger.get(f"/v1/payments/{first['id']}/step_up"), 404, "resource_missing")
    assert (await member.get(f"/v1/payments/{first['id']}")).json()["status"] == "requires_action"
    async with database.connect() as connection:
        query = text("SELECT count(*) FROM identity.step_up_challenges WHERE answered_at IS NOT NULL AND user_id = :id")
        assert await connection.scalar(query, {"id": member.user_id}) == 0
    confirmed = await member.post(path, step_up_answer(asked, member.authenticator))
    assert (confirmed.status_code, confirmed.json()["status"]) == (200, "authorized")
    _check(await member.get(f"/v1/payments/{first['id']}/step_up"), 409, "payment_unexpected_state")


async def test_a_late_answer_is_refused_and_a_new_question_is_asked(
    member: Member, shop: Shop, database: AsyncEngine
) -> None:
    await member.add_passkey()
    payment = await _waiting(member, shop)
    async with database.begin() as connection:
        await connection.execute(_OLD_CHALLENGE, {"payment_id": payment["id"], "user_id": member.user_id})
    asked = await _asked(member, payment["id"])
    late = step_up_answer(asked, member.authenticator)
    late["passkey"]["challenge"] = f"suc_old{payment['id'][4:]}"
    path = f"/v1/payments/{payment['id']}/confirm"
    _check(await member.post(path, late), 409, "step_up_challenge_expired", "passkey.challenge")
    assert (await member.post(path, step_up_answer(asked, member.authenticator))).status_code == 200


async def test_who_has_no_passkey_confirms_by_code(member: Member, shop: Shop) -> None:
    payment = await _waiting(member, shop)
    asked = await _asked(member, payment["id"])
    assert (asked["methods"], asked["passkey"]) == (["code"], None)
    path = f"/v1/payments/{payment['id']}/confirm"
    _check(await member.post(path, {}), 422, "parameter_missing", "code")
    both = {"code": "123456", "passkey": {"challenge": "suc_1", "credential": {}}}
    assert (await member.post(path, both)).status_code == 422


_OLD_CHALLENGE = text("""
INSERT INTO identity.step_up_challenges (id, payment_id, user_id, nonce, created_at, expires_at)
VALUES ('suc_old' || substr(:payment_id, 5), :payment_id, :user_id, decode(repeat('00', 32), 'hex'),
    now() - interval '6 minutes', now() - interval '1 minute')
""")
