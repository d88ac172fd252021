"""A payment's life through the HTTP API."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.platform import Access
from tests.support.shop import GOOD_CARD, Json, Network, Sandbox, Shop, http_client, until

NEW_YORK = {"latitude": 40.7128, "longitude": -74.0060}
SYDNEY = {"latitude": -33.8688, "longitude": 151.2093}
DOLLARS_3000 = 300_000
CHANNELS = ("email", "in_app", "push", "sms")


async def test_a_payment_is_authorized_captured_in_part_and_refunded_in_part(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id, 4250)
    assert (payment["amount_authorized_minor"], payment["amount_captured_minor"]) == (4250, 0)
    assert payment["capture_before"] is not None

    path = f"/v1/payments/{payment['id']}"
    response = await shop.post(f"{path}/capture", {"amount_minor": 4000})
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["amount_captured_minor"]) == ("captured", 4000)

    response = await shop.post(f"{path}/refunds", {"amount_minor": 1500})
    assert response.status_code in (201, 202)
    refund = await shop.outcome(f"/v1/refunds/{response.json()['id']}", response.json())
    assert (refund["status"], refund["amount_minor"], refund["payment"]) == ("succeeded", 1500, payment["id"])
    assert [entry["id"] for entry in (await shop.get(f"{path}/refunds"))["data"]] == [refund["id"]]

    shown = await shop.get(path)
    assert (shown["status"], shown["amount_refunded_minor"]) == ("captured", 1500)
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert (authorization["captured_minor"], authorization["refunded_minor"]) == (4000, 1500)


async def test_a_refund_that_the_network_refuses_fails_and_gives_nothing(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet("4000990000090005")
    payment = await shop.captured(wallet.card_id, 1800)
    path = f"/v1/payments/{payment['id']}"
    response = await shop.post(f"{path}/refunds", {"amount_minor": 800})
    refund = await shop.outcome(f"/v1/refunds/{response.json()['id']}", response.json())
    assert (refund["status"], refund["failure_code"]) == ("failed", "generic_decline")
    assert (await shop.get(path))["amount_refunded_minor"] == 0
    # What it had reserved is free again.
    response = await shop.post(f"{path}/refunds")
    assert response.json()["amount_minor"] == 1800
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert authorization["refunded_minor"] == 0


async def test_an_automatic_payment_is_captured_without_being_asked(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet("5555555555554444")
    response = await shop.pay(wallet.card_id, 2599, metadata={"order": "6735"})
    assert response.status_code == 201
    payment = await shop.payment(response.json()["id"], "captured")
    assert (payment["amount_captured_minor"], payment["metadata"]) == (2599, {"order": "6735"})

    async def at_the_network() -> list[Json]:
        return (await network.journal(payment["id"]))["authorizations"]

    [authorization] = await until(at_the_network, lambda found: found[0]["captured_minor"] == 2599)
    assert authorization["state"] == "captured"


async def test_an_authorization_grows_before_it_is_captured(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id, 2000)
    path = f"/v1/payments/{payment['id']}"
    response = await shop.post(f"{path}/increment", {"amount_minor": 500})
    assert (response.status_code, response.json()["amount_authorized_minor"]) == (200, 2500)
    response = await shop.post(f"{path}/capture", {"amount_minor": 2500})
    assert (response.status_code, response.json()["amount_captured_minor"]) == (200, 2500)
    response = await shop.post(f"{path}/increment", {"amount_minor": 100})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "payment_unexpected_state")
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert authorization["captured_minor"] == 2500


async def test_an_increment_that_is_declined_or_too_much_leaves_what_was_authorized(shop: Shop) -> None:
    wallet = await shop.wallet("4000990000100002")
    payment = await shop.authorized(wallet.card_id, 2000)
    path = f"/v1/payments/{payment['id']}"
    for amount_minor, status, code, param in (
        (500, 402, "increment_declined", None),
        (5_000_000, 422, "amount_above_limit", "amount_minor"),
        (999_999_999_999, 422, "amount_above_limit", "amount_minor"),
        (0, 422, "amount_invalid", "amount_minor"),
    ):
        response = await shop.post(f"{path}/increment", {"amount_minor": amount_minor})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, param), amount_minor
    assert (await shop.get(path))["amount_authorized_minor"] == 2000


async def test_a_voided_payment_is_reversed_at_the_network(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id)
    response = await shop.post(f"/v1/payments/{payment['id']}/void", {"reason": "out of stock"})
    assert (response.status_code, response.json()["status"]) == (200, "voided")
    assert response.json()["status_reason"] == "out of stock"
    await until(lambda: network.unreversed_approvals(payment["id"]), lambda standing: standing == 0)


async def test_a_decline_is_402_with_the_reason_and_the_payment(shop: Shop) -> None:
    user = await shop.add_user()
    card = await shop.add_card(user["id"], "4000000000009995")
    response = await shop.pay(card["id"])
    error = response.json()["error"]
    assert response.status_code == 402
    assert (error["type"], error["code"], error["decline_code"]) == (
        "card_error",
        "card_declined",
        "insufficient_funds",
    )
    assert error["payment"]["status"] == "declined"
    shown = await shop.get(f"/v1/payments/{error['payment']['id']}")
    assert (shown["status"], shown["decline_code"]) == ("declined", "insufficient_funds")


async def test_a_traveller_who_is_impossibly_fast_is_stopped_before_the_network(shop: Shop, network: Network) -> None:
    wallet = await shop.wallet()
    response = await shop.pay(wallet.card_id, 2300, location=NEW_YORK)
    assert response.status_code == 201
    response = await shop.pay(wallet.card_id, 2300, location=SYDNEY)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (402, "card_error", "payment_blocked")
    assert error["payment"]["risk"]["action"] == "block"
    assert "impossible_travel" in error["payment"]["risk"]["reasons"]
    assert await network.journal(error["payment"]["id"]) == {"messages": [], "authorizations": [], "refunds": []}


async def _awaiting_code(shop: Shop, sandbox: Sandbox, **fields: Any) -> tuple[Json, str]:
    """A payment that waits for its payer's code, and the code from the payer's SMS."""
    wallet = await shop.wallet()
    response = await shop.pay(wallet.card_id, DOLLARS_3000, capture_method="manual", **fields)
    assert (response.status_code, response.json()["status"]) == (202, "requires_action")
    sms = await sandbox.first(wallet.user["phone"])
    return response.json(), next(word for word in sms["body"].split() if word.isdigit() and len(word) == 6)


async def test_a_step_up_is_passed_with_the_code_from_the_sms(shop: Shop, sandbox: Sandbox, network: Network) -> None:
    payment, code = await _awaiting_code(shop, sandbox)
    assert (await network.journal(payment["id"]))["messages"] == []
    response = await shop.post(f"/v1/payments/{payment['id']}/confirm", {"code": code})
    assert (response.status_code, response.json()["status"]) == (200, "authorized")
    assert await network.unreversed_approvals(payment["id"]) == 1


async def test_the_third_wrong_code_stops_the_payment(shop: Shop, sandbox: Sandbox, network: Network) -> None:
    payment, code = await _awaiting_code(shop, sandbox)
    path = f"/v1/payments/{payment['id']}/confirm"
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for _ in range(2):
        response = await shop.post(path, {"code": wrong})
        assert (response.status_code, response.json()["error"]["code"]) == (422, "step_up_code_incorrect")
        assert response.json()["error"]["param"] == "code"
    response = await shop.post(path, {"code": wrong})
    assert (response.status_code, response.json()["error"]["code"]) == (402, "payment_blocked")
    response = await shop.post(path, {"code": code})
    assert response.status_code == 409
    assert (await shop.get(f"/v1/payments/{payment['id']}"))["status"] == "blocked"
    assert (await network.journal(payment["id"]))["messages"] == []


async def test_a_payment_in_review_is_decided_by_an_operator_alone(
    shop: Shop, platform: Access, database: AsyncEngine, network: Network
) -> None:
    async with database.connect() as connection:
        name = await connection.scalar(
            text("SELECT name FROM platform.accounts WHERE id = :id"), {"id": shop.account_id}
        )
    operator = await Shop.open(platform, database, operator=True, name=str(name))
    wallet = await shop.wallet()
    # Together they are more than a user may spend in a day without being looked at.
    assert (await shop.pay(wallet.card_id, 600_000)).json()["status"] == "requires_action"
    response = await shop.pay(wallet.card_id, 600_000, capture_method="manual")
    assert (response.status_code, response.json()["status"]) == (202, "in_review")
    path = f"/v1/payments/{response.json()['id']}/review"
    decision = {"operator": "grace", "approve": True, "reason": "known customer"}

    response = await shop.post(path, decision)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
    response = await operator.post(path, decision | {"reason": " "})
    assert response.status_code == 422
    response = await operator.post(path, decision)
    assert (response.status_code, response.json()["status"]) == (200, "authorized")
    assert await network.unreversed_approvals(response.json()["id"]) == 1
    await operator.http.aclose()


async def test_payments_are_listed_newest_first_page_by_page(platform: Access, database: AsyncEngine) -> None:
    shop = await Shop.open(platform, database)
    wallet = await shop.wallet()
    made = [(await shop.authorized(wallet.card_id, 1500 + number))["id"] for number in range(3)][::-1]

    first = await shop.get("/v1/payments", limit=2)
    assert (first["object"], first["url"], first["has_more"]) == ("list", "/v1/payments", True)
    assert [entry["id"] for entry in first["data"]] == made[:2]
    second = await shop.get("/v1/payments", limit=2, starting_after=made[1])
    assert ([entry["id"] for entry in second["data"]], second["has_more"]) == (made[2:], False)
    back = await shop.get("/v1/payments", limit=2, ending_before=made[2])
    assert [entry["id"] for entry in back["data"]] == made[:2]

    assert first["data"][0] == await shop.get(f"/v1/payments/{made[0]}")
    assert (await shop.get("/v1/payments", status="voided"))["data"] == []
    since = first["data"][0]["created"]
    assert [entry["id"] for entry in (await shop.get("/v1/payments", **{"created[gte]": since}))["data"]] == made[:1]
    await shop.http.aclose()


async def test_the_payer_is_told_once_on_each_channel(shop: Shop, sandbox: Sandbox, database: AsyncEngine) -> None:
    user = await shop.add_user()
    device = f"device-{user['id']}"
    for _ in range(2):
        response = await shop.post(f"/v1/users/{user['id']}/push_tokens", {"token": device, "platform": "android"})
        assert response.status_code == 201
    card = await shop.add_card(user["id"])
    payment = await shop.authorized(card["id"], 1234)

    async def delivered() -> list[Any]:
        async with database.connect() as connection:
            query = "SELECT channel, state FROM notify.deliveries WHERE user_id = :user ORDER BY channel"
            return [tuple(row) for row in await connection.execute(text(query), {"user": user["id"]})]

    await until(delivered, lambda found: found == [(channel, "sent") for channel in CHANNELS])
    for address in (user["email"], user["phone"], device):
        [message] = await sandbox.messages(address)
        assert "12.34" in message["title"] + message["body"]

    inbox = await shop.get(f"/v1/users/{user['id']}/messages")
    [message] = inbox["data"]
    assert "12.34" in message["body"]
    assert (message["kind"], message["read_at"]) == ("payment_authorized", None)
    read = await shop.post(f"/v1/users/{user['id']}/messages/{message['id']}/read")
    assert read.status_code == 204
    assert (await shop.get(f"/v1/users/{user['id']}/messages"))["data"][0]["read_at"] is not None
    assert payment["user"] == user["id"]


async def test_a_session_sees_its_own_user_and_nothing_else(shop: Shop, platform: Access) -> None:
    ada, grace = await shop.wallet(), await shop.wallet()
    payment = await shop.authorized(grace.card_id)
    response = await shop.post(f"/v1/users/{ada.user_id}/sessions")
    assert response.status_code == 201
    session = Shop(http_client(platform, response.json()["token"]), shop.account_id, response.json()["token"])

    own = await session.pay(ada.card_id, capture_method="manual")
    assert (own.status_code, own.json()["user"]) == (201, ada.user_id)
    assert [entry["id"] for entry in (await session.get("/v1/payments"))["data"]] == [own.json()["id"]]
    # A filter for somebody else does not widen what is seen.
    assert [entry["id"] for entry in (await session.get("/v1/payments", user=grace.user_id))["data"]] == [
        own.json()["id"]
    ]
    for path in (
        f"/v1/users/{grace.user_id}",
        f"/v1/users/{grace.user_id}/messages",
        f"/v1/payments/{payment['id']}",
        f"/v1/payments/{payment['id']}/refunds",
        f"/v1/payment_methods/{grace.card_id}",
        f"/v1/payment_methods?user={grace.user_id}",
    ):
        response = await session.http.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "resource_missing"), path
    response = await session.pay(grace.card_id)
    assert (response.status_code, response.json()["error"]["param"]) == (404, "payment_method")
    response = await session.post(f"/v1/payments/{payment['id']}/capture")
    assert response.status_code == 404
    response = await session.post(f"/v1/users/{ada.user_id}/sessions")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
    assert (await shop.get(f"/v1/payments/{payment['id']}"))["status"] == "authorized"
    await session.http.aclose()


async def test_a_card_that_a_user_has_already_is_not_added_twice(shop: Shop) -> None:
    wallet = await shop.wallet()
    again = await shop.add_card(wallet.user_id)
    assert again["id"] == wallet.card_id
    assert [card["id"] for card in (await shop.get("/v1/payment_methods", user=wallet.user_id))["data"]] == [
        wallet.card_id
    ]
    assert (again["bin"], again["last4"]) == (GOOD_CARD[:6], GOOD_CARD[-4:])
