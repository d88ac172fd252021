"""Statements: an account's entries in pages, its balance at any past time, and the trial balance.

Each entry keeps the account's totals as the transfer left them (`ledger.entries`), so none of these adds anything up:
a page and a past balance are looked up in one index, whatever the account's age and size.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.currency import Currency
from domain.errors import NotFound


@dataclass(frozen=True, slots=True)
class Totals:
    """An account's four totals in minor units. `balance_minor` is what the credits exceed the debits by, posted ones.

    It is negative for an account that says what we own (see `ledger.accounts`).
    """

    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    @property
    def balance_minor(self) -> int:
        return self.credits_posted - self.debits_posted


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place of an entry: the next page begins behind it."""

    at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """One transfer seen from one account, and the account's totals after it.

    `kind` and `code` are the transfer's. `debit_minor` and `credit_minor` are what it posted to this account, one of
    them 0; both are for what only holds or releases. `position` counts the account's entries without gaps.
    """

    cursor: Cursor
    position: int
    transfer_id: str
    kind: str
    code: str
    reference: str
    counter_account: str
    debit_minor: int
    credit_minor: int
    totals: Totals


@dataclass(frozen=True, slots=True)
class StatementPage:
    """`opening` is what stood before the first entry of the page; `next` is None on the last page."""

    account_id: str
    currency: Currency
    opening: Totals
    entries: tuple[StatementEntry, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """The sums over all accounts of a currency, and of each kind of account. Debits equal credits, or money is lost."""

    currency: Currency
    totals: Totals
    by_code: dict[str, Totals]


async def statement(
    connection: AsyncConnection,
    account_id: str,
    since: datetime,
    until: datetime,
    *,
    after: Cursor | None = None,
    limit: int = 100,
) -> StatementPage:
    """A page of the entries with `since` <= time < `until`, oldest first, beginning behind `after`.

    An account's entries are never dated back behind one another, so a period that has ended stays as it was read, once
    the transactions that were under way at its end are over (they are bounded by seconds).

    Raises:
        NotFound: no such account was opened.
    """
    currency = await _currency(connection, account_id)
    # Positions count from 1, so this is just before the first entry of `since`.
    start = after or Cursor(since, 0)
    parameters = {
        "account": account_id,
        "at": start.at,
        "position": start.position,
        "until": until,
        "limit": limit + 1,
    }
    opening = (await connection.execute(_BEFORE, parameters)).one_or_none()
    rows = (await connection.execute(_PAGE, parameters)).all()
    entries = tuple(
        StatementEntry(
            cursor=Cursor(row.at, row.position),
            position=row.position,
            transfer_id=row.transfer_id,
            kind=row.kind,
            code=row.code,
            reference=row.reference,
            counter_account=row.counter_account,
            debit_minor=row.posted_minor if row.is_debit else 0,
            credit_minor=0 if row.is_debit else row.posted_minor,
            totals=Totals(row.debits_pending, row.debits_posted, row.credits_pending, row.credits_posted),
        )
        for row in rows[:limit]
    )
    more = entries[-1].cursor if len(rows) > limit else None
    return StatementPage(account_id, currency, Totals(*opening) if opening else Totals(), entries, more)


async def balance_at(connection: AsyncConnection, account_id: str, at: datetime) -> Totals:
    """The totals of an account after its last entry up to and including `at`; zeros before its first.

    Raises:
        NotFound: no such account was opened.
    """
    await _currency(connection, account_id)
    row = (await connection.execute(_AT, {"account": account_id, "at": at})).one_or_none()
    return Totals(*row) if row else Totals()


async def trial_balance(connection: AsyncConnection) -> list[TrialBalance]:
    """The trial balance of each currency, in the order of their codes, all of one moment."""
    found: dict[Currency, dict[str, Totals]] = {}
    for row in await connection.execute(_TRIAL):
        totals = Totals(*(int(getattr(row, name)) for name in Totals.__slots__))
        found.setdefault(Currency[row.currency], {})[row.code] = totals
    return [TrialBalance(currency, _sum(by_code), by_code) for currency, by_code in found.items()]


def _sum(by_code: dict[str, Totals]) -> Totals:
    return Totals(*(sum(getattr(totals, name) for totals in by_code.values()) for name in Totals.__slots__))


async def _currency(connection: AsyncConnection, account_id: str) -> Currency:
    found = await connection.scalar(text("SELECT currency FROM ledger.accounts WHERE id = :id"), {"id": account_id})
    if found is None:
        raise NotFound("ledger account", account_id)
    return Currency[found]


_TOTALS = "debits_pending, debits_posted, credits_pending, credits_posted"

_AT = text(f"""
SELECT {_TOTALS} FROM ledger.entries
WHERE account = :account AND at <= :at
ORDER BY account DESC, at DESC, position DESC LIMIT 1
""")  # noqa: S608 - columns, not values

_BEFORE = text(f"""
SELECT {_TOTALS} FROM ledger.entries
WHERE account = :account AND (at, position) <= (:at, :position)
ORDER BY account DESC, at DESC, position DESC LIMIT 1
""")  # noqa: S608 - columns, not values

_PAGE = text("""
SELECT
    entry.*, transfer.id AS transfer_id, transfer.kind, transfer.code, transfer.reference,
    transfer.debit_account = entry.account AS is_debit,
    CASE WHEN transfer.debit_account = entry.account THEN transfer.credit_account ELSE transfer.debit_account END
        AS counter_account,
    CASE WHEN transfer.kind IN ('posted', 'post') THEN transfer.amount_minor ELSE 0 END AS posted_minor
FROM ledger.entries AS entry JOIN ledger.transfers AS transfer USING (sequence)
WHERE entry.account = :account AND (entry.at, entry.position) > (:at, :position) AND entry.at < :until
ORDER BY entry.account, entry.at, entry.position LIMIT :limit
""")

_TRIAL = text("""
SELECT
    currency, code, sum(debits_pending) AS debits_pending, sum(debits_posted) AS debits_posted,
    sum(credits_pending) AS credits_pending, sum(credits_posted) AS credits_posted
FROM ledger.accounts GROUP BY currency, code ORDER BY currency, code
""")
