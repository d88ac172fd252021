"""Reading the ledger, and checking that what must always be true of it is true."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's four sums, in minor units of `currency`."""

    account_id: str
    currency: str
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


@dataclass(frozen=True, slots=True)
class TransferRow:
    id: str
    kind: str
    debit_account_id: str
    credit_account_id: str
    amount_minor: int
    currency: str
    pending_id: str | None
    code: str


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never be: which rule, and where."""

    rule: str
    subject: str


async def balance(connection: AsyncConnection, account_id: str) -> Balance | None:
    """The account's balance now; None when there is no such account."""
    found = await connection.execute(
        text(
            "SELECT id, currency, debits_pending, debits_posted, credits_pending, credits_posted"
            " FROM ledger.accounts WHERE id = :id"
        ),
        {"id": account_id},
    )
    row = found.one_or_none()
    return Balance(*row) if row is not None else None


async def transfers_of(connection: AsyncConnection, reference: str) -> list[TransferRow]:
    """The transfers that belong to `reference`, in the order in which they were written."""
    found = await connection.execute(
        text(
            "SELECT id, kind, debit_account_id, credit_account_id, amount_minor, currency, pending_id, code"
            " FROM ledger.transfers WHERE reference = :reference ORDER BY sequence"
        ),
        {"reference": reference},
    )
    return [TransferRow(*row) for row in found]


async def check_invariants(connection: AsyncConnection) -> list[Violation]:
    """Everything in the ledger that contradicts its transfers or its rules; empty when all is well.

    Σ debits = Σ credits per currency, for posted and for pending; each account's sums and each pending remainder
    equal what its transfers say.
    """
    found = await connection.execute(_CHECK)
    return [Violation(*row) for row in found]


_CHECK = text("""
WITH remaining AS (
    -- What is left of a pending transfer, from the transfers alone.
    SELECT origin.id, origin.debit_account_id, origin.credit_account_id,
        CASE WHEN bool_or(phase.kind IN ('void', 'expire') OR phase.kind = 'post' AND phase.final) THEN 0
            ELSE origin.amount_minor - COALESCE(sum(phase.amount_minor) FILTER (WHERE phase.kind = 'post'), 0)
        END AS left_minor
    FROM ledger.transfers origin LEFT JOIN ledger.transfers phase ON phase.pending_id = origin.id
    WHERE origin.kind = 'pending'
    GROUP BY origin.id
), legs AS (
    SELECT debit_account_id AS account_id, amount_minor AS debit, 0 AS credit, 0 AS pending_debit, 0 AS pending_credit
        FROM ledger.transfers WHERE kind IN ('posted', 'post')
    UNION ALL SELECT credit_account_id, 0, amount_minor, 0, 0
        FROM ledger.transfers WHERE kind IN ('posted', 'post')
    UNION ALL SELECT debit_account_id, 0, 0, left_minor, 0 FROM remaining
    UNION ALL SELECT credit_account_id, 0, 0, 0, left_minor FROM remaining
), sums AS (
    SELECT account_id, sum(debit) AS debit, sum(credit) AS credit, sum(pending_debit) AS pending_debit,
        sum(pending_credit) AS pending_credit
    FROM legs GROUP BY account_id
)
SELECT 'balance_equals_transfers', account.id
FROM ledger.accounts account LEFT JOIN sums ON sums.account_id = account.id
WHERE (account.debits_posted, account.credits_posted, account.debits_pending, account.credits_pending)
    IS DISTINCT FROM (COALESCE(debit, 0), COALESCE(credit, 0), COALESCE(pending_debit, 0), COALESCE(pending_credit, 0))
UNION ALL
SELECT 'debits_equal_credits', currency::text FROM ledger.accounts GROUP BY currency
HAVING sum(debits_posted) <> sum(credits_posted) OR sum(debits_pending) <> sum(credits_pending)
UNION ALL
SELECT 'pending_equals_transfers', remaining.id
FROM remaining LEFT JOIN ledger.pending held ON held.id = remaining.id
WHERE held.remaining_minor IS DISTINCT FROM remaining.left_minor
""")
