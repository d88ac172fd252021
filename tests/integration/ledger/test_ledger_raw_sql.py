"""The database keeps the ledger's rules against SQL that does not go through `ledger.apply`.

It is written by a role of the application that was granted every write, and owns nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.queries import transfers_of
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


@pytest_asyncio.fixture(autouse=True, scope="module")
async def _writer(engine: AsyncEngine) -> None:
    """Roles belong to the server, which other workers' databases are on, too."""
    async with engine.begin() as connection:
        for statement in (
            "DO $$ BEGIN CREATE ROLE ledger_writer; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$",
            "GRANT USAGE ON SCHEMA ledger TO ledger_writer",
            "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA ledger TO ledger_writer",
        ):
            await connection.execute(text(statement))


async def execute(books: Books, statement: str) -> None:
    """In a transaction of that role; `{bank}`, `{shop}`, `{wallet}` and `{prefix}` are filled in."""
    async with books.engine.begin() as connection:
        await connection.execute(text("SET LOCAL ROLE ledger_writer"))
        await connection.execute(text(_filled(books, statement)))


async def refuse(books: Books, statement: str, because: str) -> None:
    with pytest.raises(IntegrityError, match=because):
        await execute(books, statement)


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
    "statement",
    [
        "INSERT INTO ledger.entries SELECT account, at, position + 1, sequence, 0, 0, 0, 9 FROM ledger.entries",
        "UPDATE ledger.entries SET credits_posted = 1",
        "DELETE FROM ledger.entries",
        "TRUNCATE ledger.entries",
        "INSERT INTO ledger.batches (last_sequence) SELECT max(sequence) FROM ledger.transfers",
        "UPDATE ledger.batches SET closed_at = now()",
        "DELETE FROM ledger.batches",
        "TRUNCATE ledger.batches",
    ],
)
async def test_entries_and_batches_are_made_by_the_ledger_alone(books: Books, statement: str) -> None:
    await refuse(books, statement, FORBIDDEN)


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ("('x', 'posted', 'wallet', 'shop', 1001, 'USD')", "ck_accounts_exceeds_credits"),
        ("('x', 'pending', 'wallet', 'shop', 1001, 'USD')", "ck_accounts_exceeds_credits"),
        (
            "('x', 'posted', 'wallet', 'shop', 600, 'USD'), ('y', 'posted', 'wallet', 'shop', 600, 'USD')",
            "exceeds_credits: .*:y",
        ),
        (
            "('x', 'posted', 'wallet', 'shop', 1500, 'USD'), ('y', 'posted', 'bank', 'wallet', 1000, 'USD')",
            "exceeds_credits: .*:x",
        ),
        (
            "('x', 'posted', 'bank', 'shop', 1, 'USD'), ('y', 'posted', 'bank', 'shop', 1, 'EUR')",
            "transfer_must_have_same_currency_as_accounts: .*:y",
        ),
        (
            "('x', 'posted', 'bank', 'shop', 1, 'USD'), ('y', 'posted', 'nobody', 'shop', 1, 'USD')",
            "debit_account_not_found: .*:y",
        ),
        (
            "('x', 'posted', 'bank', 'shop', 1, 'USD'), ('y', 'posted', 'bank', 'nobody', 1, 'USD')",
            "credit_account_not_found: .*:y",
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
    await execute(books, "INSERT INTO ledger.accounts (id, currency, code) VALUES ('{prefix}:euros', 'EUR', 'bank')")
    statement = insertion(f"('x', 'posted', 'bank', 'euros', 1, '{currency}')")
    await refuse(books, statement, "accounts_must_have_same_currency")


async def test_an_inserted_transfer_moves_money(books: Books) -> None:
    await execute(books, insertion("('x', 'posted', 'wallet', 'shop', 400, 'USD')"))
    assert await books.sums(books.wallet) == (0, 400, 0, 1000)
    assert await books.violations() == []


async def test_a_transfer_that_conflicts_with_another_moves_nothing(books: Books) -> None:
    await execute(books, insertion("('fund', 'posted', 'wallet', 'shop', 400, 'USD')") + " ON CONFLICT DO NOTHING")
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
    await execute(
        books,
        "INSERT INTO ledger.transfers (id, kind, pending_id, amount_minor, final, reference, debit_account,"
        " credit_account, currency, code, released_minor, created_at)"
        " VALUES ('{prefix}:x', 'post', '{prefix}:hold', 100, true, 'x', '{shop}',"
        " '{bank}', 'EUR', 'y', 5, '1999-01-01')",
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


# -------------------------------------------------------------------------------------------- a role of the application


@asynccontextmanager
async def role(books: Books, *grants: str) -> AsyncIterator[AsyncConnection]:
    """A session of a role that is no superuser and owns nothing, with `grants` on the schema; gone at the end."""
    name = f"ledger_{books.prefix}"
    async with books.engine.connect() as connection:
        await connection.execute(text(f"CREATE ROLE {name}"))
        await connection.execute(text(f"GRANT USAGE ON SCHEMA ledger TO {name}"))
        await connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO {name}"))
        for grant in grants:
            await connection.execute(text(f"GRANT {grant} TO {name}"))
        await connection.execute(text(f"GRANT CREATE, TEMPORARY ON DATABASE {await _database(connection)} TO {name}"))
        await connection.execute(text(f"SET LOCAL ROLE {name}"))
        yield connection
        await connection.rollback()


async def _database(connection: AsyncConnection) -> str:
    return str(await connection.scalar(text("SELECT current_database()")))


async def test_a_role_that_may_only_call_apply_can_apply_and_nothing_else(books: Books) -> None:
    async with role(books, "EXECUTE ON FUNCTION ledger.apply") as connection:
        (applied,) = await apply(connection, [books.pay(1)])
        assert not applied.replayed
        for statement in (
            "INSERT INTO ledger.accounts (id, currency, code) VALUES ('x', 'USD', 'x')",
            "UPDATE ledger.accounts SET credits_posted = 0",
            "INSERT INTO ledger.transfers (id) VALUES ('x')",
            "INSERT INTO ledger.batches (last_sequence) VALUES (1)",
            "SELECT ledger.close_batch(1, '1 s')",
            "SELECT ledger.refuse('x', 'x')",
            "ALTER TABLE ledger.transfers DISABLE TRIGGER ALL",
            "SET LOCAL session_replication_role = replica",
        ):
            await _denied(connection, statement, "permission denied|must be owner")


_EVERYTHING = "INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA ledger"


@pytest.mark.parametrize(
    "trick",
    [
        "UPDATE ledger.accounts SET credits_posted = credits_posted + 1000 WHERE id = '{wallet}'",
        "INSERT INTO ledger.holds (pending_id, remaining_minor) VALUES ('{prefix}:fund', 1000)",
        "INSERT INTO ledger.entries SELECT account, at, position + 1, sequence, 0, 0, 0, 9 FROM ledger.entries",
    ],
)
async def test_a_trigger_of_ones_own_is_not_taken_for_the_ledgers(books: Books, trick: str) -> None:
    """It runs at a depth above 0, as the ledger's own do."""
    async with role(books, _EVERYTHING) as connection:
        for statement in (
            "CREATE TEMPORARY TABLE bait (id integer)",
            "CREATE FUNCTION pg_temp.strike() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {_filled(books, trick)}; RETURN NULL; END $$",
            "CREATE TRIGGER strike AFTER INSERT ON bait FOR EACH ROW EXECUTE FUNCTION pg_temp.strike()",
        ):
            await connection.execute(text(statement))
        await _denied(connection, "INSERT INTO bait VALUES (1)", FORBIDDEN)


async def test_an_operator_of_ones_own_is_not_taken_for_postgresqls(books: Books) -> None:
    """A `>` that is never true would let a post take more than its hold."""
    await books.apply(books.hold(600))
    async with role(books, _EVERYTHING) as connection:
        for statement in (
            "CREATE SCHEMA evil",
            "CREATE FUNCTION evil.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
            "CREATE OPERATOR evil.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.never)",
            "CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT timestamptz '1999-01-01' $$",
            "SET LOCAL search_path = evil, pg_catalog",
        ):
            await connection.execute(text(statement))
        assert await connection.scalar(text("SELECT 2::bigint > 1::bigint")) is False
        too_much = _filled(books, second_phase("('x', 'post', 'hold', 601::bigint, true)"))
        await _denied(connection, too_much, "exceeds_pending_transfer_amount")
        await connection.execute(text(_filled(books, second_phase("('x', 'post', 'hold', 600::bigint, true)"))))
        year = "SELECT extract(year FROM created_at) FROM ledger.transfers WHERE id = :id"
        assert await connection.scalar(text(year), {"id": books.name("x")}) > 2000


@pytest.mark.parametrize("sequence", [0, 1, 2**62])
async def test_the_sequence_of_a_transfer_cannot_be_chosen(books: Books, sequence: int) -> None:
    """It would be in a closed batch, or in none for ever."""
    chosen = insertion("('x', 'posted', 'wallet', 'shop', 400, 'USD')")
    chosen = chosen.replace("(id, kind,", "(sequence, id, kind,", 1).replace(" SELECT ", f" SELECT {sequence}, ", 1)
    await execute(books, chosen.replace(" SELECT", " OVERRIDING SYSTEM VALUE SELECT", 1))
    async with books.engine.connect() as connection:
        (fund,) = await transfers_of(connection, books.prefix)
        chosen_one = (await transfers_of(connection, "x"))[-1]
    assert chosen_one.id == books.name("x")
    assert fund.sequence < chosen_one.sequence < 2**62


async def test_a_covered_transfer_that_is_inserted_by_hand_is_covered(books: Books) -> None:
    covered = (
        "INSERT INTO ledger.transfers"
        " (id, kind, debit_account, credit_account, amount_minor, currency, code, reference, covered)"
        " VALUES ('{prefix}:x', 'pending', '{shop}', '{bank}', 401, 'USD', 'payout', 'x', true)"
    )
    await books.apply(books.pay(400))
    await refuse(books, covered, "exceeds_credits")
    await execute(books, covered.replace("401", "400"))


def _filled(books: Books, statement: str) -> str:
    return statement.format(bank=books.bank, shop=books.shop, wallet=books.wallet, prefix=books.prefix)


async def _denied(connection: AsyncConnection, statement: str, because: str) -> None:
    with pytest.raises(DBAPIError, match=because):
        async with connection.begin_nested():
            await connection.execute(text(statement))
