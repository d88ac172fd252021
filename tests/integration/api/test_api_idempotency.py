"""One key, one effect, one answer."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.platform import Access
from tests.support.shop import Network, Shop, count, new_key, order

CALLERS = 20


async def test_the_same_key_replays_the_first_answer(shop: Shop) -> None:
    wallet = await shop.wallet()
    key = new_key()
    first = await shop.pay(wallet.card_id, key=key)
    second = await shop.pay(wallet.card_id, key=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.json()["id"] == shop.payment_id(key)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.headers["Request-Id"] != second.headers["Request-Id"]


async def test_a_decline_is_replayed_too(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet("4000000000000002")
    key = new_key()
    first, second = [await shop.pay(wallet.card_id, key=key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (402, 402)
    assert first.json() == second.json()
    messages = (await network.journal(shop.payment_id(key)))["messages"]
    assert [message["mti"] for message in messages] == ["0200"]


async def test_many_callers_with_one_key_at_once_make_one_payment(
    shop: Shop, network: Network, database: AsyncEngine
) -> None:
    wallet = await shop.wallet()
    key = new_key()
    answers = await asyncio.gather(
        *(shop.pay(wallet.card_id, 3100, key=key, capture_method="manual") for _ in range(CALLERS))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({json.dumps(answer.json(), sort_keys=True) for answer in answers}) == 1
    journal = await network.journal(shop.payment_id(key))
    assert [message["mti"] for message in journal["messages"]] == ["0100"]
    async with database.connect() as connection:
        made = "SELECT count(*) FROM platform.payments WHERE payment_method_id = :card"
        assert await count(connection, made, card=wallet.card_id) == 1
        opened = "SELECT count(*) FROM ledger.transfers WHERE reference = :payment AND kind = 'pending'"
        assert await count(connection, opened, payment=shop.payment_id(key)) == 1


async def test_many_captures_and_refunds_with_one_key_take_and_give_once(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id, 3000)
    path = f"/v1/payments/{payment['id']}"
    key = new_key()
    answers = await asyncio.gather(*(shop.post(f"{path}/capture", {"amount_minor": 1000}, key=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["amount_captured_minor"] for answer in answers} == {1000}
    key = new_key()
    answers = await asyncio.gather(*(shop.post(f"{path}/refunds", {"amount_minor": 400}, key=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    await shop.outcome(f"/v1/refunds/{answers[0].json()['id']}")
    assert (await shop.get(path))["amount_refunded_minor"] == 400
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert (authorization["captured_minor"], authorization["refunded_minor"]) == (1000, 400)


async def test_refunds_with_different_keys_never_give_more_than_was_taken(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    payment = await shop.captured(wallet.card_id, 1000)
    path = f"/v1/payments/{payment['id']}"
    answers = await asyncio.gather(*(shop.post(f"{path}/refunds", {"amount_minor": 300}) for _ in range(8)))
    accepted = [answer for answer in answers if answer.status_code in (201, 202)]
    refused = [answer for answer in answers if answer.status_code not in (201, 202)]
    assert len(accepted) == 3
    assert {answer.json()["error"]["code"] for answer in refused} == {"amount_too_large"}
    for answer in accepted:
        refund = await shop.outcome(f"/v1/refunds/{answer.json()['id']}")
        assert refund["status"] == "succeeded"
    assert (await shop.get(path))["amount_refunded_minor"] == 900
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert authorization["refunded_minor"] == 900


async def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    wallet = await shop.wallet()
    key = new_key()
    first = await shop.pay(wallet.card_id, 2000, key=key)
    response = await shop.pay(wallet.card_id, 2001, key=key)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (422, "idempotency_error")
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert (await shop.get(f"/v1/payments/{first.json()['id']}"))["amount_minor"] == 2000


async def test_the_same_key_on_another_route_is_refused(shop: Shop) -> None:
    wallet = await shop.wallet()
    key = new_key()
    payment = (await shop.pay(wallet.card_id, key=key, capture_method="manual")).json()
    response = await shop.post(f"/v1/payments/{payment['id']}/capture", key=key)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_two_accounts_may_use_the_same_key(shop: Shop, platform: Access, database: AsyncEngine) -> None:
    other = await Shop.open(platform, database)
    key = new_key()
    first = await shop.pay((await shop.wallet()).card_id, key=key)
    second = await other.pay((await other.wallet()).card_id, key=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    await other.http.aclose()


async def test_a_refused_request_does_not_use_its_key_up(shop: Shop) -> None:
    wallet = await shop.wallet()
    key = new_key()
    assert (await shop.pay(wallet.card_id, 0, key=key)).status_code == 422
    assert (await shop.pay(wallet.card_id, 2000, key=key)).status_code == 201


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "idempotency_key_missing"),
        ("k" * 256, "idempotency_key_invalid"),
        ("a\tb", "idempotency_key_invalid"),
    ],
    ids=["missing", "too long", "not printable"],
)
async def test_every_post_with_an_effect_needs_a_proper_key(
    shop: Shop, database: AsyncEngine, key: str | None, code: str
) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id)
    path = f"/v1/payments/{payment['id']}"
    number = {"user": wallet.user_id, "number": "5555555555554444", "exp_month": 12, "exp_year": 2034}
    for target, body in (
        ("/v1/payments", order(wallet.card_id)),
        ("/v1/users", {"name": "Nobody"}),
        ("/v1/payment_methods/cards", number),
        (f"{path}/capture", {}),
        (f"{path}/void", {}),
        (f"{path}/refunds", {}),
    ):
        response = await shop.post(target, body, key=key)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, code, "Idempotency-Key"), target
        assert error["type"] == "idempotency_error"
    assert (await shop.get(path))["status"] == "authorized"
    async with database.connect() as connection:
        made = "SELECT count(*) FROM platform.payments WHERE payment_method_id = :card"
        assert await count(connection, made, card=wallet.card_id) == 1
