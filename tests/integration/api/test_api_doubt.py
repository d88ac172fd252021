"""What the network does wrong, and what the payer, the books and the network's own journal say in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.shop import Json, Network, Shop, until

AMOUNT = 2000
CARDS = {
    "timeout_then_approve": "4000990000010003",
    "timeout_then_decline": "4000990000020002",
    "late_answer": "4000990000030001",
    "lost_reversal": "4000990000040000",
    "duplicate_answer": "4000990000050009",
    "wrong_amount": "4000990000070007",
}
SILENT = [name for name in CARDS if name != "duplicate_answer"]


@dataclass(frozen=True, slots=True)
class Played:
    """The answer that the caller got, and the payment when it was decided."""

    answer: httpx.Response
    payment: Json


@pytest_asyncio.fixture(scope="module")
async def played(shop: Shop) -> dict[str, Played]:
    """One payment with each of the cards, all at the same time: what takes long here is waiting."""

    async def play(number: str) -> Played:
        wallet = await shop.wallet(number)
        answer = await shop.pay(wallet.card_id, AMOUNT, capture_method="manual")
        return Played(answer, await shop.outcome(f"/v1/payments/{answer.json()['id']}"))

    return dict(zip(CARDS, await asyncio.gather(*map(play, CARDS.values())), strict=True))


@pytest.mark.parametrize("name", SILENT)
def test_without_a_usable_answer_the_caller_is_told_that_the_payment_is_in_doubt(
    played: dict[str, Played], name: str
) -> None:
    answer = played[name].answer
    assert (answer.status_code, answer.json()["status"]) == (202, "in_doubt")
    assert answer.json()["amount_authorized_minor"] == 0


@pytest.mark.parametrize("name", SILENT)
async def test_a_payment_in_doubt_is_reversed_and_nothing_stands_at_the_network(
    played: dict[str, Played], name: str, network: Network, database: AsyncEngine
) -> None:
    payment = played[name].payment
    assert (payment["status"], payment["status_reason"]) == ("voided", "reversed_after_doubt")
    journal = await network.journal(payment["id"])
    assert [entry["state"] for entry in journal["authorizations"]] in (["reversed"], ["declined"])
    assert await network.unreversed_approvals(payment["id"]) == 0
    assert sum(message["mti"] in ("0100", "0101") for message in journal["messages"]) == 1
    assert await _held_minor(database, payment["id"]) == 0


async def test_a_reversal_is_repeated_until_it_is_acknowledged(played: dict[str, Played], network: Network) -> None:
    journal = await network.journal(played["lost_reversal"].payment["id"])
    assert [m["mti"] for m in journal["messages"]] == ["0100", "0420", "0421", "0421"]
    [authorization] = journal["authorizations"]
    assert authorization["state"] == "reversed"


async def test_an_approval_that_comes_after_the_reversal_is_recorded_and_changes_nothing(
    played: dict[str, Played], shop: Shop, database: AsyncEngine
) -> None:
    payment = played["late_answer"].payment
    statement = text(
        "SELECT late_response_code FROM network.messages WHERE payment_id = :id AND late_answered_at IS NOT NULL"
    )

    async def late() -> list[str]:
        async with database.connect() as connection:
            return [row.late_response_code for row in await connection.execute(statement, {"id": payment["id"]})]

    assert await until(late, bool) == ["00"]
    assert (await shop.get(f"/v1/payments/{payment['id']}"))["status"] == "voided"


async def test_a_second_answer_to_the_same_request_is_ignored(played: dict[str, Played], network: Network) -> None:
    answer, payment = played["duplicate_answer"].answer, played["duplicate_answer"].payment
    assert (answer.status_code, payment["status"]) == (201, "authorized")
    assert payment["amount_authorized_minor"] == AMOUNT
    assert await network.unreversed_approvals(payment["id"]) == 1


async def _held_minor(database: AsyncEngine, payment_id: str) -> int:
    statement = text(
        "SELECT coalesce(sum(hold.remaining_minor), 0) FROM ledger.transfers AS transfer"
        " JOIN ledger.holds AS hold ON hold.pending_id = transfer.id"
        " WHERE transfer.reference = :payment AND hold.state = 'pending'"
    )
    async with database.connect() as connection:
        return int(await connection.scalar(statement, {"payment": payment_id}) or 0)
