"""Temporal stalls, dies and comes back on the same file. What was answered stands, and nothing is done twice."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.kit.cases import Kit
from tests.faults.kit.platform import ANSWER_TIMEOUT_SECONDS, TEMPORAL
from tests.support.shop import Wallet, new_key, order

pytestmark = pytest.mark.timeout(180)

HELD_BACK_SECONDS = ANSWER_TIMEOUT_SECONDS * 0.6
# The answer that is held back comes shortly before the platform gives it up; a busy machine is late for it.
DECIDED_ONCE = ("authorized", "voided")
# What a refusal may cost a caller; a caller's whole wait for an answer is longer (`WAIT_SECONDS`).
FAST_SECONDS = 4.0


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
        assert payment["status"] in DECIDED_ONCE
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
    assert payment["status"] in DECIDED_ONCE
    await kit.same_answer(wallet, amount, under_way, payment)
    assert (await kit.messages(payment["id"])).count("0100") == 1
    captured = await kit.shop.post(f"/v1/payments/{answered['id']}/capture")
    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert (await kit.decided(answered["id"]))["status"] == "captured"


async def test_while_temporal_is_down_a_request_is_a_fast_503_that_leaves_nothing_half_done(
    kit: Kit, wallet: Wallet
) -> None:
    """None of them is taken: nothing comes of them, now or once Temporal is back, until they are repeated."""
    to_capture = await kit.shop.authorized(wallet.card_id, kit.amount())
    to_refund = await kit.shop.captured(wallet.card_id, kit.amount())
    key, amount = new_key(), kit.amount()
    payment_id = kit.shop.payment_id(key)
    order_of = {
        "/v1/payments": order(wallet.card_id, amount, capture_method="manual"),
        f"/v1/payments/{to_capture['id']}/capture": {"amount_minor": 700},
        f"/v1/payments/{to_refund['id']}/refunds": {"amount_minor": 500},
    }
    keys = {path: key if path == "/v1/payments" else new_key() for path in order_of}
    await kit.platform.kill(TEMPORAL)
    started = time.monotonic()
    answers = await asyncio.gather(*(kit.shop.post(path, body, key=keys[path]) for path, body in order_of.items()))
    assert time.monotonic() - started < FAST_SECONDS
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable"), answer.text
        assert int(answer.headers["Retry-After"]) > 0
    assert "error" in await kit.find(payment_id)
    await kit.platform.start_again(TEMPORAL)

    assert "error" in await kit.find(payment_id)
    assert (await kit.decided(to_capture["id"]))["status"] == "authorized"
    assert (await kit.decided(to_refund["id"]))["amount_refunded_minor"] == 0
    for path, body in order_of.items():
        again = await kit.told(path, body, keys[path])
        assert again.status_code in (200, 201), again.text
    assert (await kit.decided(payment_id))["status"] == "authorized"
    assert await kit.messages(payment_id) == ["0100"]
    assert (await kit.find(to_capture["id"]))["amount_captured_minor"] == 700
    assert (await kit.decided(to_refund["id"]))["amount_refunded_minor"] == 500
