"""Many callers want the same thing at the same moment. One gets it, or as many as there is money for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import httpx
import pytest

from tests.faults.kit.cases import Kit
from tests.support.shop import Json, Wallet, new_key, order, until

# What has to wait for long waits beside these cases.
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("unacknowledged")]

CALLERS = 50


def _outcomes(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    """How often each status came, with the error's code or the object's status."""
    return Counter(
        (answer.status_code, answer.json().get("error", answer.json()).get("code") or answer.json()["status"])
        for answer in answers
    )


def _bodies(answers: list[httpx.Response]) -> set[str]:
    """The different answers, whatever the order of their fields."""
    return {json.dumps(answer.json(), sort_keys=True) for answer in answers}


async def test_of_captures_and_voids_that_race_exactly_one_wins(kit: Kit, wallet: Wallet) -> None:
    payment = await kit.shop.authorized(wallet.card_id, kit.amount())
    path = f"/v1/payments/{payment['id']}"
    answers = await asyncio.gather(
        *(kit.told(f"{path}/{'void' if number % 2 else 'capture'}") for number in range(CALLERS))
    )
    final = (await kit.decided(payment["id"]))["status"]
    assert final in ("captured", "voided")
    outcomes = _outcomes(answers)
    assert outcomes.pop((200, final)) == 1
    assert {(status, code) for status, code in outcomes} <= {(409, "payment_unexpected_state"), (409, "payment_closed")}
    assert sum(outcomes.values()) == CALLERS - 1
    messages = await until(lambda: kit.messages(payment["id"]), lambda received: len(received) > 1)
    assert messages == ["0100", "0220" if final == "captured" else "0420"]


async def test_a_hundred_captures_at_once_take_no_more_than_was_authorized(kit: Kit, wallet: Wallet) -> None:
    payment = await kit.shop.authorized(wallet.card_id, 5000)
    path = f"/v1/payments/{payment['id']}/capture"
    answers = await asyncio.gather(*(kit.told(path, {"amount_minor": 700, "final": False}) for _ in range(2 * CALLERS)))
    outcomes = _outcomes(answers)
    assert outcomes.pop((200, "authorized")) == 7
    assert outcomes == {(422, "amount_too_large"): 2 * CALLERS - 7}
    shown = await kit.find(payment["id"])
    assert (shown["status"], shown["amount_captured_minor"]) == ("authorized", 4900)
    [authorization] = await until(
        lambda: _authorizations(kit, payment["id"]), lambda found: found[0]["captured_minor"] == 4900
    )
    assert authorization["state"] == "captured"
    await kit.books_are_right()


async def test_a_hundred_refunds_at_once_give_no_more_than_was_captured(kit: Kit, wallet: Wallet) -> None:
    payment = await kit.shop.captured(wallet.card_id, 5000)
    path = f"/v1/payments/{payment['id']}/refunds"
    answers = await asyncio.gather(*(kit.told(path, {"amount_minor": 1200}) for _ in range(2 * CALLERS)))
    assert _outcomes(answers) == {(201, "succeeded"): 4, (422, "amount_too_large"): 2 * CALLERS - 4}
    assert (await kit.decided(payment["id"]))["amount_refunded_minor"] == 4800
    [authorization] = await _authorizations(kit, payment["id"])
    assert authorization["refunded_minor"] == 4800
    assert len((await kit.shop.get(path))["data"]) == 4


@pytest.mark.parametrize("capture_method", ["manual", "automatic"])
async def test_one_key_in_the_hands_of_fifty_callers_has_one_effect_and_one_answer(
    capture_method: str, kit: Kit, wallet: Wallet
) -> None:
    key, body = new_key(), order(wallet.card_id, kit.amount(), capture_method=capture_method)
    answers = await asyncio.gather(*(kit.told("/v1/payments", body, key) for _ in range(CALLERS)))
    assert {answer.status_code for answer in answers} == {201}
    assert len(_bodies(answers)) == 1
    payment = await kit.decided(kit.shop.payment_id(key))
    assert await kit.messages(payment["id"]) == ["0100" if capture_method == "manual" else "0200"]
    assert len((await kit.network.journal(payment["id"]))["authorizations"]) == 1


async def test_one_key_has_one_effect_for_captures_and_refunds_too(kit: Kit, wallet: Wallet) -> None:
    payment = await kit.shop.authorized(wallet.card_id, 5000)
    path, key = f"/v1/payments/{payment['id']}", new_key()
    captures = await asyncio.gather(
        *(kit.told(f"{path}/capture", {"amount_minor": 2000, "final": False}, key) for _ in range(CALLERS))
    )
    assert (len(_bodies(captures)), {answer.status_code for answer in captures}) == (1, {200})
    assert (await kit.find(payment["id"]))["amount_captured_minor"] == 2000
    assert (await kit.told(f"{path}/capture", {"amount_minor": 1000})).status_code == 200
    refund_key = new_key()
    refunds = await asyncio.gather(
        *(kit.told(f"{path}/refunds", {"amount_minor": 500}, refund_key) for _ in range(CALLERS))
    )
    assert (len(_bodies(refunds)), _outcomes(refunds)) == (1, {(201, "succeeded"): CALLERS})
    assert (await kit.decided(payment["id"]))["amount_refunded_minor"] == 500
    [authorization] = await _authorizations(kit, payment["id"])
    assert (authorization["captured_minor"], authorization["refunded_minor"]) == (3000, 500)


async def test_a_key_with_another_body_is_refused_whichever_comes_first(kit: Kit, wallet: Wallet) -> None:
    key, amounts = new_key(), [kit.amount() for _ in range(CALLERS)]
    answers = await asyncio.gather(
        *(kit.told("/v1/payments", order(wallet.card_id, amount, capture_method="manual"), key) for amount in amounts)
    )
    outcomes = _outcomes(answers)
    assert outcomes == {(201, "authorized"): 1, (422, "idempotency_key_reused"): CALLERS - 1}
    payment = await kit.decided(kit.shop.payment_id(key))
    assert await kit.messages(payment["id"]) == ["0100"]
    [won] = [answer.json() for answer in answers if answer.status_code == 201]
    assert (payment["id"], payment["amount_minor"]) == (won["id"], won["amount_minor"])


async def _authorizations(kit: Kit, payment_id: str) -> list[Json]:
    return (await kit.network.journal(payment_id))["authorizations"]
