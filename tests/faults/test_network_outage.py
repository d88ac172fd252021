"""The card network is away for a minute. Nobody storms it, and afterwards it is told all that it missed, in order."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.kit.cases import Kit
from tests.support.shop import Json, Wallet, new_key, until

pytestmark = pytest.mark.timeout(240)

OUTAGE_SECONDS = 60.0
# Whose wait is over before the network is back, and whose is not: a request is tried for 40 s (`NETWORK_CALL`).
LATE_SECONDS = 15.0
# One connection is tried at a time, after pauses that grow to five seconds and are half of that on average. Requests
# try none: there were hundreds of connections otherwise, and ever more of them with ever more payments.
MOST_CONNECTIONS = 60
# After 1, 2, 4, 8, 16 and 32 seconds.
MOST_ATTEMPTS = 7
CAPTURES = ((500, False), (700, True))


async def test_after_a_minute_without_the_network_it_is_told_everything_once_and_in_order(
    kit: Kit, wallet: Wallet
) -> None:
    """Captures and voids are the shop's at once and wait for the network. A new payment waits for 40 s, is declined
    then, and not a byte of it is ever sent; a later one is authorized once the network is back."""
    to_capture = [await kit.shop.authorized((await kit.wallet()).card_id, kit.amount()) for _ in range(6)]
    to_void = await kit.shop.authorized(wallet.card_id, kit.amount())
    paying = await kit.wallet()
    link = kit.platform.network
    link.refuse()
    down_since, connections = asyncio.get_running_loop().time(), link.connections_made
    await asyncio.gather(*(_capture(kit, payment) for payment in to_capture))
    voiding = asyncio.create_task(kit.told(f"/v1/payments/{to_void['id']}/void"))
    early = [await _told_to_wait(kit, paying) for _ in range(3)]
    await _until(down_since + OUTAGE_SECONDS - LATE_SECONDS)
    late = await _told_to_wait(kit, paying)
    await _until(down_since + OUTAGE_SECONDS)
    assert link.connections_made - connections <= MOST_CONNECTIONS
    for payment in to_capture:
        # The first capture is tried, the second one waits behind it.
        assert await _attempts(kit, payment["id"]) <= MOST_ATTEMPTS
        assert await kit.messages(payment["id"]) == ["0100"]
    link.heal()

    for payment in to_capture:
        # Each was sent once: none is repeated as 0221.
        assert await _told(kit, payment["id"]) == [("0220", amount) for amount, _ in CAPTURES]
        assert (await kit.decided(payment["id"]))["amount_captured_minor"] == sum(amount for amount, _ in CAPTURES)
    assert (await voiding).status_code == 200
    assert (await kit.decided(to_void["id"]))["status"] == "voided"
    assert await kit.messages(to_void["id"]) == ["0100", "0420"]
    for payment_id in early:
        given_up = await kit.decided(payment_id)
        assert (given_up["status"], given_up["decline_code"]) == ("declined", "network_unavailable")
        assert await kit.messages(payment_id) == []
    assert (await kit.decided(late))["status"] == "authorized"
    assert await kit.messages(late) == ["0100"]


async def _capture(kit: Kit, payment: Json) -> None:
    for amount, final in CAPTURES:
        body = {"amount_minor": amount, "final": final}
        captured = await kit.shop.post(f"/v1/payments/{payment['id']}/capture", body)
        assert captured.status_code == 200, captured.text


async def _told_to_wait(kit: Kit, wallet: Wallet) -> str:
    """The id of a payment that cannot be decided now."""
    key = new_key()
    answer = await kit.shop.pay(wallet.card_id, kit.amount(), key=key, capture_method="manual")
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    return kit.shop.payment_id(key)


async def _told(kit: Kit, payment_id: str) -> list[tuple[str, int]]:
    """What the network was told after the authorization, once that is all."""
    await until(lambda: kit.messages(payment_id), lambda received: len(received) > len(CAPTURES))
    received = (await kit.network.journal(payment_id))["messages"]
    return [(message["mti"], message["amount_minor"]) for message in received[1:]]


async def _until(moment: float) -> None:
    await asyncio.sleep(moment - asyncio.get_running_loop().time())


async def _attempts(kit: Kit, payment_id: str) -> int:
    """How often the activity that waits for the network was tried."""
    pending = (await kit.workflow(payment_id).describe()).raw_description.pending_activities
    return pending[0].attempt if pending else 0
