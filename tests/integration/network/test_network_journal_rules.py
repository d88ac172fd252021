"""The rules that PostgreSQL itself keeps, whatever the code does."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from network.errors import StanExhausted
from network.journal import Effect, Entry, Journal, Kind
from network.messages import Acceptor
from tests.integration.network.rig import MERCHANT, usd

ACCEPTOR = Acceptor.of(MERCHANT, "00000001")


def effect(**changes: Any) -> Effect:
    values = {"kind": Kind.AUTHORIZE, "effect_key": secrets.token_hex(8), "money": usd(1050), "payment_id": "pay_1"}
    return Effect(**{**values, **changes})


async def opened(journal: Journal, *, state: str = "created") -> Entry:
    entry = await journal.open(effect(), ACCEPTOR, "box")
    assert entry is not None
    if state != "created":
        assert await journal.begin(entry.effect.effect_key)
    return entry


async def change(engine: AsyncEngine, effect_key: str, assignment: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(f"UPDATE network.messages SET {assignment} WHERE effect_key = :key"), {"key": effect_key}
        )


@pytest.fixture
def journal(engine: AsyncEngine) -> Journal:
    return Journal(engine, f"{secrets.randbelow(10**9):09d}")


async def test_numbers_are_unique_and_of_the_networks_form(journal: Journal) -> None:
    entries = await asyncio.gather(*(opened(journal) for _ in range(40)))
    assert len({entry.trace.stan for entry in entries}) == 40
    for entry in entries:
        assert re.fullmatch(r"\d{6}", entry.trace.stan)
        assert re.fullmatch(r"\d{10}", entry.trace.transmission_time)
        assert re.fullmatch(r"\d{12}", entry.trace.rrn)
        assert entry.trace.rrn.endswith(entry.trace.stan)


async def test_a_trace_number_is_not_used_twice_a_day_when_the_sequence_comes_round(
    engine: AsyncEngine, journal: Journal
) -> None:
    first = await opened(journal)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT setval('network.stan', :stan, false)"), {"stan": int(first.trace.stan)})
    second = await opened(journal)
    assert second.trace.stan != first.trace.stan


async def test_trace_numbers_that_run_out_are_a_typed_error(engine: AsyncEngine, journal: Journal) -> None:
    block = [await opened(journal)]
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO network.messages (effect_key, kind, state, mti, acquirer_id, amount_minor, currency,"
                " acceptor) SELECT 'fill-' || :salt || n, 'authorize', 'created', '0100', :acquirer, 1, 'USD',"
                " CAST(:acceptor AS jsonb) FROM generate_series(1, 1100) AS n"
            ),
            {"salt": secrets.token_hex(4), "acquirer": block[0].trace.acquirer_id, "acceptor": json.dumps({})},
        )
        await connection.execute(
            text("SELECT setval('network.stan', :stan, false)"), {"stan": int(block[0].trace.stan)}
        )
    with pytest.raises(StanExhausted):
        await opened(journal)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT setval('network.stan', 500000)"))


@pytest.mark.parametrize(
    "assignment",
    [
        "amount_minor = 1",
        "currency = 'EUR'",
        "rrn = '000000000000'",
        "stan = '000000'",
        "effect_key = 'other'",
        "payment_id = 'pay_2'",
        "acquirer_id = '1'",
        "state = 'answered', response_code = '00', answered_at = now(), attempts = 1",
        "state = 'unanswered', attempts = 1",
        "reversal_decided_at = now()",
        "attempts = 1",
    ],
)
async def test_a_created_message_can_only_be_sent_or_abandoned(
    engine: AsyncEngine, journal: Journal, assignment: str
) -> None:
    entry = await opened(journal)
    with pytest.raises(DBAPIError):
        await change(engine, entry.effect.effect_key, assignment)


@pytest.mark.parametrize(
    "assignment",
    [
        "state = 'abandoned', attempts = 0",
        "sealed_pan = 'another box'",
        "state = 'answered'",
        "reversal_decided_at = now()",
    ],
)
async def test_a_message_that_is_being_sent_cannot_be_taken_back(
    engine: AsyncEngine, journal: Journal, assignment: str
) -> None:
    entry = await opened(journal, state="sending")
    with pytest.raises(DBAPIError):
        await change(engine, entry.effect.effect_key, assignment)


async def test_only_a_first_attempt_can_turn_out_not_to_have_been_sent(engine: AsyncEngine, journal: Journal) -> None:
    entry = await opened(journal, state="sending")
    key = entry.effect.effect_key
    assert await journal.begin_repeat(key, 1)
    assert not await journal.unsend(key)
    with pytest.raises(DBAPIError):
        await change(engine, key, "state = 'created', attempts = 0")


@pytest.mark.parametrize(
    "assignment",
    [
        "state = 'answered', response_code = '00', answered_at = now()",
        "state = 'sending'",
        "reversal_decided_at = NULL",
    ],
)
async def test_a_request_that_was_given_up_stays_given_up(
    engine: AsyncEngine, journal: Journal, assignment: str
) -> None:
    entry = await opened(journal, state="sending")
    key = entry.effect.effect_key
    assert await journal.decide_reversal(f"reverse-{key}", key) is not None
    with pytest.raises(DBAPIError):
        await change(engine, key, assignment)


async def test_an_abandoned_key_stays_abandoned(engine: AsyncEngine, journal: Journal) -> None:
    key = secrets.token_hex(8)
    assert await journal.decide_reversal(f"reverse-{key}", key) is None
    assert await journal.open(effect(effect_key=key), ACCEPTOR, "box") is None
    assert not await journal.begin(key)
    with pytest.raises(DBAPIError):
        await change(engine, key, "state = 'sending', attempts = 1")


async def test_a_journaled_message_cannot_be_deleted(engine: AsyncEngine, journal: Journal) -> None:
    entry = await opened(journal)
    with pytest.raises(DBAPIError):
        async with engine.begin() as connection:
            await connection.execute(
                text("DELETE FROM network.messages WHERE effect_key = :key"), {"key": entry.effect.effect_key}
            )


async def test_of_many_reversals_and_sendings_at_once_one_side_wins(journal: Journal) -> None:
    for _ in range(20):
        entry = await opened(journal)
        key = entry.effect.effect_key
        begun, undone = await asyncio.gather(journal.begin(key), journal.decide_reversal(f"reverse-{key}", key))
        assert begun == (undone is not None)


_INSERT = (
    "INSERT INTO network.messages (effect_key, kind, state, mti, acquirer_id, amount_minor, currency, payment_id,"
    " acceptor, original_effect_key, final, dispute) VALUES (:key, :kind, 'created', '0200', '1', :amount, 'USD',"
    " 'pay_1', '{}', :original, :final, CAST(:dispute AS jsonb))"
)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("capture", {}),
        ("sale", {"final": True}),
        ("sale", {"original": True}),
        ("increment", {"original": False}),
        ("verify", {"amount": 1}),
        ("represent", {}),
        ("accept", {"original": False, "dispute": "{}"}),
        ("sale", {"dispute": "{}"}),
        ("loan", {}),
    ],
    ids=[
        "a capture that says nothing of others",
        "a last sale",
        "a sale about something",
        "an increment of nothing",
        "a verification that takes money",
        "an answer to no dispute",
        "an acceptance of no payment",
        "a sale about a dispute",
        "an unknown kind",
    ],
)
async def test_a_message_of_a_kind_has_what_belongs_to_it(
    engine: AsyncEngine, journal: Journal, kind: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(DBAPIError):
        await _insert(engine, journal, kind, changes)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("capture", {"final": False}),
        ("sale", {}),
        ("increment", {}),
        ("verify", {}),
        ("represent", {"dispute": "{}"}),
        ("accept", {"dispute": "{}"}),
    ],
)
async def test_a_message_with_what_belongs_to_it_is_journaled(
    engine: AsyncEngine, journal: Journal, kind: str, changes: dict[str, Any]
) -> None:
    await _insert(engine, journal, kind, changes)


async def _insert(engine: AsyncEngine, journal: Journal, kind: str, changes: dict[str, Any]) -> None:
    original = await opened(journal)
    about = changes.get("original", kind in ("capture", "increment", "represent", "accept"))
    given = {
        "key": secrets.token_hex(8),
        "kind": kind,
        "amount": changes.get("amount", 0 if kind == "verify" else 1),
        "original": original.effect.effect_key if about else None,
        "final": changes.get("final"),
        "dispute": changes.get("dispute"),
    }
    async with engine.begin() as connection:
        await connection.execute(text(_INSERT), given)


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("response_code = '00', settlement_date = '2025-10-21'", True),
        ("response_code = '00'", False),
        ("response_code = '05', settlement_date = '2025-10-21'", False),
        ("response_code = '05'", True),
    ],
)
async def test_what_moves_money_has_a_day_of_clearing_and_nothing_else_has(
    engine: AsyncEngine, journal: Journal, answer: str, accepted: bool
) -> None:
    entry = await journal.open(effect(kind=Kind.SALE), ACCEPTOR, "box")
    assert entry is not None
    key = entry.effect.effect_key
    assert await journal.begin(key)
    answered = f"state = 'answered', answered_at = now(), {answer}"
    if not accepted:
        with pytest.raises(DBAPIError):
            await change(engine, key, answered)
        return
    await change(engine, key, answered)
    with pytest.raises(DBAPIError):
        await change(engine, key, "settlement_date = '2025-10-22'")


async def test_an_authorization_has_no_day_of_clearing(engine: AsyncEngine, journal: Journal) -> None:
    entry = await opened(journal, state="sending")
    with pytest.raises(DBAPIError):
        await change(
            engine,
            entry.effect.effect_key,
            "state = 'answered', answered_at = now(), response_code = '00', settlement_date = '2025-10-21'",
        )
