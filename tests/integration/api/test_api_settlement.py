"""A day's settlement on the running platform: the network's own file, our books, the payments, payouts and breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from config.settings import CodecSettings, TemporalSettings
from domain.ids import break_workflow_id
from temporal.client import connect
from tests.integration.api.test_api_bad_input import check_error
from tests.support.platform import Access
from tests.support.shop import Json, Network, Shop
from workflows.messages import Resolution, ResolveRequest
from workflows.settlement import BreakWorkflow


@pytest_asyncio.fixture
async def operator(platform: Access, database: AsyncEngine) -> AsyncIterator[Shop]:
    shop = await Shop.open(platform, database, operator=True)
    yield shop
    await shop.http.aclose()


@pytest_asyncio.fixture
async def engine_room(platform: Access) -> Client:
    """Temporal as an operator uses it: with the codec's keys."""
    codec = CodecSettings.model_validate({"keys": f"k1:{platform.secret('codec_key')}", "active_key_id": "k1"})
    return await connect(TemporalSettings(address=platform.temporal, namespace=platform.namespace), codec)


async def _settled(operator: Shop, engine_room: Client, day: date) -> Json:
    """Settles `day` to the end and returns it."""
    response = await operator.post("/v1/settlement/days", {"day": day.isoformat()})
    assert response.status_code == 202, response.text
    await engine_room.get_workflow_handle(response.json()["workflow_id"]).result()
    page = await operator.get("/v1/settlement/days", limit=100)
    [found] = [each for each in page["data"] if each["day"] == day.isoformat()]
    assert found["finished"] is not None
    settled: Json = found
    return settled


async def _breaks(operator: Shop, payment_id: str) -> list[Json]:
    page = await operator.get("/v1/settlement/breaks", limit=100)
    return [each for each in page["data"] if each["payment"] == payment_id]


async def _balance(database: AsyncEngine, account: str) -> int:
    """Credits less debits."""
    async with database.connect() as connection:
        found = await connection.execute(
            text("SELECT credits_posted - debits_posted FROM ledger.accounts WHERE id = :id"), {"id": account}
        )
        return int(found.scalar() or 0)


async def _everything(database: AsyncEngine, day: date, account_id: str) -> list[Any]:
    """How much there is of the day, and of the account: the platform has others, whose payments go on."""
    async with database.connect() as connection:
        counts = await connection.execute(
            text(
                "SELECT (SELECT count(*) FROM ledger.transfers WHERE :account IN"
                " (split_part(debit_account, ':', 2), split_part(credit_account, ':', 2))),"
                " (SELECT count(*) FROM settlement.lines WHERE day = :day),"
                " (SELECT count(*) FROM settlement.breaks JOIN platform.payments ON payments.id = breaks.payment_id"
                " WHERE day = :day AND account_id = :account),"
                " (SELECT count(*) FROM settlement.payouts WHERE account_id = :account)"
            ),
            {"day": day, "account": account_id},
        )
        return list(counts.one())


async def test_a_day_is_settled_paid_out_and_changes_nothing_when_it_is_settled_again(
    shop: Shop, operator: Shop, network: Network, database: AsyncEngine, engine_room: Client
) -> None:
    wallet = await shop.wallet()
    sale = (await shop.pay(wallet.card_id, 3000)).json()
    captured = await shop.captured(wallet.card_id, 2000)
    refund = (await shop.post(f"/v1/payments/{sale['id']}/refunds", {"amount_minor": 500})).json()
    await shop.outcome(f"/v1/refunds/{refund['id']}", refund)
    day = await network.business_day(captured["id"])
    await network.close_day(day)

    settled = await _settled(operator, engine_room, day)
    assert settled["verdicts"]["matched"] >= 3
    for payment in (sale, captured):
        await shop.payment(payment["id"], "settled")
        assert await _breaks(operator, payment["id"]) == []
    assert await operator.get(f"/v1/settlement/days/{day}") == settled
    [dollars] = [each for each in settled["currencies"] if each["currency"] == "USD"]
    assert dollars["net_minor"] == dollars["owed_to_us_minor"] - dollars["owed_by_us_minor"]
    assert dollars["matched_minor"] >= 3000 + 2000 + 500
    assert dollars["paid_out_minor"] >= 4500
    assert settled["payouts_waiting"] == 0
    [payout] = (await shop.get("/v1/settlement/payouts"))["data"]
    assert (payout["amount_minor"], payout["currency"], payout["status"]) == (4500, "USD", "paid")
    assert await _balance(database, f"merchant:{shop.account_id}:coffee-42:payable:USD") == 0

    before = await _everything(database, day, shop.account_id)
    await _settled(operator, engine_room, day)
    assert await _everything(database, day, shop.account_id) == before


async def test_what_differs_is_a_break_that_two_operators_resolve(
    shop: Shop, operator: Shop, network: Network, database: AsyncEngine, engine_room: Client
) -> None:
    wallet = await shop.wallet()
    dropped, cheaper, twice = [(await shop.pay(wallet.card_id, 1000)).json() for _ in range(3)]
    day = await network.business_day(twice["id"])
    await network.falsify(day, dropped["id"], "drop")
    await network.falsify(day, cheaper["id"], "change_amount", amount_minor=900)
    await network.falsify(day, twice["id"], "duplicate")
    await network.close_day(day)
    await _settled(operator, engine_room, day)

    [missing] = await _breaks(operator, dropped["id"])
    [amount] = await _breaks(operator, cheaper["id"])
    [duplicate] = await _breaks(operator, twice["id"])
    assert (missing["kind"], amount["kind"], duplicate["kind"]) == ("missing_there", "amount", "duplicate")
    assert amount["parts"] == [{"account": "receivable", "excess": "debit", "amount_minor": 100, "currency": "USD"}]
    assert {each["status"] for each in (missing, amount, duplicate)} == {"open"}

    loss = await _balance(database, "loss:USD")
    handle = engine_room.get_workflow_handle(break_workflow_id(amount["id"]))
    for name in ("ada", "ada", "grace"):
        decision = ResolveRequest(name, "settlement.break", Resolution.WRITE_OFF, "too small to claim")
        await handle.execute_update(BreakWorkflow.resolve, decision)
        if name == "ada":
            [standing] = await _breaks(operator, cheaper["id"])
            assert standing["status"] == "open"
    await handle.result()
    [resolved] = await _breaks(operator, cheaper["id"])
    assert (resolved["status"], resolved["outcome"], resolved["resolved_by"]) == (
        "resolved",
        "write_off",
        ["ada", "grace"],
    )
    assert await _balance(database, "loss:USD") == loss - 100


async def test_a_client_sees_no_breaks_and_settles_no_day(shop: Shop) -> None:
    assert (await shop.post("/v1/settlement/days", {})).status_code == 403
    assert (await shop.http.get("/v1/settlement/breaks")).status_code == 403
    assert (await shop.http.get("/v1/settlement/days")).status_code == 403
    assert (await shop.http.get("/v1/settlement/days/2026-11-22")).status_code == 403


async def test_a_day_that_was_not_settled_is_missing_and_what_is_no_day_is_refused(operator: Shop) -> None:
    check_error(await operator.http.get("/v1/settlement/days/1999-01-01"), 404, "resource_missing")
    check_error(await operator.http.get("/v1/settlement/days/today"), 422, "parameter_invalid", "day")
