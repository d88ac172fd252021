"""Reading the ledger: balances, the transfers of a payment, and whether the invariants hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.currency import Currency
from domain.errors import NotFound
from ledger.transfers import Limit
from store.models.ledger import LedgerAccount, LedgerHold, LedgerTransfer


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's four totals, in minor units of `currency`."""

    account_id: str
    currency: Currency
    code: str
    limit: Limit | None
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """A transfer as it stands in the ledger.

    `kind` is posted, pending, post, void or expire. `amount_minor` is what it posts or holds, `released_minor` what it
    takes off the pending transfer `pending_id`. Of a pending transfer, `hold_state` (pending, posted, voided, expired)
    and `remaining_minor` say how it stands now.
    """

    sequence: int
    id: str
    kind: str
    debit_account: str
    credit_account: str
    amount_minor: int
    released_minor: int
    currency: Currency
    code: str
    reference: str
    pending_id: str | None
    final: bool | None
    expires_at: datetime | None
    created_at: datetime
    covered: bool
    hold_state: str | None
    remaining_minor: int | None


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule` is broken at `subject` (a currency, an account or a transfer); `detail` has the figures."""

    rule: str
    subject: str
    detail: str


async def balance(connection: AsyncConnection, account_id: str) -> Balance:
    """The totals of one account.

    Raises:
        NotFound: no such account was opened.
    """
    query = select(*LedgerAccount.__table__.columns).where(LedgerAccount.id == account_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("ledger account", account_id)
    return Balance(
        account_id=row.id,
        currency=Currency[row.currency],
        code=row.code,
        limit=Limit(row.balance_limit) if row.balance_limit else None,
        debits_pending=row.debits_pending,
        debits_posted=row.debits_posted,
        credits_pending=row.credits_pending,
        credits_posted=row.credits_posted,
    )


async def transfers_of(connection: AsyncConnection, reference: str) -> list[TransferRecord]:
    """The transfers of a payment (or whatever `reference` names), in the order in which they were written."""
    query = (
        select(
            *LedgerTransfer.__table__.columns,
            LedgerHold.state.label("hold_state"),
            LedgerHold.remaining_minor,
        )
        .join_from(LedgerTransfer, LedgerHold, LedgerHold.pending_id == LedgerTransfer.id, isouter=True)
        .where(LedgerTransfer.reference == reference)
        .order_by(LedgerTransfer.sequence)
    )
    rows = (await connection.execute(query)).mappings()
    return [TransferRecord(**{**row, "currency": Currency[row["currency"]]}) for row in rows]


async def check_invariants(connection: AsyncConnection) -> list[Violation]:
    """What is wrong with the ledger, all of it computed anew from the transfers; empty if nothing is.

    One statement, so one snapshot: transfers that go on meanwhile do not disturb it. It reads all of the ledger.
    """
    rows = await connection.execute(_INVARIANTS)
    return [Violation(row.rule, row.subject, row.detail) for row in rows]


_INVARIANTS = text("""
WITH leg AS (
    SELECT
        id, currency,
        CASE WHEN kind = 'pending' THEN amount_minor ELSE -released_minor END AS pending,
        CASE WHEN kind IN ('posted', 'post') THEN amount_minor ELSE 0 END AS posted,
        side.account, side.is_debit
    FROM ledger.transfers,
        LATERAL (VALUES (debit_account, true), (credit_account, false)) AS side (account, is_debit)
), computed AS (
    SELECT
        account AS id,
        coalesce(sum(pending) FILTER (WHERE is_debit), 0) AS debits_pending,
        coalesce(sum(posted) FILTER (WHERE is_debit), 0) AS debits_posted,
        coalesce(sum(pending) FILTER (WHERE NOT is_debit), 0) AS credits_pending,
        coalesce(sum(posted) FILTER (WHERE NOT is_debit), 0) AS credits_posted
    FROM leg GROUP BY account
), booked AS (
    SELECT
        account.id, account.currency, account.balance_limit,
        account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted,
        coalesce(computed.debits_pending, 0) AS computed_debits_pending,
        coalesce(computed.debits_posted, 0) AS computed_debits_posted,
        coalesce(computed.credits_pending, 0) AS computed_credits_pending,
        coalesce(computed.credits_posted, 0) AS computed_credits_posted
    FROM ledger.accounts AS account LEFT JOIN computed USING (id)
), held AS (
    SELECT
        pending.id, pending.amount_minor, hold.state, hold.remaining_minor,
        pending.amount_minor - coalesce(taken.released, 0) AS computed_remaining,
        coalesce(taken.posted, 0) AS posted, coalesce(taken.closings, 0) AS closings, taken.last_kind
    FROM ledger.transfers AS pending
    LEFT JOIN ledger.holds AS hold ON hold.pending_id = pending.id
    LEFT JOIN (
        SELECT
            pending_id, sum(released_minor) AS released, sum(amount_minor) AS posted,
            count(*) FILTER (WHERE kind <> 'post' OR final) AS closings,
            (array_agg(kind ORDER BY sequence DESC))[1] AS last_kind
        FROM ledger.transfers WHERE pending_id IS NOT NULL GROUP BY pending_id
    ) AS taken ON taken.pending_id = pending.id
    WHERE pending.kind = 'pending'
)
SELECT 'debits_equal_credits' AS rule, currency::text AS subject,
    format('posted %s and %s, pending %s and %s',
        sum(debits_posted), sum(credits_posted), sum(debits_pending), sum(credits_pending)) AS detail
FROM ledger.accounts GROUP BY currency
HAVING sum(debits_posted) <> sum(credits_posted) OR sum(debits_pending) <> sum(credits_pending)
UNION ALL
SELECT 'balance_equals_transfers', id,
    format('debits pending %s not %s, posted %s not %s; credits pending %s not %s, posted %s not %s',
        debits_pending, computed_debits_pending, debits_posted, computed_debits_posted,
        credits_pending, computed_credits_pending, credits_posted, computed_credits_posted)
FROM booked
WHERE (debits_pending, debits_posted, credits_pending, credits_posted) IS DISTINCT FROM
    (computed_debits_pending, computed_debits_posted, computed_credits_pending, computed_credits_posted)
UNION ALL
SELECT 'pending_not_negative', id,
    format('debits %s, credits %s', computed_debits_pending, computed_credits_pending)
FROM booked WHERE computed_debits_pending < 0 OR computed_credits_pending < 0
UNION ALL
SELECT balance_limit, id,
    format('debits %s + %s pending, credits %s + %s pending',
        computed_debits_posted, computed_debits_pending, computed_credits_posted, computed_credits_pending)
FROM booked
WHERE balance_limit = 'debits_must_not_exceed_credits'
        AND computed_debits_posted + computed_debits_pending > computed_credits_posted
    OR balance_limit = 'credits_must_not_exceed_debits'
        AND computed_credits_posted + computed_credits_pending > computed_debits_posted
UNION ALL
SELECT 'account_has_currency_of_transfer', leg.id, format('%s in %s', leg.account, leg.currency)
FROM leg LEFT JOIN ledger.accounts AS account ON account.id = leg.account
WHERE account.currency IS DISTINCT FROM leg.currency
UNION ALL
SELECT 'hold_equals_transfers', id,
    format('%s with %s of %s left, not %s; %s posted, closed %s times, last by %s',
        coalesce(state, 'missing'), remaining_minor, amount_minor, computed_remaining, posted, closings, last_kind)
FROM held
WHERE remaining_minor IS DISTINCT FROM computed_remaining
    OR computed_remaining < 0 OR posted > amount_minor OR closings > 1
    OR state IS DISTINCT FROM CASE
        WHEN computed_remaining > 0 THEN 'pending'
        WHEN last_kind = 'post' THEN 'posted'
        WHEN last_kind = 'void' THEN 'voided'
        ELSE 'expired' END
ORDER BY rule, subject
""")
