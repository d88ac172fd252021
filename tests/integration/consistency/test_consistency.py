"""Every contradiction between journal, payments and deadlines is found, and names what it is about."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import PAYMENT, new_id
from network.journal import Effect, Journal, Kind
from network.messages import Acceptor
from store.consistency import check_deadlines, check_journal, open_work
from tests.integration.network.rig import MERCHANT, usd
from tests.integration.notify.support import new_person

ACCEPTOR = Acceptor.of(MERCHANT, "00000001")


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(engine: AsyncEngine) -> AsyncIterator[None]:
    """The database is one for many tests, and others ask whether all of it is consistent."""
    yield
    for table, condition in (
        ("platform.refunds", "payment_id IN (SELECT id FROM platform.payments WHERE payment_method_id = 'pm_none')"),
        ("network.messages", "payment_id IN (SELECT id FROM platform.payments WHERE payment_method_id = 'pm_none')"),
        ("platform.payments", "payment_method_id = 'pm_none'"),
        ("notify.owed", "event_id NOT IN (SELECT id FROM platform.outbox)"),
    ):
        await _tamper(engine, f"DELETE FROM {table} WHERE {condition}")


async def _tamper(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    """As somebody who may switch the database's own rules off."""
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text(statement), parameters)


async def _payment(engine: AsyncEngine, status: str, *, age: str = "15 minutes", captured_minor: int = 0) -> str:
    person = await new_person(engine)
    payment_id = new_id(PAYMENT)
    authorized = 1050 if captured_minor or status == "authorized" else 0
    await _tamper(
        engine,
        "INSERT INTO platform.payments (id, account_id, user_id, payment_method_id, version, status, amount_minor,"
        " currency, amount_authorized_minor, amount_captured_minor, capture_method, merchant, rrn, capture_before,"
        " created_at, updated_at)"
        " SELECT :id, account_id, id, 'pm_none', 1, :status, 1050, 'USD', :authorized, :captured, 'manual', '{}',"
        " '632512000001', now() + interval '1 day' - CAST(:age AS interval), now() - CAST(:age AS interval),"
        " now() - CAST(:age AS interval)"
        " FROM platform.users WHERE id = :user",
        id=payment_id,
        status=status,
        authorized=authorized,
        captured=captured_minor,
        age=age,
        user=person.user_id,
    )
    return payment_id


async def _sent(engine: AsyncEngine, payment_id: str, kind: Kind, key: str, outcome: str) -> None:
    """A message of ours to the network that ended with `outcome`, a quarter of an hour ago."""
    journal = Journal(engine, f"{secrets.randbelow(10**9):09d}")
    await journal.open(Effect(kind, key, usd(1050), payment_id), ACCEPTOR, "box")
    assert await journal.begin(key)
    await _tamper(engine, f"UPDATE network.messages SET {outcome} WHERE effect_key = :key", key=key)


_UNANSWERED = "state = 'unanswered', doubt_reason = 'timeout'"


def _approved(kind: Kind) -> str:
    dated = "settlement_date = current_date, " if kind is Kind.SALE else ""
    return (
        f"state = 'answered', response_code = '00', approval_code = '123456', {dated}"
        "answered_at = now() - interval '15 minutes'"
    )


async def _found(engine: AsyncEngine, invariant: str) -> tuple[str, ...]:
    async with engine.connect() as connection:
        breaches = await check_journal(connection, limit=1000) + await check_deadlines(connection, limit=1000)
    return tuple(each.subject for each in breaches if each.rule == invariant)


async def test_two_approvals_of_one_payment_are_found(engine: AsyncEngine) -> None:
    payment_id = await _payment(engine, "authorized")
    await _sent(engine, payment_id, Kind.AUTHORIZE, f"{payment_id}:authorize:1", _approved(Kind.AUTHORIZE))
    assert payment_id not in await _found(engine, "one_approval")
    await _sent(engine, payment_id, Kind.AUTHORIZE, f"{payment_id}:authorize:2", _approved(Kind.AUTHORIZE))
    assert payment_id in await _found(engine, "one_approval")


@pytest.mark.parametrize("kind", [Kind.AUTHORIZE, Kind.SALE])
async def test_an_approval_that_no_payment_knows_is_found(engine: AsyncEngine, kind: Kind) -> None:
    payment_id = await _payment(engine, "declined")
    await _sent(engine, payment_id, kind, f"{payment_id}:authorize:1", _approved(kind))
    assert payment_id in await _found(engine, "authorization_in_ledger")


async def test_a_doubt_that_nobody_reverses_is_found(engine: AsyncEngine) -> None:
    payment_id = await _payment(engine, "in_doubt", age="15 minutes")
    await _sent(engine, payment_id, Kind.AUTHORIZE, f"{payment_id}:authorize:1", _UNANSWERED)
    assert payment_id in await _found(engine, "doubt_is_reversed")
    assert payment_id not in await _found(engine, "doubt_overdue")


@pytest.mark.parametrize(
    ("status", "age", "rule"), [("in_doubt", "5 hours", "doubt_overdue"), ("authorized", "2 days", "capture_overdue")]
)
async def test_what_is_past_its_deadline_is_found(engine: AsyncEngine, status: str, age: str, rule: str) -> None:
    payment_id = await _payment(engine, status, age=age)
    assert payment_id in await _found(engine, rule)


async def test_what_is_not_final_must_have_a_workflow_and_what_is_need_not(engine: AsyncEngine) -> None:
    waiting, done = await _payment(engine, "authorized"), await _payment(engine, "declined")
    fresh = await _payment(engine, "processing", age="1 second")
    async with engine.connect() as connection:
        work = await open_work(connection, older_than=timedelta(minutes=1), limit=100_000)
    must_run = {workflow_id for each in work for workflow_id in each.workflow_ids}
    assert f"payment/{waiting}" in must_run
    assert {f"payment/{done}", f"payment/{fresh}"}.isdisjoint(must_run)
