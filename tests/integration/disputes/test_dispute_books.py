"""The books of a dispute: the row, the evidence, the money and the event change together, once, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.dispute_records import DisputeChange, NoticeRecord
from domain.disputes import DisputeEvent, DisputeKind, NoticeStage
from domain.errors import NotFound
from domain.payments import PaymentEvent, PaymentStatus
from ledger.books import OutOfOrder
from ledger.dispute_books import DisputeBooks, DisputeExceedsPayment, DisputeInOtherCurrency
from ledger.errors import PaymentDisputed
from tests.integration.books.support import Life, Shop
from tests.support.disputes import (
    ISSUED_AT,
    Case,
    dispute_events,
    dispute_row,
    dispute_rows,
    evidence_file,
    moved_minor,
    notice,
    opening_of,
)

E, K, N = DisputeEvent, DisputeKind, NoticeStage
FEE_MINOR = 1500


@pytest_asyncio.fixture
async def books(engine: AsyncEngine, shop: Shop) -> AsyncIterator[DisputeBooks]:
    """The books of disputes; a lost case costs $15. The ledger's invariants are checked when the test ends."""
    yield DisputeBooks(engine, {Currency.USD: FEE_MINOR})
    assert await shop.violations() == []


@pytest_asyncio.fixture
async def life(shop: Shop) -> Life:
    """A captured payment of $10.00."""
    return await shop.in_state(PaymentStatus.CAPTURED)


async def start(books: DisputeBooks, life: Life, **fields: Any) -> Case:
    case = Case.of(opening_of(notice(life.id, **fields)))
    await books.open(case.opening)
    return case


async def goes(books: DisputeBooks, case: Case, event: DisputeEvent, **fields: Any) -> DisputeChange:
    change = case.change(event, **fields)
    await books.record(change)
    case.went(change)
    return change


async def everything(engine: AsyncEngine, case: Case) -> list[Any]:
    """All that the database holds about a dispute, to compare it with later."""
    tables = ["platform.disputes WHERE id", "platform.dispute_files WHERE dispute_id"]
    tables += ["platform.dispute_notices WHERE dispute_id", "platform.outbox WHERE subject_id"]
    tables += ["ledger.transfers WHERE reference"]
    return [await dispute_rows(engine, f"SELECT * FROM {table} = :id ORDER BY 1, 2", case.id) for table in tables]


# ---------------------------------------------------------------------------------------------------------- the opening


async def test_a_chargeback_sets_the_money_aside(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = Case.of(opening_of(notice(life.id, amount_minor=700)))
    owner = await books.open(case.opening)
    row = await dispute_row(engine, case.id)
    assert (owner.account_id, owner.merchant_id) == (row["account_id"], "coffee-42")
    assert (row["status"], row["taken_minor"], row["excess_minor"], row["version"]) == ("needs_response", 700, 0, 1)
    assert row["due_by"] == ISSUED_AT + timedelta(days=20)
    assert await moved_minor(engine, case.id) == {"merchant_payable": -700, "disputes": 700}
    (event,) = await dispute_events(engine, case.id)
    assert (event["type"], event["data"]["payment_id"], event["data"]["amount_minor"]) == ("created", life.id, 700)


async def test_an_inquiry_moves_no_money(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life, kind=K.INQUIRY)
    row = await dispute_row(engine, case.id)
    assert (row["status"], row["taken_minor"]) == ("inquiry", 0)
    assert await moved_minor(engine, case.id) == {}


async def test_opening_again_changes_nothing(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life)
    before = await everything(engine, case)
    assert await books.open(case.opening) == await books.open(replace(case.opening, opened_at=ISSUED_AT))
    assert await everything(engine, case) == before


async def test_an_id_belongs_to_one_case(books: DisputeBooks, life: Life) -> None:
    case = await start(books, life)
    with pytest.raises(OutOfOrder):
        await books.open(replace(opening_of(notice(life.id)), dispute_id=case.id))


async def test_a_payment_that_is_not_there_cannot_be_disputed(books: DisputeBooks) -> None:
    with pytest.raises(NotFound):
        await books.open(opening_of(notice("pay_nobody")))


async def test_another_currency_cannot_be_booked(books: DisputeBooks, life: Life) -> None:
    with pytest.raises(DisputeInOtherCurrency):
        await books.open(opening_of(notice(life.id, currency=Currency.EUR)))


# ------------------------------------------------------------------------------------------- no more than there is left


async def test_no_more_is_disputed_than_is_captured_and_not_refunded(
    books: DisputeBooks, engine: AsyncEngine, shop: Shop, life: Life
) -> None:
    refund = await shop.reserve(life, 400)
    await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 400, refund_id=refund)
    opening = opening_of(notice(life.id, amount_minor=601))
    with pytest.raises(DisputeExceedsPayment):
        await books.open(opening)
    assert await dispute_rows(engine, "SELECT 1 FROM platform.disputes WHERE id = :id", opening.dispute_id) == []
    await books.open(opening_of(notice(life.id, amount_minor=600)))


async def test_a_refund_under_way_counts_as_given_back(books: DisputeBooks, shop: Shop, life: Life) -> None:
    await shop.reserve(life, 1)
    with pytest.raises(DisputeExceedsPayment):
        await books.open(opening_of(notice(life.id)))


async def test_what_is_not_captured_cannot_be_disputed(books: DisputeBooks, shop: Shop) -> None:
    life = await shop.in_state(PaymentStatus.AUTHORIZED)
    with pytest.raises(DisputeExceedsPayment):
        await books.open(opening_of(notice(life.id)))


async def test_an_acknowledged_excess_is_booked_and_remembered(
    books: DisputeBooks, engine: AsyncEngine, shop: Shop, life: Life
) -> None:
    refund = await shop.reserve(life, 400)
    await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 400, refund_id=refund)
    case = Case.of(opening_of(notice(life.id), acknowledged=True))
    await books.open(case.opening)
    assert (await dispute_row(engine, case.id))["excess_minor"] == 400
    assert (await moved_minor(engine, case.id))["disputes"] == 1000


async def test_of_two_disputes_at_once_one_takes_what_is_left(books: DisputeBooks, life: Life) -> None:
    openings = [opening_of(notice(life.id, amount_minor=600)) for _ in range(2)]
    outcomes = await asyncio.gather(*map(books.open, openings), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(refusal) for refusal in refused] == [DisputeExceedsPayment]


async def test_a_won_dispute_leaves_its_amount_for_the_next_one(books: DisputeBooks, life: Life) -> None:
    first = await start(books, life)
    with pytest.raises(DisputeExceedsPayment):
        await books.open(opening_of(notice(life.id, amount_minor=1)))
    await goes(books, first, E.DECIDED_WON)
    await start(books, life)
    with pytest.raises(DisputeExceedsPayment):
        await books.record(first.change(E.DECIDED_LOST))


# ----------------------------------------------------------------------------------------------------- where money goes


async def test_a_won_case_gives_the_money_back(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life)
    await goes(books, case, E.DECIDED_WON)
    assert await moved_minor(engine, case.id) == {}
    row = await dispute_row(engine, case.id)
    assert (row["status"], row["taken_minor"], row["due_by"]) == ("won", 0, None)
    assert row["closed_at"] is not None


@pytest.mark.parametrize("event", [E.DECIDED_LOST, E.EXPIRED, E.ACCEPTED])
async def test_a_lost_case_costs_the_merchant_the_amount_and_the_fee(
    books: DisputeBooks, engine: AsyncEngine, life: Life, event: DisputeEvent
) -> None:
    case = await start(books, life)
    await goes(books, case, event)
    assert await moved_minor(engine, case.id) == {
        "merchant_payable": -1000 - FEE_MINOR,
        "network_receivable": 1000,
        "dispute_fees": FEE_MINOR,
    }
    assert (await dispute_events(engine, case.id))[-1]["type"] == "closed"


async def test_a_case_that_turns_is_booked_each_time(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life)
    await goes(books, case, E.DECIDED_LOST)
    await goes(books, case, E.DECIDED_WON)
    assert await moved_minor(engine, case.id) == {}
    await goes(books, case, E.DECIDED_LOST)
    assert (await moved_minor(engine, case.id))["merchant_payable"] == -1000 - FEE_MINOR


async def test_without_a_fee_a_lost_case_costs_its_amount(engine: AsyncEngine, shop: Shop, life: Life) -> None:
    books = DisputeBooks(engine, {})
    case = await start(books, life)
    await goes(books, case, E.EXPIRED)
    assert await moved_minor(engine, case.id) == {"merchant_payable": -1000, "network_receivable": 1000}
    assert await shop.violations() == []


async def test_an_escalated_inquiry_takes_the_chargebacks_amount(
    books: DisputeBooks, engine: AsyncEngine, life: Life
) -> None:
    case = await start(books, life, kind=K.INQUIRY, amount_minor=1000)
    chargeback = notice(life.id, chargeback_id=case.opening.notice.chargeback_id, amount_minor=800)
    await goes(books, case, E.ESCALATED, notice=chargeback)
    row = await dispute_row(engine, case.id)
    assert (row["kind"], row["status"], row["amount_minor"], row["taken_minor"]) == (
        "chargeback",
        "needs_response",
        800,
        800,
    )
    assert (await moved_minor(engine, case.id))["disputes"] == 800
    notices = await dispute_rows(engine, _NOTICES, case.id)
    assert [(each["kind"], each["event"]) for each in notices] == [("chargeback", "escalated"), ("inquiry", "created")]


_NOTICES = "SELECT * FROM platform.dispute_notices WHERE dispute_id = :id ORDER BY kind"


# ------------------------------------------------------------------------------------------------------- once, in order


@pytest.mark.parametrize("event", [E.EVIDENCE_ADDED, E.EVIDENCE_DUE_SOON, E.SUBMITTED, E.DECIDED_WON, E.DECIDED_LOST])
async def test_recording_a_change_again_changes_nothing(
    books: DisputeBooks, engine: AsyncEngine, life: Life, event: DisputeEvent
) -> None:
    case = await start(books, life)
    fields: dict[str, Any] = {}
    if event is E.EVIDENCE_ADDED:
        fields = {"texts": {"customer_name": "Ada"}, "file": evidence_file()}
    change = await goes(books, case, event, **fields)
    before = await everything(engine, case)
    await books.record(change)
    assert await everything(engine, case) == before


async def test_another_event_under_the_same_version_is_refused(books: DisputeBooks, life: Life) -> None:
    case = await start(books, life)
    won, lost = case.change(E.DECIDED_WON), case.change(E.DECIDED_LOST)
    await books.record(won)
    with pytest.raises(OutOfOrder):
        await books.record(lost)


async def test_a_change_without_its_predecessor_is_refused(books: DisputeBooks, life: Life) -> None:
    case = await start(books, life)
    with pytest.raises(OutOfOrder):
        await books.record(replace(case.change(E.EVIDENCE_DUE_SOON), version=7))
    never_opened = Case.of(opening_of(notice(life.id)))
    for event in (E.SUBMITTED, E.DECIDED_WON):
        with pytest.raises(OutOfOrder):
            await books.record(never_opened.change(event))


async def test_a_notice_that_changed_nothing_is_kept_once(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life)
    again = notice(life.id, chargeback_id=case.opening.notice.chargeback_id, issued_at=ISSUED_AT + timedelta(hours=1))
    for _ in range(2):
        await books.note(NoticeRecord(case.id, again, ISSUED_AT))
    notices = await dispute_rows(engine, _NOTICES, case.id)
    assert sorted(str(each["event"]) for each in notices) == ["None", "created"]
    assert [event["type"] for event in await dispute_events(engine, case.id)] == ["created"]


async def test_the_events_of_a_dispute_are_numbered_without_gaps(
    books: DisputeBooks, engine: AsyncEngine, life: Life
) -> None:
    case = await start(books, life)
    await goes(books, case, E.EVIDENCE_DUE_SOON, days_left=7)
    await goes(books, case, E.EVIDENCE_ADDED, texts={"customer_name": "Ada", "service_date": "2026-11-01"})
    await goes(books, case, E.SUBMITTED)
    await goes(books, case, E.REPRESENTED, evidence_sha256="cd" * 32)
    await goes(books, case, E.DECIDED_WON, status_reason="issuer_decided")
    events = await dispute_events(engine, case.id)
    assert [event["subject_sequence"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["type"] for event in events] == [
        "created",
        "evidence_due_soon",
        "evidence_added",
        "submitted",
        "represented",
        "closed",
    ]
    assert events[1]["data"]["days_left"] == 7
    assert events[2]["data"]["text_fields"] == ["customer_name", "service_date"]
    assert "Ada" not in str(events)
    assert (events[5]["data"]["event"], events[5]["data"]["status"]) == ("decided_won", "won")


# ------------------------------------------------------------------------------------------------------------- evidence


async def test_texts_are_set_replaced_and_removed(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life)
    await goes(books, case, E.EVIDENCE_ADDED, texts={"customer_name": "Ada", "service_date": "2026-11-01"})
    await goes(books, case, E.EVIDENCE_ADDED, texts={"customer_name": "", "service_date": "2026-11-02"})
    assert (await dispute_row(engine, case.id))["texts"] == {"service_date": "2026-11-02"}


async def test_a_new_answer_forgets_the_acknowledgement_of_the_last_one(
    books: DisputeBooks, engine: AsyncEngine, life: Life
) -> None:
    case = await start(books, life, kind=K.INQUIRY)
    await goes(books, case, E.SUBMITTED)
    await goes(books, case, E.REPRESENTED, evidence_sha256="cd" * 32)
    await goes(books, case, E.ESCALATED, notice=notice(life.id, chargeback_id=case.opening.notice.chargeback_id))
    assert (await dispute_row(engine, case.id))["represented_at"] is not None
    await goes(books, case, E.SUBMITTED)
    row = await dispute_row(engine, case.id)
    assert (row["represented_at"], row["evidence_sha256"], row["submissions"]) == (None, None, 2)


# --------------------------------------------------------------------------------------- what no statement can get past

_UPDATE = "UPDATE platform.disputes SET version = version + 1, {} WHERE id = :id"

WRONG: dict[str, str] = {
    "a version that jumps": "UPDATE platform.disputes SET version = version + 2 WHERE id = :id",
    "a case of another payment": _UPDATE.format("chargeback_id = 'cb-other'"),
    "another amount": _UPDATE.format("amount_minor = 1, taken_minor = 1"),
    "money with the merchant of an open case": _UPDATE.format("taken_minor = 0"),
    "a state of another kind": _UPDATE.format("status = 'inquiry'"),
    "an inquiry that was a chargeback": _UPDATE.format("kind = 'inquiry', status = 'inquiry', taken_minor = 0"),
    "a review without an answer": _UPDATE.format("status = 'under_review'"),
    "a decided case that waits": _UPDATE.format("status = 'lost', closed_at = now()"),
    "an open case without a deadline": _UPDATE.format("due_by = NULL"),
    "a digest that is none": _UPDATE.format("evidence_sha256 = 'abc'"),
    "a waived fee": _UPDATE.format("fee_minor = 0"),
    "a dispute deleted": "DELETE FROM platform.disputes WHERE id = :id",
    "a notice rewritten": "UPDATE platform.dispute_notices SET stage = 'won' WHERE dispute_id = :id",
    "a notice deleted": "DELETE FROM platform.dispute_notices WHERE dispute_id = :id",
    "a file renamed": "UPDATE platform.dispute_files SET name = 'x' WHERE dispute_id = :id",
    "a file deleted": "DELETE FROM platform.dispute_files WHERE dispute_id = :id",
    "a path for a name": (
        "INSERT INTO platform.dispute_files VALUES ('file_1', :id, 'receipt', '../x.pdf', 'application/pdf', 1,"
        f" '{'ab' * 32}', now())"
    ),
    "an empty file": (
        "INSERT INTO platform.dispute_files VALUES ('file_1', :id, 'receipt', 'x.pdf', 'application/pdf', 0,"
        f" '{'ab' * 32}', now())"
    ),
    "a file of another type": (
        "INSERT INTO platform.dispute_files VALUES ('file_1', :id, 'receipt', 'x.exe', 'application/x-dosexec', 1,"
        f" '{'ab' * 32}', now())"
    ),
}


@pytest.mark.parametrize("statement", WRONG.values(), ids=WRONG.keys())
async def test_the_database_refuses(books: DisputeBooks, engine: AsyncEngine, life: Life, statement: str) -> None:
    case = await start(books, life)
    await goes(books, case, E.EVIDENCE_ADDED, file=evidence_file())
    with pytest.raises(IntegrityError):
        await _execute(engine, statement, case.id)


async def test_the_database_refuses_evidence_of_a_submitted_case(
    books: DisputeBooks, engine: AsyncEngine, life: Life
) -> None:
    case = await start(books, life)
    await goes(books, case, E.SUBMITTED)
    for statement in (
        _UPDATE.format("""texts = '{"customer_name": "Eve"}'"""),
        "INSERT INTO platform.dispute_files VALUES ('file_2', :id, 'receipt', 'x.pdf', 'application/pdf', 1,"
        f" '{'ab' * 32}', now())",
    ):
        with pytest.raises(IntegrityError, match="submitted"):
            await _execute(engine, statement, case.id)


async def test_the_database_refuses_an_eleventh_file(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    case = await start(books, life)
    for number in range(10):
        await goes(books, case, E.EVIDENCE_ADDED, file=evidence_file(f"{number}.pdf"))
    with pytest.raises(IntegrityError, match="as many files"):
        await goes(books, case, E.EVIDENCE_ADDED, file=evidence_file())


async def test_the_database_refuses_a_dispute_beyond_the_payment(
    books: DisputeBooks, engine: AsyncEngine, life: Life
) -> None:
    case = await start(books, life)
    copy = (
        "INSERT INTO platform.disputes SELECT 'dp_copy', 'cb-copy', payment_id, account_id, 1, kind, status, {amount},"
        " {currency}, {amount}, 0, 0, reason_code, NULL, rrn, due_by, false, '{{}}', 0, NULL, NULL, NULL, NULL, now(),"
        " now() FROM platform.disputes WHERE id = :id"
    )
    with pytest.raises(IntegrityError, match="more than"):
        await _execute(engine, copy.format(amount=1, currency="currency"), case.id)
    with pytest.raises(IntegrityError, match="currency"):
        await _execute(engine, copy.format(amount=1, currency="'EUR'"), case.id)


async def _execute(engine: AsyncEngine, statement: str, dispute_id: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), {"id": dispute_id})


# ---------------------------------------------------------------------------------------- refunds of a disputed payment


async def test_a_refund_of_what_a_dispute_has_taken_is_told_so_and_cannot_be_given(
    books: DisputeBooks, shop: Shop, life: Life
) -> None:
    await start(books, life, amount_minor=700)
    refund_id, disputed = await shop.reserve_if_undisputed(life, 301)
    assert disputed
    version = life.version
    with pytest.raises(PaymentDisputed, match=life.id):
        await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 301, refund_id=refund_id)
    assert life.version == version
    await shop.record(life, PaymentEvent.REFUND_FAILED, 301, refund_id=refund_id)
    left = await shop.reserve(life, 300)
    await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 300, refund_id=left)


async def test_a_case_that_is_won_lets_its_money_be_refunded_and_one_that_is_lost_does_not(
    books: DisputeBooks, shop: Shop
) -> None:
    for event, refused in ((E.DECIDED_WON, False), (E.DECIDED_LOST, True)):
        life = await shop.in_state(PaymentStatus.CAPTURED)
        case = await start(books, life)
        await goes(books, case, event)
        _, disputed = await shop.reserve_if_undisputed(life, 1)
        assert disputed is refused


async def test_an_inquiry_takes_nothing_and_keeps_no_refund_back(books: DisputeBooks, shop: Shop, life: Life) -> None:
    await start(books, life, kind=K.INQUIRY)
    await shop.reserve(life, 1000)


async def test_a_refund_that_was_reserved_before_the_dispute_ends_as_it_would_have(
    books: DisputeBooks, shop: Shop, life: Life
) -> None:
    refund_id = await shop.reserve(life, 400)
    await start(books, life, amount_minor=600)
    await shop.record(life, PaymentEvent.REFUND_SUCCEEDED, 400, refund_id=refund_id)


async def test_of_a_refund_and_a_dispute_at_the_same_moment_one_is_refused(books: DisputeBooks, shop: Shop) -> None:
    for _ in range(10):
        life = await shop.in_state(PaymentStatus.CAPTURED)
        opened, reserved = await asyncio.gather(
            start(books, life), shop.reserve_if_undisputed(life, 1000), return_exceptions=True
        )
        assert isinstance(reserved, tuple)
        assert isinstance(opened, DisputeExceedsPayment) != reserved[1]


async def test_a_refund_by_hand_is_refused_as_well(books: DisputeBooks, engine: AsyncEngine, life: Life) -> None:
    await start(books, life)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="payment_disputed"):
            await connection.execute(
                text("UPDATE platform.payments SET amount_refunded_minor = 1 WHERE id = :id"), {"id": life.id}
            )
