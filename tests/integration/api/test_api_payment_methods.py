"""Cards as payment methods, through the HTTP API: listed, named, chosen, issued anew, removed."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import VERIFICATION, derived_id
from tests.support.platform import Access
from tests.support.shop import GOOD_CARD, Json, Network, Shop, new_key, until

CARDS = ("4242424242424242", "5555555555554444", "4000056655665556")


async def patch(shop: Shop, card_id: str, **body: Any) -> httpx.Response:
    return await shop.http.patch(f"/v1/payment_methods/{card_id}", json=body)


async def delete(shop: Shop, card_id: str) -> httpx.Response:
    return await shop.http.delete(f"/v1/payment_methods/{card_id}")


@pytest.mark.parametrize(
    ("number", "funding", "country"),
    [(GOOD_CARD, "credit", "US"), ("4000056655665556", "debit", "US"), ("4111111111111111", None, None)],
)
async def test_a_card_shows_what_its_first_digits_say_and_nothing_where_they_are_unknown(
    shop: Shop, number: str, funding: str | None, country: str | None
) -> None:
    card = (await shop.wallet(number)).card
    assert (card["type"], card["brand"], card["funding"], card["country"]) == ("card", "visa", funding, country)
    assert (card["label"], card["default"], card["removed"]) == (None, False, None)


async def test_methods_are_listed_newest_first_in_pages(shop: Shop) -> None:
    user = (await shop.add_user())["id"]
    ids = [(await shop.add_card(user, number))["id"] for number in CARDS]
    first = await shop.get("/v1/payment_methods", user=user, limit=2)
    assert ([entry["id"] for entry in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    rest = await shop.get("/v1/payment_methods", user=user, limit=2, starting_after=ids[1])
    assert ([entry["id"] for entry in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    both = await shop.http.get(
        "/v1/payment_methods", params={"user": user, "starting_after": ids[0], "ending_before": ids[1]}
    )
    assert (both.status_code, both.json()["error"]["param"]) == (422, "ending_before")


async def test_a_user_has_one_default_card(shop: Shop) -> None:
    user = (await shop.add_user())["id"]
    first, second = [(await shop.add_card(user, number))["id"] for number in CARDS[:2]]
    assert (await patch(shop, first, default=True)).json()["default"] is True
    answers = await asyncio.gather(*(patch(shop, card, default=True) for card in (second, first, second)))
    assert {answer.status_code for answer in answers} == {200}
    listed = (await shop.get("/v1/payment_methods", user=user))["data"]
    assert sum(card["default"] for card in listed) == 1
    await patch(shop, first, default=False)
    await patch(shop, second, default=False)
    listed = (await shop.get("/v1/payment_methods", user=user))["data"]
    assert not any(card["default"] for card in listed)


async def test_a_label_is_given_and_taken_away(shop: Shop) -> None:
    card = (await shop.wallet()).card_id
    assert (await patch(shop, card, label="Groceries")).json()["label"] == "Groceries"
    assert (await patch(shop, card, default=True)).json()["label"] == "Groceries"
    assert (await patch(shop, card, label=None)).json()["label"] is None


async def test_a_later_expiry_is_told_to_the_network_and_shown(shop: Shop, database: AsyncEngine) -> None:
    card = (await shop.wallet()).card_id
    response = await patch(shop, card, exp_month=7, exp_year=2036)
    assert (response.status_code, response.json()["exp_year"], response.json()["exp_month"]) == (200, 2036, 7)
    assert (await patch(shop, card, exp_month=7, exp_year=2036)).status_code == 200
    token = await _token(database, card)
    async with database.connect() as connection:
        told = await connection.scalars(
            text("SELECT effect_key FROM network.messages WHERE token_id = :token AND kind = 'provision'"),
            {"token": token},
        )
        assert set(told) == {f"{token}:provision:1", f"{token}:renew:203607"}
        kept = await connection.execute(
            text("SELECT exp_year, exp_month FROM vault.tokens WHERE token_id = :token"), {"token": token}
        )
        assert tuple(kept.one()) == (2036, 7)
    assert (await shop.pay(card)).status_code == 201


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"label": ""}, "parameter_invalid", "label"),
        ({"label": "x" * 51}, "parameter_invalid", "label"),
        ({"label": "4242 4242 4242 4242"}, "card_number_refused", "label"),
        ({"exp_month": 5}, "parameter_missing", "exp_year"),
        ({"exp_month": 5, "exp_year": 2020}, "expired_card", "exp_year"),
        ({"exp_month": 11, "exp_year": 2034}, "parameter_invalid", "exp_year"),
        ({"exp_month": 1, "exp_year": 2099}, "parameter_invalid", "exp_year"),
        ({"number": GOOD_CARD}, "parameter_unknown", "number"),
        ({"status": "removed"}, "parameter_unknown", "status"),
    ],
)
async def test_a_bad_change_changes_nothing(shop: Shop, body: Json, code: str, param: str) -> None:
    before = (await shop.wallet()).card
    response = await patch(shop, before["id"], **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (422, code, param)
    assert await shop.get(f"/v1/payment_methods/{before['id']}") == before


async def test_a_removed_card_pays_no_more_and_what_it_paid_can_be_refunded(
    shop: Shop, network: Network, database: AsyncEngine
) -> None:
    wallet = await shop.wallet()
    captured = await shop.captured(wallet.card_id, 1800)
    open_payment = await shop.authorized(wallet.card_id, 900)
    token = await _token(database, wallet.card_id)
    response = await delete(shop, wallet.card_id)
    assert (response.status_code, response.json()["status"]) == (200, "removed")
    assert response.json()["removed"] is not None
    assert (await delete(shop, wallet.card_id)).json() == response.json()

    refused = await shop.pay(wallet.card_id)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "payment_method_unusable")
    assert (await patch(shop, wallet.card_id, label="x")).status_code == 409
    asked = await shop.post(f"/v1/payment_methods/{wallet.card_id}/verify")
    assert (asked.status_code, asked.json()["error"]["code"]) == (409, "payment_method_unusable")
    assert (await shop.get("/v1/payment_methods", user=wallet.user_id))["data"] == []

    # Only when the network has let go of the number is it tried what still goes on.
    await until(lambda: _told(database, token), bool)
    assert await _erased(database, token)
    refund = await shop.post(f"/v1/payments/{captured['id']}/refunds", {"amount_minor": 800})
    shown = await shop.outcome(f"/v1/refunds/{refund.json()['id']}", refund.json())
    assert shown["status"] == "succeeded"
    taken = await shop.post(f"/v1/payments/{open_payment['id']}/capture")
    assert (taken.status_code, taken.json()["status"]) == (200, "captured")


async def test_a_card_that_was_removed_can_be_added_again_as_a_new_one(shop: Shop) -> None:
    wallet = await shop.wallet()
    await delete(shop, wallet.card_id)

    async def again() -> httpx.Response:
        body = {"user": wallet.user_id, "number": GOOD_CARD, "exp_month": 12, "exp_year": 2034}
        return await shop.post("/v1/payment_methods/cards", body)

    # For a moment its old token is still there.
    response = await until(again, lambda found: found.status_code == 201)
    assert response.json()["id"] != wallet.card_id
    assert (await shop.pay(response.json()["id"])).status_code == 201


async def test_a_foreign_card_is_neither_changed_nor_removed(
    shop: Shop, platform: Access, database: AsyncEngine
) -> None:
    card = (await shop.wallet()).card
    stranger = await Shop.open(platform, database)
    for response in (await patch(stranger, card["id"], label="mine"), await delete(stranger, card["id"])):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "resource_missing")
    await stranger.http.aclose()
    assert await shop.get(f"/v1/payment_methods/{card['id']}") == card


async def test_what_is_no_card_is_shown_and_is_not_treated_as_one(shop: Shop, database: AsyncEngine) -> None:
    user = (await shop.add_user())["id"]
    method = f"pm_{secrets.token_hex(12)}"
    async with database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO platform.payment_methods (id, account_id, user_id, type, last4, status,"
                " bank_account_id, routing_number, account_type)"
                " VALUES (:id, :account, :user, 'us_bank_account', '6789', 'active', :id, '110000000', 'checking')"
            ),
            {"id": method, "account": shop.account_id, "user": user},
        )
    shown = await shop.get(f"/v1/payment_methods/{method}")
    assert (shown["type"], shown["last4"], "bin" in shown) == ("us_bank_account", "6789", False)
    assert (shown["routing_number"], shown["account_type"]) == ("110000000", "checking")
    assert (await shop.get("/v1/payment_methods", user=user))["data"] == [shown]
    for response in (
        await shop.post(f"/v1/payment_methods/{method}/verify"),
        await patch(shop, method, exp_month=1, exp_year=2035),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (409, "payment_method_no_card")
    # Nobody has verified it by deposits, which the invariants would tell of for as long as it is active.
    assert (await delete(shop, method)).json()["status"] == "removed"


async def test_a_verification_of_a_removed_card_is_kept(shop: Shop) -> None:
    wallet, key = await shop.wallet(), new_key()
    await shop.post(f"/v1/payment_methods/{wallet.card_id}/verify", key=key)
    removed = (await delete(shop, wallet.card_id)).json()
    assert removed["verification"]["id"] == derived_id(VERIFICATION, shop.account_id, key)


async def _token(database: AsyncEngine, card_id: str) -> str:
    async with database.connect() as connection:
        return str(
            await connection.scalar(
                text("SELECT token_id FROM platform.payment_methods WHERE id = :id"), {"id": card_id}
            )
        )


async def _told(database: AsyncEngine, token_id: str) -> bool:
    """Whether the network has acknowledged that the token is gone."""
    async with database.connect() as connection:
        state = await connection.scalar(
            text("SELECT state FROM network.messages WHERE token_id = :token AND kind = 'deprovision'"),
            {"token": token_id},
        )
    return bool(state == "answered")


async def _erased(database: AsyncEngine, token_id: str) -> bool:
    async with database.connect() as connection:
        row = (
            await connection.execute(
                text("SELECT state, pan_ciphertext, dpan_ciphertext FROM vault.tokens WHERE token_id = :token"),
                {"token": token_id},
            )
        ).one()
    return tuple(row) == ("deleted", None, None)
