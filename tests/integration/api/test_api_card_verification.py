"""Asking a card's issuer about it, through the HTTP API, on the whole platform."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from config.settings import ApiSettings
from domain.ids import VERIFICATION, derived_id
from tests.integration.api.test_api_bad_input import check_error
from tests.support.platform import Access
from tests.support.shop import Json, Network, Shop, http_client, new_key, until

SILENT_CARD = "4000990000010003"
WRONG_CVC_CARD = "4000000000000127"
DECLINED_WHEN_PAYING = "4000000000000341"


async def verify(shop: Shop, card_id: str, *, key: str = "", **body: object) -> httpx.Response:
    return await shop.post(f"/v1/payment_methods/{card_id}/verify", body, key=key)


async def questions(network: Network, verification_id: str) -> list[Json]:
    """What the network itself has of it."""
    return (await network.journal(verification_id)).get("verifications", [])


async def test_a_good_card_is_verified_for_no_money(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    assert wallet.card["verification"] is None
    response = await verify(shop, wallet.card_id)
    assert response.status_code == 201
    shown = response.json()
    assert (shown["object"], shown["status"], shown["decline_code"]) == ("card_verification", "verified", None)
    assert shown["payment_method"] == wallet.card_id
    [asked] = await questions(network, shown["id"])
    assert (asked["amount_minor"], asked["response_code"], asked["rrn"]) == (0, "00", shown["network_reference"])
    card = await shop.get(f"/v1/payment_methods/{wallet.card_id}")
    assert card["verification"] == shown
    assert (await shop.get("/v1/payment_methods", user=wallet.user_id))["data"] == [card]


@pytest.mark.parametrize(
    ("number", "decline_code"),
    [("4000000000000002", "generic_decline"), (WRONG_CVC_CARD, "incorrect_cvc"), ("4000000000000069", "expired_card")],
)
async def test_a_card_that_its_issuer_declines_is_402_with_the_reason(
    shop: Shop, number: str, decline_code: str
) -> None:
    wallet = await shop.wallet(number)
    response = await verify(shop, wallet.card_id)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["decline_code"]) == (402, "card_declined", decline_code)
    assert error["verification"]["status"] == "declined"
    card = await shop.get(f"/v1/payment_methods/{wallet.card_id}")
    assert (card["status"], card["verification"]["decline_code"]) == ("active", decline_code)


async def test_a_card_may_be_good_and_still_not_pay(shop: Shop) -> None:
    wallet = await shop.wallet(DECLINED_WHEN_PAYING)
    assert (await verify(shop, wallet.card_id)).status_code == 201
    assert (await shop.pay(wallet.card_id)).status_code == 402


async def test_the_same_key_is_one_question_and_one_answer(shop: Shop, network: Network) -> None:
    wallet, key = await shop.wallet(), new_key()
    at_once = await asyncio.gather(*(verify(shop, wallet.card_id, key=key) for _ in range(5)))
    assert {response.status_code for response in at_once} == {201}
    assert all(response.json() == at_once[0].json() for response in at_once)
    again = await verify(shop, wallet.card_id, key=key)
    assert (again.status_code, again.json()) == (201, at_once[0].json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(await questions(network, derived_id(VERIFICATION, shop.account_id, key))) == 1
    other = await verify(shop, wallet.card_id, key=key, currency="EUR")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_each_verification_is_kept_newest_first(shop: Shop) -> None:
    wallet = await shop.wallet()
    ids = [(await verify(shop, wallet.card_id)).json()["id"] for _ in range(3)]
    path = f"/v1/payment_methods/{wallet.card_id}/verifications"
    first = await shop.get(path, limit=2)
    assert ([entry["id"] for entry in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    rest = await shop.get(path, limit=2, starting_after=ids[1])
    assert ([entry["id"] for entry in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    assert (await shop.get(f"/v1/payment_methods/{wallet.card_id}"))["verification"]["id"] == ids[2]


async def test_it_is_asked_in_the_name_of_a_merchant_if_one_is_given(
    shop: Shop, network: Network, database: AsyncEngine
) -> None:
    wallet = await shop.wallet()
    merchant = {"id": "gym-9", "name": "Iron Temple", "category_code": "7997", "city": "Oslo", "country": "NO"}
    response = await verify(shop, wallet.card_id, merchant=merchant, currency="NOK")
    assert (response.status_code, response.json()["currency"]) == (201, "NOK")
    async with database.connect() as connection:
        acceptor = await connection.scalar(
            text("SELECT acceptor FROM network.messages WHERE payment_id = :id"), {"id": response.json()["id"]}
        )
    assert (acceptor["category_code"], acceptor["merchant_id"].strip()) == ("7997", "gym-9")


async def test_an_issuer_that_never_answers_is_202_and_unknown_in_the_end(shop: Shop, network: Network) -> None:
    wallet, key = await shop.wallet(SILENT_CARD), new_key()
    response = await verify(shop, wallet.card_id, key=key)
    assert (response.status_code, response.json()["status"]) == (202, "processing")
    path = f"/v1/payment_methods/{wallet.card_id}"

    async def verification() -> Json:
        found: Json = (await shop.get(path))["verification"]
        return found

    shown = await until(verification, lambda found: found["status"] != "processing")
    assert (shown["status"], shown["reason"]) == ("unknown", "timeout")
    again = await verify(shop, wallet.card_id, key=key)
    assert (again.status_code, again.json()) == (202, shown)
    # Each question was one of its own, and was not repeated as a payment's would be.
    assert len(await questions(network, shown["id"])) == 3
    assert (await shop.get(path))["status"] == "active"


async def test_the_security_code_goes_with_the_first_question_and_is_kept_no_longer(
    shop: Shop, platform: Access, database: AsyncEngine
) -> None:
    wallet = await shop.wallet()
    async with database.connect() as connection:
        token = await connection.scalar(
            text("SELECT token_id FROM platform.payment_methods WHERE id = :id"), {"id": wallet.card_id}
        )
    async with Redis.from_url(platform.redis_url) as redis:
        assert await redis.exists(f"vault:cvc:{token}") == 1
        assert (await verify(shop, wallet.card_id)).status_code == 201
        assert await redis.exists(f"vault:cvc:{token}") == 0


async def test_a_card_is_verified_while_it_is_added(shop: Shop) -> None:
    user, key = await shop.add_user(), new_key()
    body = {"user": user["id"], "number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    response = await shop.post("/v1/payment_methods/cards", body | {"verify": True}, key=key)
    assert response.status_code == 201
    assert (response.json()["status"], response.json()["verification"]["status"]) == ("active", "verified")
    again = await shop.post("/v1/payment_methods/cards", body | {"verify": True}, key=key)
    assert (again.status_code, again.json()) == (201, response.json())
    path = f"/v1/payment_methods/{response.json()['id']}/verifications"
    assert len((await shop.get(path))["data"]) == 1


async def test_a_card_that_is_declined_while_it_is_added_is_there_all_the_same(shop: Shop) -> None:
    user = await shop.add_user()
    body = {"user": user["id"], "number": WRONG_CVC_CARD, "exp_month": 12, "exp_year": 2034, "verify": True}
    response = await shop.post("/v1/payment_methods/cards", body)
    error = response.json()["error"]
    assert (response.status_code, error["decline_code"]) == (402, "incorrect_cvc")
    shown = await shop.get(f"/v1/payment_methods/{error['payment_method']['id']}")
    assert (shown, shown["status"]) == (error["payment_method"], "active")


async def test_a_foreign_card_does_not_exist(shop: Shop, platform: Access, database: AsyncEngine) -> None:
    wallet = await shop.wallet()
    stranger = await Shop.open(platform, database)
    for response in (
        await verify(stranger, wallet.card_id),
        await stranger.http.get(f"/v1/payment_methods/{wallet.card_id}/verifications"),
        await verify(stranger, "pm_absent"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "resource_missing")
    await stranger.http.aclose()


async def test_a_user_verifies_their_own_card_only(shop: Shop, platform: Access) -> None:
    wallet, other = await shop.wallet(), await shop.wallet("5555555555554444")
    session = (await shop.post(f"/v1/users/{wallet.user_id}/sessions")).json()["token"]
    async with http_client(platform, session) as http:
        for card, status in ((wallet.card_id, 201), (other.card_id, 404)):
            answer = await http.post(
                f"/v1/payment_methods/{card}/verify", json={}, headers={"Idempotency-Key": new_key()}
            )
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"currency": "XXX1"}, "currency"),
        ({"amount_minor": 1}, "amount_minor"),
        ({"merchant": {"id": "x"}}, "merchant.name"),
    ],
)
async def test_bad_input_asks_nobody(shop: Shop, body: Json, param: str) -> None:
    wallet = await shop.wallet()
    response = await verify(shop, wallet.card_id, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)
    assert (await shop.get(f"/v1/payment_methods/{wallet.card_id}/verifications"))["data"] == []


async def test_a_key_is_needed(shop: Shop) -> None:
    wallet = await shop.wallet()
    response = await shop.post(f"/v1/payment_methods/{wallet.card_id}/verify", {}, key=None)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "idempotency_key_missing")


async def test_who_asks_too_often_is_told_when_to_ask_again(shop: Shop) -> None:
    wallet = await shop.wallet()
    most = ApiSettings.model_fields["verifications_per_user"].get_default()
    keys = [new_key() for _ in range(most)]
    answers = await asyncio.gather(*(verify(shop, wallet.card_id, key=key) for key in keys))
    assert {answer.status_code for answer in answers} == {201}
    refused = await verify(shop, wallet.card_id)
    check_error(refused, 429, "verification_limit_reached")
    assert 86_000 < int(refused.headers["Retry-After"]) <= 86_400
    body = {"user": wallet.user_id, "number": "5555555555554444", "exp_month": 12, "exp_year": 2034, "verify": True}
    check_error(await shop.post("/v1/payment_methods/cards", body), 429, "verification_limit_reached")
    listed = (await shop.get("/v1/payment_methods", user=wallet.user_id))["data"]
    assert [card["id"] for card in listed] == [wallet.card_id]  # the other one was not added
    assert (await verify(shop, wallet.card_id, key=keys[0])).json() == answers[0].json()
    assert (await shop.post("/v1/payment_methods/cards", body | {"verify": False})).status_code == 201
