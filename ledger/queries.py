"""Reading the ledger: balances, the transfers of a payment, and what is wrong with it, if anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.currency import Currency
from domain.errors import NotFound
from ledger.invariants import LEDGER_RULES, Violation, check
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

    @property
    def available_minor(self) -> int:
        """What a covered transfer may take of an account that is owed, e.g. a payout of a merchant's payable.

        Less than nothing after a chargeback of what was paid out already.
        """
        return self.credits_posted - self.debits_posted - self.debits_pending


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
    """What is wrong with the ledger itself, in one list; empty if nothing is. `ledger.invariants` checks more."""
    return list((await check(connection, rules=LEDGER_RULES)).violations)
