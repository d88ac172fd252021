"""Every rule finds what breaks it, and names it. Triggers are off for the session that tampers, as a superuser can."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from domain.payments import PaymentStatus
from ledger.invariants import LEDGER_RULES, RULES, check
from tests.integration.books.support import Life, open_shop
from tests.integration.ledger.support import Books

# (what is done, the rules that it breaks)
LEDGER_TAMPERINGS = [
    (
        "UPDATE ledger.accounts SET credits_posted = credits_posted + 1 WHERE id = '{shop}'",
        {"balance_equals_transfers", "debits_equal_credits"},
    ),
    (
        "UPDATE ledger.accounts SET debits_pending = debits_pending + 1 WHERE id = '{wallet}'",
        {"balance_equals_transfers", "debits_equal_credits", "pending_equals_holds"},
    ),
    (
        "UPDATE ledger.transfers SET amount_minor = 999 WHERE id = '{prefix}:fund'",
        {"balance_equals_transfers", "entries_equal_transfers"},
    ),
    (
        "DELETE FROM ledger.transfers WHERE id = '{prefix}:fund'",
        {
            "balance_equals_transfers",
            "debits_must_not_exceed_credits",
            "wallet_not_negative",
            "entries_equal_transfers",
        },
    ),
    (
        "UPDATE ledger.holds SET remaining_minor = 1 WHERE pending_id = '{prefix}:hold'",
        {"hold_equals_transfers", "pending_equals_holds"},
    ),
    (
        "DELETE FROM ledger.holds WHERE pending_id = '{prefix}:hold'",
        {"hold_equals_transfers", "pending_equals_holds"},
    ),
    (
        "UPDATE ledger.transfers SET released_minor = 700 WHERE id = '{prefix}:post'",
        {"balance_equals_transfers", "pending_not_negative", "hold_equals_transfers", "entries_equal_transfers"},
    ),
    (
        "UPDATE ledger.transfers SET currency = 'EUR' WHERE id = '{prefix}:fund'",
        {"account_has_currency_of_transfer"},
    ),
    (
        "INSERT INTO ledger.transfers (sequence, id, kind, debit_account, credit_account, amount_minor,"
        " released_minor, currency, code, reference, created_at)"
        " VALUES (0, '{prefix}:forged', 'posted', '{wallet}', '{shop}', 900, 0, 'USD', 'x', '{prefix}', now())",
        {
            "balance_equals_transfers",
            "debits_must_not_exceed_credits",
            "wallet_not_negative",
            "entries_equal_transfers",
        },
    ),
    (
        "ALTER TABLE ledger.accounts DROP CONSTRAINT ck_accounts_exceeds_debits;"
        " UPDATE ledger.accounts SET balance_limit = 'credits_must_not_exceed_debits' WHERE id = '{shop}'",
        {"credits_must_not_exceed_debits"},
    ),
    (
        "UPDATE ledger.entries SET credits_posted = credits_posted + 1 WHERE account = '{wallet}' AND position = 1",
        {"entries_equal_transfers"},
    ),
    (
        "UPDATE ledger.entries SET position = position + 1 WHERE account = '{shop}'",
        {"entries_equal_transfers"},
    ),
    (
        "DELETE FROM ledger.entries WHERE account = '{wallet}' AND position = 3",
        {"entries_equal_transfers"},
    ),
]

PAYMENT_TAMPERINGS = [
    (
        "UPDATE platform.payments SET amount_refunded_minor = 5 WHERE id = '{payment}'",
        {"payment_equals_transfers"},
    ),
    (
        "UPDATE platform.payments SET status = 'authorized', amount_captured_minor = 0 WHERE id = '{payment}'",
        {"payment_equals_transfers"},
    ),
    (
        "ALTER TABLE platform.payments DROP CONSTRAINT ck_payments_captured;"
        " UPDATE platform.payments SET amount_authorized_minor = 999 WHERE id = '{payment}'",
        {"payment_amounts"},
    ),
    ("UPDATE platform.payments SET version = 4 WHERE id = '{payment}'", {"payment_versions"}),
    (
        "DELETE FROM platform.outbox WHERE subject_id = '{payment}' AND subject_sequence = 2",
        {"payment_versions"},
    ),
]


def test_there_is_a_tampering_for_every_rule() -> None:
    assert {rule for _, rules in [*LEDGER_TAMPERINGS, *PAYMENT_TAMPERINGS] for rule in rules} == set(RULES)


@pytest.mark.parametrize(("tampering", "rules"), LEDGER_TAMPERINGS)
async def test_what_was_tampered_with_in_the_ledger_is_found(books: Books, tampering: str, rules: set[str]) -> None:
    await books.apply(books.hold(600), books.post(100, final=False))
    assert await books.violations() == []
    names = {"shop": books.shop, "wallet": books.wallet, "prefix": books.prefix}
    found = await _tampered(books, tampering.format(**names))
    assert set(found) == rules
    subjects = {subject for subjects in found.values() for subject in subjects}
    assert all(subject.startswith(books.prefix) or len(subject) == 3 for subject in subjects)


@pytest.mark.parametrize(("tampering", "rules"), PAYMENT_TAMPERINGS)
async def test_what_was_tampered_with_at_a_payment_is_found(books: Books, tampering: str, rules: set[str]) -> None:
    life = await _captured(books)
    assert await _tampered(books, tampering.format(payment=life.id)) == {rule: [life.id] for rule in rules}


async def test_an_authorized_payment_without_postings_is_found(books: Books) -> None:
    life = await _captured(books)
    found = await _tampered(books, f"DELETE FROM ledger.transfers WHERE reference = '{life.id}'")
    assert found["payment_equals_transfers"] == [life.id]


async def test_of_many_violations_as_many_are_named_as_were_asked_for(books: Books) -> None:
    await books.apply(*(books.fund(1, f"more {number}") for number in range(9)))
    async with books.engine.connect() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(
            text("UPDATE ledger.transfers SET currency = 'EUR' WHERE reference = :prefix"), {"prefix": books.prefix}
        )
        report = await check(connection, rules=LEDGER_RULES, limit=4)
        await connection.rollback()
    found = report.by_rule["account_has_currency_of_transfer"]
    assert len(found) == 4
    assert report.more == {"account_has_currency_of_transfer"}
    assert not report.holds
    assert set(report.by_rule) == set(LEDGER_RULES)
    assert not any(report.by_rule[rule] for rule in set(LEDGER_RULES) - {"account_has_currency_of_transfer"})


async def _captured(books: Books) -> Life:
    return await (await open_shop(books.engine)).in_state(PaymentStatus.CAPTURED)


async def _tampered(books: Books, tampering: str) -> dict[str, list[str]]:
    """The rules that `tampering` breaks and where they are met; it is rolled back.

    What other tests have made of payments without a ledger is none of it.
    """
    async with books.engine.connect() as connection:
        earlier = await check(connection, limit=10_000)
        before = {rule: {each.subject for each in found} for rule, found in earlier.by_rule.items()}
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in tampering.split(";"):
            await connection.execute(text(statement))
        report = await check(connection, limit=10_000)
        await connection.rollback()
    found = {rule: [each.subject for each in found] for rule, found in report.by_rule.items()}
    new = {rule: [subject for subject in found[rule] if subject not in before[rule]] for rule in found}
    return {rule: subjects for rule, subjects in new.items() if subjects}
