"""Security codes and billing addresses through the HTTP API, on the whole platform."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.platform import Access
from tests.support.shop import GOOD_CARD, Json, Shop

ADDRESS = {"line1": "1 Market Street", "postal_code": "94105-1234", "country": "US"}
NOTHING = {"cvc": "unchecked", "address_line1": "unchecked", "postal_code": "unchecked"}


def checks(cvc: str, address_line1: str = "unchecked", postal_code: str = "unchecked") -> Json:
    return {"cvc": cvc, "address_line1": address_line1, "postal_code": postal_code}


async def new_card(shop: Shop, number: str = GOOD_CARD, **fields: Any) -> Any:
    user = await shop.add_user()
    body = {"user": user["id"], "number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123"} | fields
    return await shop.post("/v1/payment_methods/cards", body)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (GOOD_CARD, checks("pass", "pass", "pass")),
        ("4000000000000101", checks("fail", "pass", "pass")),
        ("4000000000000010", checks("pass", "fail", "fail")),
        ("4000000000000028", checks("pass", "fail", "pass")),
        ("4000000000000036", checks("pass", "pass", "fail")),
        ("4000000000000044", checks("pass", "unavailable", "unavailable")),
    ],
)
async def test_a_card_that_is_verified_shows_what_its_issuer_found(shop: Shop, number: str, expected: Json) -> None:
    response = await new_card(shop, number, billing_address=ADDRESS, verify=True)
    assert response.status_code == 201, response.text
    card = response.json()
    assert (card["checks"], card["verification"]["checks"]) == (expected, expected)
    again = (await shop.post(f"/v1/payment_methods/{card['id']}/verify")).json()
    assert again["checks"] == NOTHING  # code and address went with the first question
    assert (await shop.get(f"/v1/payment_methods/{card['id']}"))["checks"] == expected
    [listed] = (await shop.get("/v1/payment_methods", user=card["user"]))["data"]
    assert listed["checks"] == expected


async def test_what_a_payment_brought_to_light_shows_on_its_card(shop: Shop) -> None:
    for number, capture, status in ((GOOD_CARD, "manual", 201), ("4000000000000127", "automatic", 402)):
        card = (await new_card(shop, number, billing_address={"postal_code": "94105", "country": "US"})).json()
        assert card["checks"] == NOTHING
        assert (await shop.pay(card["id"], capture_method=capture)).status_code == status
        shown = await shop.get(f"/v1/payment_methods/{card['id']}")
        assert shown["checks"] == checks("pass" if status == 201 else "fail", "unchecked", "pass")


async def test_an_address_waits_for_the_first_question_and_is_kept_nowhere(
    shop: Shop, platform: Access, database: AsyncEngine
) -> None:
    address = {"line1": "77 Xanadu Crescent", "country": "GB", "postal_code": "sw1a 1aa"}
    card = (await new_card(shop, billing_address=address)).json()
    async with database.connect() as connection:
        token = text("SELECT token_id FROM platform.payment_methods WHERE id = :id")
        key = f"vault:cvc:{await connection.scalar(token, {'id': card['id']})}"
    async with Redis.from_url(platform.redis_url) as redis:
        kept = await redis.get(key)
        assert kept is not None
        assert b"Xanadu" not in kept
        assert 0 < await redis.ttl(key) <= 900
        shown = (await shop.post(f"/v1/payment_methods/{card['id']}/verify")).json()
        assert shown["checks"] == checks("pass", "pass", "pass")
        assert await redis.exists(key) == 0


@pytest.mark.parametrize(
    ("address", "code", "param"),
    [
        ({"line1": "1 Market Street"}, "parameter_missing", "billing_address.country"),
        ({"country": "US"}, "parameter_missing", "billing_address.line1"),
        ({"country": "XX", "line1": "1"}, "country_unknown", "billing_address.country"),
        ({"country": "US", "postal_code": "9410"}, "parameter_invalid", "billing_address.postal_code"),
        ({"country": "GB", "postal_code": "!"}, "parameter_invalid", "billing_address.postal_code"),
        ({"country": "GB", "line1": "x" * 101}, "parameter_invalid", "billing_address.line1"),
        ({"country": "GB", "line1": " "}, "parameter_invalid", "billing_address.line1"),
        ({"country": "GB", "line1": "1", "city": "London"}, "parameter_unknown", "billing_address.city"),
        ("1 Market Street", "parameter_invalid", "billing_address"),
    ],
)
async def test_what_is_no_address_is_refused_by_name(shop: Shop, address: Any, code: str, param: str) -> None:
    user = await shop.add_user()
    body = {"user": user["id"], "number": GOOD_CARD, "exp_month": 12, "exp_year": 2034, "billing_address": address}
    response = await shop.post("/v1/payment_methods/cards", body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (422, code, param)
    assert (await shop.get("/v1/payment_methods", user=user["id"]))["data"] == []
