"""A card's verification, with processes that die around its question and answers that are lost."""

from __future__ import annotations

import asyncio

import pytest

from domain.ids import VERIFICATION, derived_id, verification_workflow_id
from embedded.zones import Zone
from tests.faults.kit.cases import Kit, spoiled
from tests.faults.kit.platform import WORKERS
from tests.faults.kit.proxy import Direction, Fault, drop
from tests.faults.kit.wire import network_message
from tests.support.shop import Json, new_key, until

pytestmark = pytest.mark.timeout(180)

NETWORK, PAYMENTS = WORKERS[Zone.NETWORK], WORKERS[Zone.PAYMENTS]


async def _decided(kit: Kit, card_id: str, verification_id: str) -> Json:
    async def found() -> Json:
        shown: Json = (await kit.shop.get(f"/v1/payment_methods/{card_id}"))["verification"]
        return shown or {}

    decided: Json = await until(found, lambda shown: shown.get("status", "processing") != "processing")
    assert decided["id"] == verification_id
    return decided


@pytest.mark.parametrize(
    ("worker", "place"),
    [
        (NETWORK, "network.verify.before"),
        (NETWORK, "network.verify.after"),
        (PAYMENTS, "card_verifications.open.after"),
        (PAYMENTS, "card_verifications.record.after"),
    ],
)
async def test_a_worker_that_dies_around_the_question_has_asked_it_once(kit: Kit, worker: str, place: str) -> None:
    wallet, key = await kit.shop.wallet(), new_key()
    verification_id = derived_id(VERIFICATION, kit.shop.account_id, key)
    crash = f"{place}@{verification_workflow_id(verification_id)}"
    path = f"/v1/payment_methods/{wallet.card_id}/verify"
    await kit.platform.arm(worker, crash)
    asking = asyncio.create_task(kit.shop.post(path, {}, key=key))
    await kit.platform.until_crashed(worker, crash)
    await kit.platform.start_again(worker)
    await asking
    assert (await _decided(kit, wallet.card_id, verification_id))["status"] == "verified"
    assert await kit.messages(verification_id) == ["0100"]
    again = await kit.shop.post(path, {}, key=key)
    assert (again.status_code, again.json()["id"]) == (201, verification_id)
    assert await kit.messages(verification_id) == ["0100"]


async def test_a_lost_answer_is_asked_for_anew_and_charges_nothing(kit: Kit) -> None:
    wallet, key = await kit.shop.wallet(), new_key()
    verification_id = derived_id(VERIFICATION, kit.shop.account_id, key)
    lost = Fault("0110", Direction.TO_CLIENT, network_message("0110", amount_minor=0), drop)
    with spoiled(kit.platform.network, lost):
        await kit.shop.post(f"/v1/payment_methods/{wallet.card_id}/verify", {}, key=key)
        decided = await _decided(kit, wallet.card_id, verification_id)
    assert decided["status"] == "verified"
    assert await kit.messages(verification_id) == ["0100", "0100"]
    assert (await kit.network.journal(verification_id))["authorizations"] == []
    await kit.books_are_right()
