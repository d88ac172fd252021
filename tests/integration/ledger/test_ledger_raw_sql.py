"""The database keeps the ledger's rules against SQL that does not go through `ledger.apply`."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.transfers import apply
from tests.integration.ledger.support import Books

UNTOUCHED = (0, 0, 0, 1000)
FORBIDDEN = "is forbidden: only new transfers change the ledger"


def insertion(values: str) -> str:
    """Rows of (id, kind, debit, credit, amount, currency), the ids without their prefix."""
    return (
        "INSERT INTO ledger.transfers"
        " (id, kind, debit_account, credit_account, amount_minor, currency, code, reference)"
        " SELECT '{prefix}:' || id, kind, '{prefix}:' || debit, '{prefix}:' || credit, amount, currency, 'x', 'x'"
        f" FROM (VALUES {values}) AS row (id, kind, debit, credit, amount, currency)"
    )


def second_phase(values: str) -> str:
    """Rows of (id, kind, hold, amount, final), the ids without their prefix."""
    return (
        "INSERT INTO ledger.transfers (id, kind, pending_id, amount_minor, final, reference)"
        " SELECT '{prefix}:' || id, kind, '{prefix}:' || hold, amount, CAST(final AS boolean), 'x'"
        f" FROM (VALUES {values}) AS row (id, kind, hold, amount, final)"
    )


async def refuse(books: Books, statement: str, because: str) -> None:
    with pytest.raises(IntegrityError, match=because):
        await books.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.transfers SET amount_minor = 1 WHERE id = '{prefix}:fund'",
        "UPDATE ledger.transfers SET code = code",
        "DELETE FROM ledger.transfers WHERE id = '{prefix}:fund'",
        "TRUNCATE ledger.transfers CASCADE",
        insertion("('fund', 'posted', 'bank', 'wallet', 1, 'USD')") + " ON CONFLICT (id) DO UPDATE SET code = 'y'",
        "MERGE INTO ledger.transfers USING (VALUES ('{prefix}:fund')) AS it (id) ON transfers.id = it.id"
        " WHEN MATCHED THEN DELETE",
    ],
)
async def test_a_transfer_is_never_changed_or_deleted(books: Books, statement: str) -> None:
    await refuse(books, statement, FORBIDDEN)
    assert await books.sums(books.wallet) == UNTOUCHED
    assert await books.violations() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.accounts SET credits_posted = credits_posted + 1 WHERE id = '{wallet}'",
        "UPDATE ledger.accounts SET balance_limit = NULL WHERE id = '{wallet}'",
        "UPDATE ledger.accounts SET currency = 'EUR' WHERE id = '{wallet}'",
        "DO $$ BEGIN UPDATE ledger.accounts SET credits_posted = 0; END $$",
        "WITH pay AS (" + insertion("('x', 'posted', 'bank', 'shop', 1, 'USD')") + ")"
        " UPDATE ledger.accounts SET credits_posted = 0",
        "INSERT INTO ledger.accounts (id, currency, code) VALUES ('{wallet}', 'USD', 'x')"
        " ON CONFLICT (id) DO UPDATE SET credits_posted = 5000",
        "INSERT INTO ledger.accounts (id, currency, code, credits_posted) VALUES ('{prefix}:rich', 'USD', 'x', 5)",
        "INSERT INTO ledger.accounts (id, currency, code, debits_posted, credits_posted)"
        " VALUES ('{prefix}:even', 'USD', 'x', -5, 5)",
        "DELETE FROM ledger.accounts WHERE id = '{shop}'",
        "TRUNCATE ledger.accounts CASCADE",
    ],
)
async def test_balances_change_by_transfers_alone(books: Books, statement: str) -> None:
    await refuse(books, statement, FORBIDDEN)
    assert await books.sums(books.wallet) == UNTOUCHED


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.holds SET state = 'voided', remaining_minor = 0 WHERE pending_id = '{prefix}:hold'",
        "UPDATE ledger.holds SET expires_at = now() WHERE pending_id = '{prefix}:hold'",
        "INSERT INTO ledger.holds (pending_id, remaining_minor) VALUES ('{prefix}:fund', 1000)",
        "DELETE FROM ledger.holds WHERE pending_id = '{prefix}:hold'",
        "TRUNCATE ledger.holds",
    ],
)
async def test_holds_change_by_transfers_alone(books: Books, statement: str) -> None:
    await books.apply(books.hold(600))
    await refuse(books, statement, FORBIDDEN)
    assert await books.sums(books.wallet) == (600, 0, 0, 1000)


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ("('x', 'posted', 'wallet', 'shop', 1001, 'USD')", "ck_accounts_exceeds_credits"),
        ("('x', 'pending', 'wallet', 'shop', 1001, 'USD')", "ck_accounts_exceeds_credits"),
        (
            "('x', 'posted', 'wallet', 'shop', 600, 'USD'), ('y', 'posted', 'wallet', 'shop', 600, 'USD')",
            "ck_accounts_exceeds_credits",
        ),
        ("('x', 'posted', 'wallet', 'shop', 1, 'EUR')", "transfer_must_have_same_currency_as_accounts"),
        ("('x', 'posted', 'bank', 'bank', 1, 'USD')", "ck_transfers_accounts_must_be_different"),
        ("('x', 'posted', 'nobody', 'shop', 1, 'USD')", "debit_account_not_found"),
        ("('x', 'posted', 'bank', 'nobody', 1, 'USD')", "credit_account_not_found"),
        ("('x', 'posted', 'shop', 'bank', -1, 'USD')", "ck_transfers_amount_minor"),
        ("('x', 'posted', 'shop', 'bank', 0, 'USD')", "ck_transfers_amount_minor"),
        ("('x', 'void', 'shop', 'bank', 0, 'USD')", "ck_transfers_kind"),
        ("('x', 'gift', 'shop', 'bank', 1, 'USD')", "transfer_kind"),
        ("('fund', 'posted', 'shop', 'bank', 1, 'USD')", "pk_transfers"),
    ],
)
async def test_an_inserted_transfer_keeps_the_rules(books: Books, values: str, because: str) -> None:
    await refuse(books, insertion(values), because)
    assert await books.sums(books.wallet) == UNTOUCHED


@pytest.mark.parametrize("currency", ["USD", "EUR"])
async def test_a_transfer_between_currencies_cannot_be_inserted(books: Books, currency: str) -> None:
    await books.execute("INSERT INTO ledger.accounts (id, currency, code) VALUES ('{prefix}:euros', 'EUR', 'bank')")
    statement = insertion(f"('x', 'posted', 'bank', 'euros', 1, '{currency}')")
    await refuse(books, statement, "accounts_must_have_same_currency")


async def test_an_inserted_transfer_moves_money(books: Books) -> None:
    await books.execute(insertion("('x', 'posted', 'wallet', 'shop', 400, 'USD')"))
    assert await books.sums(books.wallet) == (0, 400, 0, 1000)
    assert await books.violations() == []


async def test_a_transfer_that_conflicts_with_another_moves_nothing(books: Books) -> None:
    await books.execute(insertion("('fund', 'posted', 'wallet', 'shop', 400, 'USD')") + " ON CONFLICT DO NOTHING")
    assert await books.sums(books.wallet) == UNTOUCHED
    assert await books.violations() == []


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ("('x', 'post', 'hold', 601, true)", "exceeds_pending_transfer_amount"),
        ("('x', 'post', 'hold', 0, true)", "ck_transfers_amount_minor"),
        ("('x', 'post', 'hold', -1, true)", "ck_transfers_amount_minor"),
        ("('x', 'post', 'hold', 1, NULL)", "ck_transfers_kind"),
        ("('x', 'post', 'fund', 1, true)", "pending_transfer_not_pending"),
        ("('x', 'post', 'none', 1, true)", "pending_transfer_not_found"),
        ("('x', 'expire', 'hold', 0, NULL)", "pending_transfer_not_expired"),
        ("('x', 'post', 'hold', 400, false), ('y', 'post', 'hold', 400, false)", "exceeds_pending_transfer_amount"),
        ("('x', 'post', 'hold', 400, false), ('y', 'post', 'hold', 200, true)", "exceeds_pending_transfer_amount"),
        ("('x', 'post', 'hold', 400, false), ('y', 'void', 'hold', 0, NULL)", "exceeds_pending_transfer_amount"),
        ("('x', 'post', 'hold', 600, true), ('y', 'void', 'hold', 0, NULL)", "exceeds_pending_transfer_amount"),
        ("('x', 'void', 'hold', 0, NULL), ('y', 'void', 'hold', 0, NULL)", "exceeds_pending_transfer_amount"),
    ],
)
async def test_a_hold_ends_once_and_within_its_amount_even_in_one_statement(
    books: Books, values: str, because: str
) -> None:
    await books.apply(books.hold(600), books.hold(400, "another"))
    await refuse(books, second_phase(values), because)
    assert await books.sums(books.wallet) == (1000, 0, 0, 1000)


async def test_what_a_pending_transfer_fixed_is_taken_from_it_whatever_is_inserted(books: Books) -> None:
    await books.apply(books.hold(600))
    await books.execute(
        "INSERT INTO ledger.transfers (id, kind, pending_id, amount_minor, final, reference, debit_account,"
        " credit_account, currency, code, released_minor, created_at)"
        " VALUES ('{prefix}:x', 'post', '{prefix}:hold', 100, true, 'x', '{shop}',"
        " '{bank}', 'EUR', 'y', 5, '1999-01-01')"
    )
    assert await books.sums(books.wallet) == (0, 100, 0, 1000)
    assert await books.sums(books.shop) == (0, 0, 0, 100)
    assert await books.violations() == []
    async with books.engine.connect() as connection:
        backdated = await connection.scalar(
            text("SELECT created_at < now() - interval '1 hour' FROM ledger.transfers WHERE id = :id"),
            {"id": books.name("x")},
        )
    assert backdated is False


async def test_a_role_that_may_only_call_apply_can_apply_and_nothing_else(books: Books) -> None:
    role = f"ledger_{books.prefix}"
    async with books.engine.connect() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA ledger TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO {role}",
            f"GRANT EXECUTE ON FUNCTION ledger.apply TO {role}",
            f"SET LOCAL ROLE {role}",
        ):
            await connection.execute(text(statement))
        (applied,) = await apply(connection, [books.pay(1)])
        assert not applied.replayed
        for statement in (
            "INSERT INTO ledger.accounts (id, currency, code) VALUES ('x', 'USD', 'x')",
            "UPDATE ledger.accounts SET credits_posted = 0",
            "INSERT INTO ledger.transfers (id) VALUES ('x')",
        ):
            await _denied(connection, statement)
        await connection.rollback()


async def _denied(connection: AsyncConnection, statement: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with connection.begin_nested():
            await connection.execute(text(statement))
