"""Each rule between the schemas: it holds for payments that are right, and names exactly the one that is not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.payments import PaymentEvent, PaymentStatus
from ledger import invariants
from ledger.dispute_books import DisputeBooks
from network.journal import Effect, Journal, Kind
from network.messages import Acceptor
from store.consistency import (
    DEADLINE_RULES,
    JOURNAL_RULES,
    TEXT_RULES,
    Breach,
    check_deadlines,
    check_journal,
    check_texts,
    snapshot,
)
from tests.integration.books.support import Shop, open_shop
from tests.integration.network.rig import MERCHANT, usd
from tests.support.disputes import notice, opening_of

ACCEPTOR = Acceptor.of(MERCHANT, "00000001")

CARD_NUMBER = "4242 4242 4242 4242"


@dataclass(frozen=True)
class Whole:
    """A payment of $10.00 that was captured, refunded in part and disputed in part, with all that belongs to it."""

    payment: str
    refund: str
    dispute: str


@pytest_asyncio.fixture
async def whole(engine: AsyncEngine) -> Whole:
    shop = await open_shop(engine)
    life = await shop.in_state(PaymentStatus.CAPTURED)
    refund_id = await shop.reserve(life, 400)
    await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 400, refund_id=refund_id)
    opening = opening_of(notice(life.id, amount_minor=600))
    await DisputeBooks(engine, {}).open(opening)
    journal = Journal(engine, f"{secrets.randbelow(10**9):09d}")
    authorize = f"{life.id}:authorize:1"
    for effect in (
        Effect(Kind.AUTHORIZE, authorize, usd(1000), life.id),
        Effect(Kind.CAPTURE, f"{life.id}:capture:1", usd(1000), life.id, None, authorize, True),
        Effect(Kind.REFUND, f"{refund_id}:refund:1", usd(400), life.id, None, authorize),
    ):
        await journal.open(effect, ACCEPTOR, "box")
        assert await journal.begin(effect.effect_key)
        answered = "state = 'answered', response_code = '00', approval_code = '123456', answered_at = now()"
        if effect.kind is not Kind.AUTHORIZE:
            answered += ", settlement_date = (now() AT TIME ZONE 'UTC')::date"
        await _tamper(engine, f"UPDATE network.messages SET {answered} WHERE effect_key = :key", key=effect.effect_key)
    return Whole(life.id, refund_id, opening.dispute_id)


async def _tamper(engine: AsyncEngine, statement: str, **parameters: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text(statement), parameters)


# What somebody may do who has switched the database's own rules off, and what then is broken at which of the payment,
# its refund, its dispute, or what was invented.
TAMPERINGS: Sequence[tuple[str, dict[str, str]]] = (
    (
        "INSERT INTO network.messages SELECT again.* FROM network.messages AS message, jsonb_populate_record(message,"
        " jsonb_build_object('effect_key', :payment || '-authorize-2', 'stan_day', message.stan_day + 30)) AS again"
        " WHERE message.effect_key = :payment || ':authorize:1'",
        {"one_approval": "payment", "authorization_in_ledger": "payment"},
    ),
    (
        "UPDATE network.messages SET amount_minor = 1100 WHERE effect_key = :payment || ':authorize:1'",
        {"authorization_in_ledger": "payment"},
    ),
    (
        "DELETE FROM ledger.transfers WHERE reference = :payment AND kind = 'post' AND code = 'hold'",
        {"capture_in_ledger": "payment"},
    ),
    (
        "DELETE FROM network.messages WHERE effect_key = :payment || ':capture:1'",
        {"capture_at_network": "payment"},
    ),
    (
        "UPDATE network.messages SET amount_minor = 999 WHERE effect_key = :payment || ':capture:1'",
        {"capture_at_network": "payment"},
    ),
    (
        "DELETE FROM ledger.transfers WHERE id = :refund || ':post'",
        {"refund_in_ledger": "refund"},
    ),
    (
        "DELETE FROM network.messages WHERE effect_key = :refund || ':refund:1'",
        {"refund_at_network": "refund"},
    ),
    (
        "UPDATE network.messages SET amount_minor = 401 WHERE effect_key = :refund || ':refund:1'",
        {"refund_at_network": "refund"},
    ),
    (
        "UPDATE platform.payments SET status = 'in_doubt', updated_at = now() - interval '5 hours' WHERE id = :payment",
        {"doubt_is_reversed": "payment", "doubt_overdue": "payment"},
    ),
    (
        "UPDATE platform.payments SET status = 'authorized', capture_before = now() - interval '1 hour'"
        " WHERE id = :payment",
        {"capture_overdue": "payment"},
    ),
    (
        "UPDATE notify.owed SET given_up_at = now(), reason = 'sms' FROM platform.outbox AS event"
        " WHERE event.id = event_id AND subject_id = :payment AND type = 'payment.authorized'",
        {"notification_given_up": "payment"},
    ),
    (
        "UPDATE platform.disputes SET due_by = now() - interval '1 hour' WHERE id = :dispute",
        {"dispute_overdue": "dispute"},
    ),
    (
        "UPDATE network.messages SET settlement_date = '2001-01-01' WHERE effect_key = :payment || ':capture:1'",
        {"settlement_late": "2001-01-01"},
    ),
    (
        "INSERT INTO settlement.payouts (id, day, account_id, merchant_id, currency, amount_minor, status, created_at)"
        " SELECT 'po_waits', '2001-01-01', account_id, 'm', 'USD', 100, 'reserved', now() - interval '1 hour'"
        " FROM platform.payments WHERE id = :payment",
        {"payout_waits": "po_waits"},
    ),
    (
        "INSERT INTO settlement.breaks (id, day, kind, parts, opened_at)"
        " VALUES ('brk_ages', '2001-01-01', 'amount', '[]', now() - interval '4 days')",
        {"break_ages": "brk_ages"},
    ),
    (
        f"""UPDATE platform.payments SET metadata = '{{"note": "card {CARD_NUMBER}"}}', updated_at = now()"""
        " WHERE id = :payment",
        {"no_card_number": "payment"},
    ),
    (
        f"""UPDATE platform.disputes SET texts = '{{"product_description": "{CARD_NUMBER}"}}', updated_at = now()"""
        " WHERE id = :dispute",
        {"no_card_number": "dispute"},
    ),
)


def test_there_is_a_tampering_for_every_rule() -> None:
    tried = {rule for _, rules in TAMPERINGS for rule in rules}
    assert tried == set(JOURNAL_RULES) | set(DEADLINE_RULES) | set(TEXT_RULES)


@pytest.mark.parametrize(("statement", "broken"), TAMPERINGS)
async def test_exactly_what_was_tampered_with_is_found(
    engine: AsyncEngine, whole: Whole, statement: str, broken: dict[str, str]
) -> None:
    values = {"payment": whole.payment, "refund": whole.refund, "dispute": whole.dispute}
    async with engine.connect() as connection:
        before = await _breaches(connection)
        assert not {subject for _, subject in before} & set(values.values())
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        # The colons of effect keys are no parameters.
        asked = text(statement.replace("':", "'\\:").replace(":1'", "\\:1'"))
        given = {name: value for name, value in values.items() if f":{name}" in statement}
        assert (await connection.execute(asked, given)).rowcount == 1
        found = await _breaches(connection)
        await connection.rollback()
    assert found - before == {(rule, values.get(subject, subject)) for rule, subject in broken.items()}


async def _breaches(connection: AsyncConnection) -> set[tuple[str, str]]:
    """All breaches, however young."""
    moment = await connection.scalar(text("SELECT interval '0'"))
    found: list[Breach] = await check_journal(connection, grace=moment, limit=10_000)
    found += await check_deadlines(connection, grace=moment, limit=10_000)
    found += await check_texts(connection, limit=10_000)
    return {(each.rule, each.subject) for each in found}


async def test_a_card_number_that_is_found_is_not_repeated(engine: AsyncEngine, whole: Whole) -> None:
    async with engine.connect() as connection:
        await connection.execute(
            text("UPDATE platform.payments SET metadata = CAST(:note AS jsonb), updated_at = now() WHERE id = :id"),
            {"note": f'{{"note": "{CARD_NUMBER}"}}', "id": whole.payment},
        )
        found = [each for each in await check_texts(connection) if each.subject == whole.payment]
        await connection.rollback()
    assert [each.detail for each in found] == ["platform.payments"]


async def test_a_look_sees_one_moment_and_may_change_nothing(engine: AsyncEngine, whole: Whole) -> None:
    async with snapshot(engine) as connection:
        before = await _breaches(connection)
        await _tamper(engine, _SAID, key=f"{whole.refund}:refund:1", amount=401)
        assert await _breaches(connection) == before
        assert await connection.scalar(text("SHOW transaction_timeout")) == "9min"
        with pytest.raises(DBAPIError, match="read-only"):
            await connection.execute(text("UPDATE platform.payments SET version = version"))
    async with snapshot(engine) as connection:
        assert ("refund_at_network", whole.refund) in await _breaches(connection)
    # Others ask whether all of the database is consistent.
    await _tamper(engine, _SAID, key=f"{whole.refund}:refund:1", amount=400)


_SAID = "UPDATE network.messages SET amount_minor = :amount WHERE effect_key = :key"


async def test_payments_that_go_on_meanwhile_raise_no_alarm(engine: AsyncEngine) -> None:
    shop = await open_shop(engine)
    lives: set[str] = set()
    done = asyncio.Event()

    async def look() -> int:
        looks = 0
        while not done.is_set() or not looks:
            async with snapshot(engine) as connection:
                found: set[str] = {
                    each.subject for each in (await invariants.check(connection, limit=10_000)).violations
                }
                found |= {each.subject for each in await check_journal(connection, limit=10_000)}
                found |= {each.subject for each in await check_deadlines(connection, limit=10_000)}
                found |= {each.subject for each in await check_texts(connection, limit=10_000)}
            assert not found & lives
            looks += 1
        return looks

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look())
        async with asyncio.TaskGroup() as paying:
            for _ in range(4):
                paying.create_task(_pay(shop, lives, 8))
        done.set()
    assert looking.result() >= 1
    assert len(lives) == 32


async def _pay(shop: Shop, lives: set[str], number: int) -> None:
    """Whole lives, one after the other: held, captured, refunded in part."""
    for _ in range(number):
        life = await shop.open()
        lives.add(life.id)
        await shop.record(life, PaymentEvent.AUTHORIZED, 1000)
        await shop.record(life, PaymentEvent.CAPTURED, 1000)
        refund_id = await shop.reserve(life, 400)
        await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 400, refund_id=refund_id)
