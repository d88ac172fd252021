"""The hash chain leaves nothing out, and every kind of tampering is found and named."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from ledger.batches import Finding, Head, Trace, TransfersInFlight, close_batch, verify
from ledger.transfers import Limit, OpenAccount, Pending, Post, PostPending, Step, apply, commit
from store.engine import create_engine

USD = Currency.USD
OPENED: list[Step] = [
    OpenAccount("bank", USD, "bank"),
    OpenAccount("wallet", USD, "user_wallet", Limit.DEBITS_MUST_NOT_EXCEED_CREDITS),
]


@pytest_asyncio.fixture
async def ledger(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A ledger of the test's own: a chain has one beginning. It is cloned from the migrated template."""
    name = f"chain_{secrets.token_hex(4)}"
    server = database_url.replace("+psycopg", "").rpartition("/")[0] + "/postgres"
    with psycopg.connect(server, autocommit=True) as connection:
        identifier = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE durapay_template").format(identifier))
        engine = create_engine(database_url.rpartition("/")[0] + f"/{name}", pool_size=8)
        await commit(engine, OPENED)
        yield engine
        await engine.dispose()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def fund(name: str, amount_minor: int = 5) -> Post:
    return Post(name, "bank", "wallet", amount_minor, USD, "top_up", "test")


async def closed(ledger: AsyncEngine) -> None:
    """Two closed batches, of the transfers 1–4 and 5–7, and 8 after them."""
    far = datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    hold = Pending("hold ü", "wallet", "bank", 3, USD, "hold", "test", far, covered=True)
    await commit(ledger, [fund("t1"), fund("t2"), hold, PostPending("t4", "hold ü", 2, "test", final=False)])
    assert (await _closed(ledger)).number == 1
    await commit(ledger, [fund("t5"), fund("t6"), fund("t7")])
    assert (await _closed(ledger)).number == 2
    await commit(ledger, [fund("t8")])


async def _closed(ledger: AsyncEngine) -> Head:
    head = await close_batch(ledger)
    assert head is not None
    return head


async def tamper(ledger: AsyncEngine, *statements: str) -> None:
    """As a superuser who has switched the triggers off for his session."""
    async with ledger.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            await connection.execute(text(statement))


async def test_closed_batches_verify_and_are_computed_alike_by_both_sides(ledger: AsyncEngine) -> None:
    await closed(ledger)
    report = await verify(ledger)
    assert (report.intact, report.batches, report.transfers, report.findings) == (True, 2, 7, ())
    assert report.head is not None
    assert (await verify(ledger, noted=report.head)).intact
    assert (await verify(ledger, since=2)).transfers == 3


async def test_there_is_nothing_to_close_without_new_transfers(ledger: AsyncEngine) -> None:
    assert await close_batch(ledger) is None
    assert (await verify(ledger)).head is None
    await closed(ledger)
    assert (await _closed(ledger)).number == 3
    assert await close_batch(ledger) is None


async def test_a_batch_has_no_more_transfers_than_asked_for_and_the_next_goes_on_behind_it(ledger: AsyncEngine) -> None:
    await commit(ledger, [fund(f"t{number}") for number in range(10)])
    heads = [await close_batch(ledger, at_most=4) for _ in range(4)]
    assert [head and head.number for head in heads] == [1, 2, 3, None]
    report = await verify(ledger)
    assert (report.batches, report.transfers, report.intact) == (3, 10, True)


async def test_a_number_that_was_drawn_and_not_used_is_no_gap_in_the_chain(ledger: AsyncEngine) -> None:
    await commit(ledger, [fund("t1")])
    async with ledger.connect() as connection:
        await apply(connection, [fund("lost")])
        await connection.rollback()
    await commit(ledger, [fund("t3")])
    await close_batch(ledger)
    assert (await verify(ledger)).transfers == 2


# ------------------------------------------------------------------------------------------------------------ in flight


async def test_a_transfer_that_is_being_written_is_waited_for(ledger: AsyncEngine) -> None:
    """It has drawn a lower number than one that is there already."""
    async with ledger.connect() as connection:
        await apply(connection, [fund("slow")])
        quick = Post("quick", "a", "b", 1, USD, "x", "test")
        await commit(ledger, [OpenAccount("a", USD, "till"), OpenAccount("b", USD, "till"), quick])
        closing = asyncio.create_task(close_batch(ledger))
        await asyncio.sleep(0.1)
        assert not closing.done()
        # Nobody else is held up meanwhile.
        await commit(ledger, [replace(quick, id="meanwhile")])
        await connection.commit()
    assert (await closing) is not None
    report = await verify(ledger)
    assert (report.intact, report.transfers) == (True, 2)
    await close_batch(ledger)
    assert (await verify(ledger)).transfers == 3


async def test_a_transfer_that_is_given_up_meanwhile_is_not_in_the_batch(ledger: AsyncEngine) -> None:
    await commit(ledger, [fund("t1")])
    async with ledger.connect() as connection:
        await apply(connection, [fund("slow")])
        closing = asyncio.create_task(close_batch(ledger))
        await asyncio.sleep(0.05)
        await connection.rollback()
    await closing
    assert (await verify(ledger)).transfers == 1


async def test_nothing_is_closed_while_a_transaction_goes_on_for_too_long(ledger: AsyncEngine) -> None:
    async with ledger.connect() as connection:
        await apply(connection, [fund("slow")])
        with pytest.raises(TransfersInFlight):
            await close_batch(ledger, wait=timedelta(milliseconds=30))
        await connection.commit()
    assert (await verify(ledger)).batches == 0
    assert (await _closed(ledger)).number == 1


async def test_batches_that_many_close_while_many_write_leave_nothing_out(ledger: AsyncEngine) -> None:
    async def write(writer: int) -> None:
        for number in range(25):
            await commit(ledger, [fund(f"{writer}/{number}"), fund(f"{writer}/{number}b")])

    async def close() -> None:
        for _ in range(8):
            await close_batch(ledger, at_most=60)

    await asyncio.gather(*(write(writer) for writer in range(4)), close(), close())
    while await close_batch(ledger) is not None:
        pass
    report = await verify(ledger)
    assert (report.intact, report.transfers) == (True, 200)


# ------------------------------------------------------------------------------------------------------------ tampering


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("amount_minor", "6"),
        ("released_minor", "1"),
        ("debit_account", "'elsewhere'"),
        ("credit_account", "'elsewhere'"),
        ("currency", "'EUR'"),
        ("kind", "'pending'"),
        ("code", "'gift'"),
        ("reference", "'other'"),
        ("id", "'renamed'"),
        ("covered", "true"),
        ("created_at", "created_at + interval '1 microsecond'"),
    ],
)
async def test_an_altered_transfer_is_named(ledger: AsyncEngine, column: str, value: str) -> None:
    await closed(ledger)
    dropped = "ALTER TABLE ledger.transfers DROP CONSTRAINT ck_transfers_released_minor"
    await tamper(ledger, dropped, f"UPDATE ledger.transfers SET {column} = {value} WHERE sequence = 6")
    renamed = "renamed" if column == "id" else "t6"
    assert (await verify(ledger)).findings == (Finding(Trace.ALTERED, 2, 6, renamed),)


@pytest.mark.parametrize(
    ("column", "value"), [("pending_id", "'t1'"), ("final", "true"), ("expires_at", "expires_at + interval '1 second'")]
)
async def test_an_altered_second_phase_or_hold_is_named(ledger: AsyncEngine, column: str, value: str) -> None:
    await closed(ledger)
    sequence, identifier = (3, "hold ü") if column == "expires_at" else (4, "t4")
    await tamper(ledger, f"UPDATE ledger.transfers SET {column} = {value} WHERE sequence = {sequence}")
    assert (await verify(ledger)).findings == (Finding(Trace.ALTERED, 1, sequence, identifier),)


async def test_a_deleted_transfer_is_named_by_its_number(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await tamper(ledger, "DELETE FROM ledger.transfers WHERE sequence = 2")
    report = await verify(ledger)
    assert report.findings == (Finding(Trace.DELETED, 1, 2),)
    assert not report.intact


def _moved(sequence: int) -> str:
    """The transfer after the last batch, under a number of another one or of none."""
    return f"UPDATE ledger.transfers SET sequence = {sequence} WHERE id = 't8'"


async def test_a_transfer_in_the_place_of_another_is_named(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await tamper(ledger, "DELETE FROM ledger.transfers WHERE sequence = 3", _moved(3))
    assert (await verify(ledger)).findings == (Finding(Trace.ALTERED, 1, 3, "t8"),)


async def test_a_transfer_that_is_inserted_before_the_chain_is_named(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await tamper(ledger, _moved(0))
    assert (await verify(ledger)).findings == (Finding(Trace.INSERTED, 0, 0, "t8"),)


async def test_a_transfer_that_is_inserted_into_a_gap_is_named(ledger: AsyncEngine) -> None:
    await commit(ledger, [fund("t1")])
    async with ledger.connect() as connection:
        await apply(connection, [fund("never was")])
        await connection.rollback()
    await commit(ledger, [fund("t3")])
    await close_batch(ledger)
    await commit(ledger, [fund("t8")])
    await tamper(ledger, _moved(2))
    assert (await verify(ledger)).findings == (Finding(Trace.INSERTED, 1, 2, "t8"),)


async def test_several_traces_come_in_the_order_of_the_chain(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await tamper(
        ledger,
        "DELETE FROM ledger.transfers WHERE sequence = 7",
        "UPDATE ledger.transfers SET amount_minor = 6 WHERE sequence IN (1, 5)",
    )
    found = (await verify(ledger)).findings
    assert [(each.trace, each.sequence) for each in found] == [
        (Trace.ALTERED, 1),
        (Trace.ALTERED, 5),
        (Trace.DELETED, 7),
    ]
    assert [each.sequence for each in (await verify(ledger, since=2)).findings] == [5, 7]


async def test_a_batch_that_was_made_to_fit_an_altered_transfer_no_longer_fits_the_next(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await tamper(ledger, "UPDATE ledger.transfers SET amount_minor = 6 WHERE sequence = 1", _rehashed(1))
    assert (await verify(ledger)).findings == (Finding(Trace.BATCH_ALTERED, 2),)


async def test_whoever_makes_the_whole_chain_anew_does_not_get_past_a_noted_head(ledger: AsyncEngine) -> None:
    await closed(ledger)
    noted = (await verify(ledger)).head
    previous = "UPDATE ledger.batches SET previous_hash = (SELECT hash FROM ledger.batches WHERE number = 1), hash = ''"
    await tamper(
        ledger,
        "ALTER TABLE ledger.batches DROP CONSTRAINT ck_batches_hash",
        "UPDATE ledger.transfers SET amount_minor = 6 WHERE sequence = 1",
        _rehashed(1),
        f"{previous} WHERE number = 2",
        _rehashed(2),
    )
    assert (await verify(ledger)).intact
    assert (await verify(ledger, noted=noted)).findings == (Finding(Trace.HEAD_DIFFERS, 2),)


def _rehashed(number: int) -> str:
    """The leaves and the hash of a batch, computed anew from the transfers that are there."""
    return (
        "UPDATE ledger.batches AS batch SET leaves = made.leaves,"
        " hash = sha256('durapay-ledger-batch\\:1'::bytea || int8send(number) || int8send(first_sequence)"
        " || int8send(last_sequence) || previous_hash || made.leaves)"
        " FROM (SELECT string_agg(int8send(sequence) || sha256(ledger.canonical(transfer)), ''::bytea"
        " ORDER BY sequence) AS leaves FROM ledger.transfers AS transfer, ledger.batches AS of"
        f" WHERE of.number = {number} AND sequence BETWEEN of.first_sequence AND of.last_sequence) AS made"
        f" WHERE number = {number}"
    )


async def test_a_batch_that_is_gone_is_named(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await close_batch(ledger)
    noted = (await verify(ledger)).head
    await tamper(ledger, "DELETE FROM ledger.batches WHERE number IN (1, 3)")
    assert (await verify(ledger)).findings == (Finding(Trace.BATCH_MISSING, 1),)
    assert (await verify(ledger, since=2)).findings == (Finding(Trace.BATCH_MISSING, 1),)
    assert Finding(Trace.HEAD_DIFFERS, 3) in (await verify(ledger, noted=noted)).findings


async def test_leaves_that_were_altered_are_found_in_their_batch_and_its_transfers(ledger: AsyncEngine) -> None:
    await closed(ledger)
    await tamper(
        ledger,
        "ALTER TABLE ledger.batches DROP CONSTRAINT ck_batches_hash",
        "UPDATE ledger.batches SET leaves = set_byte(leaves, 60, 255 - get_byte(leaves, 60)) WHERE number = 1",
    )
    found = (await verify(ledger)).findings
    assert found == (Finding(Trace.BATCH_ALTERED, 1), Finding(Trace.ALTERED, 1, 2, "t2"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.batches SET closed_at = now()",
        "DELETE FROM ledger.batches",
        "TRUNCATE ledger.batches",
    ],
)
async def test_a_batch_is_never_changed_or_deleted(ledger: AsyncEngine, statement: str) -> None:
    await closed(ledger)
    with pytest.raises(IntegrityError, match="is forbidden"):
        async with ledger.begin() as connection:
            await connection.execute(text(statement))
