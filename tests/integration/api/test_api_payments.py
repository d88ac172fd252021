"""A payment's life through the HTTP API."""

from __future__ import annotations

from tests.support.shop import Network, Shop


async def test_a_manual_payment_is_authorized_captured_in_part_and_refunded_in_part(shop: Shop, network: Network) -> None:
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

    shown = await shop.get(path)
    assert (shown["status"], shown["amount_refunded_minor"]) == ("captured", 1500)
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert (authorization["captured_minor"], authorization["refunded_minor"]) == (4000, 1500)
