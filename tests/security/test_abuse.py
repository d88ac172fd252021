"""What somebody with a signed-in session tries over HTTP: guessing, borrowing, replaying, and changing what was signed.

CONTRIBUTING.md has the whole list of abuses, with those that other modules prove.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from identity.proofs import base64url
from tests.support.app import PASSWORD, App, Someone
from tests.support.bank import ROUTING_NUMBER, Bank
from tests.support.member import JSON, Member, signed_up, step_up_answer
from tests.support.platform import Access, api_beside
from tests.support.shop import Json, Shop, http_client, new_key, order, until


def _check(response: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error


# -------------------------------------------------------------------------------------------------------- bank accounts


async def _add(shop: Shop, number: str, **fields: str) -> httpx.Response:
    user = await shop.add_user()
    body = {"user": user["id"], "routing_number": ROUTING_NUMBER, "account_number": number, "account_type": "checking"}
    return await shop.post("/v1/payment_methods/bank_accounts", body | fields)


async def _awaiting(shop: Shop, bank: Bank, number: str) -> str:
    """The path of a verification whose amounts are awaited."""
    added = await _add(shop, number)
    path = f"/v1/payment_methods/{added.json()['id']}/micro_deposits"
    started = await shop.post(path)
    assert started.status_code == 201, started.text
    await until(lambda: shop.get(path), lambda shown: shown["status"] == "sent")
    await bank.forward(5)
    await until(lambda: shop.get(path), lambda shown: shown["status"] == "awaiting_confirmation")
    return path


async def _amounts(database: AsyncEngine, micro_deposit: str) -> tuple[int, int]:
    async with database.connect() as connection:
        query = text("SELECT first_minor, second_minor FROM bank.amounts WHERE micro_deposit_id = :id")
        first, second = (await connection.execute(query, {"id": micro_deposit})).one()
        return first, second


async def test_guesses_at_a_bank_account_count_whichever_shop_and_user_they_come_from(
    platform: Access, bank: Bank, database: AsyncEngine
) -> None:
    """Three accounts of three shops, each with six guesses at once: three are judged each time, nine in all."""
    number = await bank.new_number()
    shops = [await Shop.open(platform, database) for _ in range(3)]
    for shop in shops:
        path = await _awaiting(shop, bank, number)
        first, second = await _amounts(database, (await shop.get(path))["id"])
        wrong = [first % 49 + 1, second]
        answers = await asyncio.gather(*(shop.post(f"{path}/confirm", {"amounts_minor": wrong}) for _ in range(6)))
        codes = sorted(answer.json()["error"]["code"] for answer in answers)
        judged = [code for code in codes if code != "micro_deposit_unexpected_state"]
        assert judged == ["micro_deposit_amounts_incorrect"] * 2 + ["micro_deposit_attempts_exceeded"]
        right = await shop.post(f"{path}/confirm", {"amounts_minor": [first, second]})
        _check(right, 409, "micro_deposit_unexpected_state")
    async with database.connect() as connection:
        query = text(
            "SELECT DISTINCT cycles, limits.attempts FROM bank.limits JOIN bank.micro_deposits USING (reference)"
            " WHERE account_id = ANY(:shops)"
        )
        assert (await connection.execute(query, {"shops": [shop.account_id for shop in shops]})).all() == [(3, 9)]
    stranger = await Shop.open(platform, database)
    for shop in (*shops, stranger):
        added = (await _add(shop, number)).json()
        _check(await shop.post(f"/v1/payment_methods/{added['id']}/micro_deposits"), 409, "bank_account_locked")
    for shop in (*shops, stranger):
        await shop.http.aclose()


async def test_what_cannot_be_a_deposit_costs_no_attempt_and_an_attempt_is_made_once(
    shop: Shop, bank: Bank, database: AsyncEngine
) -> None:
    path = await _awaiting(shop, bank, await bank.new_number())
    impossible: list[Any] = [[0, 5], [50, 1], [-1, 5], [32], [1, 2, 3], [1.5, 2], ["1", "2"], [True, 2], "32", None, {}]
    for amounts in impossible:
        response = await shop.post(f"{path}/confirm", {"amounts_minor": amounts})
        assert response.status_code == 422, amounts
        assert response.json()["error"]["param"].startswith("amounts_minor"), amounts
    assert (await shop.get(path))["attempts_remaining"] == 3

    first, second = await _amounts(database, (await shop.get(path))["id"])
    guess, key = {"amounts_minor": [first % 49 + 1, second]}, new_key()
    answers = await asyncio.gather(*(shop.post(f"{path}/confirm", guess, key=key) for _ in range(4)))
    assert {answer.json()["error"]["code"] for answer in answers} == {"micro_deposit_amounts_incorrect"}
    assert (await shop.get(path))["attempts_remaining"] == 2
    # Another guess under the key of one that was judged is no way to learn more.
    other = await shop.post(f"{path}/confirm", {"amounts_minor": [first, second]}, key=key)
    _check(other, 422, "idempotency_key_reused", "Idempotency-Key")
    twice = await shop.post(f"{path}/confirm", {"amounts_minor": [first, first]})
    assert (twice.status_code == 422) == (first != second)


async def test_a_savings_account_is_refused_where_the_bank_debits_none(
    platform: Access, shop: Shop, bank: Bank
) -> None:
    number = await bank.new_number()
    async with api_beside(platform, SAVINGS_ACCOUNTS="false") as access, http_client(access, shop.key) as client:
        there = Shop(client, shop.account_id, shop.key)
        refused = await _add(there, number, account_type="savings")
        _check(refused, 422, "bank_account_type_unsupported", "account_type")
        assert (await shop.get("/v1/payment_methods", user=(await there.add_user())["id"]))["data"] == []
        assert (await _add(there, number)).status_code == 201
    assert (await _add(shop, number, account_type="savings")).status_code == 201


# --------------------------------------------------------------------------------------------------- devices, passkeys


async def test_another_users_device_signs_nothing_of_mine(app: App, platform: Access, shop: Shop) -> None:
    member, thief = await signed_up(app, platform), await signed_up(app, platform)
    for each in (member, thief):
        await each.add_passkey()
        assert (await each.register_device()).status_code == 201
    card = await shop.add_card(member.user_id)
    body = order(card["id"])
    # The member's token was stolen, and the thief has a registered device: of their own.
    proof = thief.handset.prove("POST", "/v1/payments", json.dumps(body).encode(), member.token)
    _check(await member.post("/v1/payments", body, DPoP=proof), 401, "device_proof_invalid", "DPoP")
    # Neither does it make a session of the member's its own.
    assertion = {"credential": await _sign_in_assertion(app, member)}
    proof = thief.handset.prove("POST", "/v1/sessions/passkey", json.dumps(assertion).encode())
    headers = JSON | {"DPoP": proof, "Idempotency-Key": new_key()}
    response = await app.http.post("/v1/sessions/passkey", content=json.dumps(assertion), headers=headers)
    _check(response, 401, "passkey_not_accepted", "credential")
    assert (await member.get("/v1/payments")).json()["data"] == []


async def _sign_in_assertion(app: App, member: Member) -> Json:
    options = (await app.post("/v1/sessions/passkey_options")).json()["public_key"]
    return member.authenticator.sign(options)


async def test_an_assertion_is_of_its_own_amount_and_payee_and_purpose(app: App, platform: Access, shop: Shop) -> None:
    member = await signed_up(app, platform)
    await member.add_passkey()
    card = await shop.add_card(member.user_id)
    waiting = await member.post("/v1/payments", order(card["id"], 300_000, capture_method="manual"))
    payment = waiting.json()
    assert payment["status"] == "requires_action", waiting.text
    path = f"/v1/payments/{payment['id']}"
    asked = (await member.get(f"{path}/step_up")).json()
    invalid = (422, "step_up_assertion_invalid", "passkey.credential")

    # What a page that shows something else would have the payer sign.
    document = json.loads(asked["passkey"]["document"])
    assert document["amount_minor"] == 300_000
    for shown in ({"amount_minor": 300}, {"merchant": "Red Cross"}, {"currency": "JPY"}, {"payment": "pay_other"}):
        other = json.dumps(document | shown, separators=(",", ":"), sort_keys=True)
        challenge = base64url(hashlib.sha256(other.encode()).digest())
        answer = step_up_answer(asked, member.authenticator, challenge=challenge)
        _check(await member.post(f"{path}/confirm", answer), *invalid)
    # A sign-in's assertion confirms no payment, and a confirmation signs nobody in.
    elsewhere = asked["passkey"] | {"public_key": (await app.post("/v1/sessions/passkey_options")).json()["public_key"]}
    _check(await member.post(f"{path}/confirm", step_up_answer({"passkey": elsewhere}, member.authenticator)), *invalid)
    right = step_up_answer(asked, member.authenticator)
    signed_in = await app.post("/v1/sessions/passkey", {"credential": right["passkey"]["credential"]})
    _check(signed_in, 409, "challenge_expired")

    assert (await member.get(path)).json()["status"] == "requires_action"
    confirmed = await member.post(f"{path}/confirm", right)
    assert (confirmed.status_code, confirmed.json()["status"]) == (200, "authorized"), confirmed.text
    _check(await member.post(f"{path}/confirm", right), 409, "step_up_challenge_used", "passkey.challenge")


async def test_a_refresh_token_that_comes_back_ends_every_token_of_its_family(app: App) -> None:
    someone = Someone()
    pairs: list[Json] = [(await app.register(someone))["session"]]
    for _ in range(3):
        pairs.append((await app.refresh(pairs[-1]["refresh_token"])).json())
    for pair in pairs:
        assert (await app.get("/v1/passkeys", pair["token"])).status_code == 200
    other = (await app.sign_in(email=someone.email, password=PASSWORD)).json()
    _check(await app.refresh(pairs[0]["refresh_token"]), 401, "refresh_token_invalid")
    for pair in pairs:
        _check(await app.get("/v1/passkeys", pair["token"]), 401, "credentials_invalid")
        _check(await app.refresh(pair["refresh_token"]), 401, "refresh_token_invalid")
    # The user's other session is another family.
    assert (await app.get("/v1/passkeys", other["token"])).status_code == 200
