"""Temporal stalls, dies and comes back on the same file. What was answered stands, and nothing is done twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.kit.cases import Kit
from tests.faults.kit.platform import ANSWER_TIMEOUT_SECONDS, TEMPORAL
from tests.support.shop import Wallet, new_key

pytestmark = pytest.mark.timeout(180)

HELD_BACK_SECONDS = ANSWER_TIMEOUT_SECONDS * 0.8


async def test_nothing_is_done_twice_while_temporal_stalls_for_six_seconds(kit: Kit, wallet: Wallet) -> None:
    """Longer than a workflow task may take, and longer than the caller is kept waiting."""
    to_capture = await kit.shop.authorized(wallet.card_id, kit.amount())
    await kit.network.set_faults(delay_seconds=HELD_BACK_SECONDS)
    asked = {new_key(): kit.amount() for _ in range(3)}
    asking = [
        *(
            asyncio.create_task(kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual"))
            for key, amount in asked.items()
        ),
        asyncio.create_task(kit.shop.post(f"/v1/payments/{to_capture['id']}/capture", key=(captured := new_key()))),
    ]
    in_flight = [*((kit.shop.payment_id(key), "0100") for key in asked), (to_capture["id"], "0220")]
    await asyncio.gather(*(kit.until_received(payment_id, mti) for payment_id, mti in in_flight))
    async with kit.platform.stopped(TEMPORAL):
        await kit.network.clear_faults()
        await asyncio.sleep(6)
    await asyncio.gather(*asking)
    for key, amount in asked.items():
        payment = await kit.decided(kit.shop.payment_id(key))
        assert payment["status"] == "authorized"
        await kit.same_answer(wallet, amount, key, payment)
        assert (await kit.messages(payment["id"])).count("0100") == 1
    again = await kit.shop.post(f"/v1/payments/{to_capture['id']}/capture", key=captured)
    assert (again.status_code, again.json()["amount_captured_minor"]) == (200, to_capture["amount_minor"])
    assert await kit.messages(to_capture["id"]) == ["0100", "0220"]


async def test_what_was_answered_survives_the_death_of_temporal_and_what_was_under_way_goes_on(
    kit: Kit, wallet: Wallet
) -> None:
    answered = await kit.shop.authorized(wallet.card_id, kit.amount())
    under_way, amount = new_key(), kit.amount()
    await kit.network.set_faults(delay_seconds=HELD_BACK_SECONDS)
    asking = asyncio.create_task(kit.shop.pay(wallet.card_id, amount, key=under_way, capture_method="manual"))
    await kit.until_received(kit.shop.payment_id(under_way), "0100")
    await kit.platform.kill(TEMPORAL)
    await kit.network.clear_faults()
    # Reading needs no Temporal.
    assert (await kit.find(answered["id"]))["status"] == "authorized"
    await kit.platform.start_again(TEMPORAL)
    await asyncio.gather(asking, return_exceptions=True)
    payment = await kit.decided(kit.shop.payment_id(under_way))
    assert payment["status"] == "authorized"
    await kit.same_answer(wallet, amount, under_way, payment)
    assert (await kit.messages(payment["id"])).count("0100") == 1
    captured = await kit.shop.post(f"/v1/payments/{answered['id']}/capture")
    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert (await kit.decided(answered["id"]))["status"] == "captured"
