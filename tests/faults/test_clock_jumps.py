"""The clock of the platform's hosts jumps a day, forth and back. Nothing expires, and no number is given twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.faults.kit.cases import Kit
from tests.faults.kit.platform import ANSWER_TIMEOUT_SECONDS
from tests.support.shop import Wallet, new_key, order, until

pytestmark = pytest.mark.timeout(180)

HELD_BACK_SECONDS = ANSWER_TIMEOUT_SECONDS * 0.6
DAYS = (1, -1, 0)


async def test_a_clock_that_jumps_a_day_either_way_expires_nothing_and_gives_no_number_twice(
    kit: Kit, wallet: Wallet
) -> None:
    """All workers' and the API's, while they work; the database, Temporal and the network keep the right time."""
    waiting = [await kit.shop.authorized(wallet.card_id, kit.amount()) for _ in DAYS]
    paying = await kit.wallet()
    await kit.platform.wind(*kit.platform.programs)
    made = [payment["id"] for payment in waiting]
    for days, to_capture in zip(DAYS, waiting, strict=True):
        key, amount = new_key(), kit.amount()
        await kit.network.set_faults(delay_seconds=HELD_BACK_SECONDS)
        ordered = order(paying.card_id, amount, capture_method="manual")
        asking = asyncio.create_task(kit.told("/v1/payments", ordered, key))
        await kit.until_received(kit.shop.payment_id(key), "0100")
        kit.platform.set_clock(days)
        await _shows(kit, days)
        await kit.network.clear_faults()
        under_way = await asking
        assert (under_way.status_code, under_way.json()["status"]) == (201, "authorized"), under_way.text
        made += [under_way.json()["id"], (await kit.shop.authorized(paying.card_id, kit.amount()))["id"]]
        captured = await kit.told(f"/v1/payments/{to_capture['id']}/capture")
        assert (captured.status_code, captured.json()["status"]) == (200, "captured"), captured.text
    assert len({*made}) == len(made) == 3 * len(DAYS)
    requests = [message for payment_id in made for message in await _requests(kit, payment_id)]
    # The same number on another day would be somebody else's answer.
    assert len({(message["stan"], message["transmission_time"]) for message in requests}) == len(made)
    assert len({message["rrn"] for message in requests}) == len(made)
    statuses = [(await kit.decided(payment_id))["status"] for payment_id in made]
    assert statuses == ["captured"] * len(DAYS) + ["authorized"] * 2 * len(DAYS)


async def _shows(kit: Kit, days: int) -> None:
    """Returns once the API's clock is so many days ahead."""
    await until(lambda: _clock_of_the_api(kit), lambda ahead: round(ahead / timedelta(days=1)) == days)


async def _clock_of_the_api(kit: Kit) -> timedelta:
    """How far it is ahead."""
    answer = await kit.shop.http.get("/health")
    return parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)


async def _requests(kit: Kit, payment_id: str) -> list[dict[str, object]]:
    messages = (await kit.network.journal(payment_id))["messages"]
    return [message for message in messages if message["mti"] == "0100"]
