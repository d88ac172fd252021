"""The network's clearing: to which day an item belongs, when a day is closed, and the file that is made of it then.

A day is over with the UTC day, or earlier when it is closed by hand; what is decided after that belongs to the next
one. A closed day's items do not change any more, so its file can be made later, by whoever asks for it first.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from domain.cards import luhn_check_digit
from domain.clearing import ClearingKind, ClearingRecord
from domain.currency import Currency
from domain.money import MAX_AMOUNT_MINOR, Money
from network import ipm
from network.codec import Message
from network.simulator.errors import DayNotBegun, DayNotClosed, DayOver

CLEARING_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS clearing_days (
    day        TEXT PRIMARY KEY,
    closed_at  TEXT NOT NULL,
    content    BLOB
);
CREATE TABLE IF NOT EXISTS clearing_items (
    id              INTEGER PRIMARY KEY,
    day             TEXT NOT NULL,
    kind            TEXT NOT NULL,
    transaction_id  INTEGER NOT NULL REFERENCES transactions (id),
    occurred_at     TEXT NOT NULL,
    stan            TEXT,
    amount_minor    INTEGER NOT NULL CHECK (amount_minor > 0),
    reason_code     TEXT,
    chargeback_id   TEXT
);
CREATE INDEX IF NOT EXISTS clearing_items_day ON clearing_items (day);
CREATE INDEX IF NOT EXISTS clearing_items_transaction ON clearing_items (transaction_id);
CREATE TABLE IF NOT EXISTS clearing_breaks (
    id       INTEGER PRIMARY KEY,
    day      TEXT NOT NULL,
    content  TEXT NOT NULL
);
"""

# The one who clears, in the file's id: an acquirer's number is in each record.
_NETWORK_ID: Final = "99"

# What the issuer's side keeps of each presentment: 1.80 % and 10 minor units, about what US cards cost in e-commerce.
_INTERCHANGE_BASIS_POINTS: Final = 180
_INTERCHANGE_FIXED_MINOR: Final = 10

_TAKEN_BACK: Final = {
    ClearingKind.PRESENTMENT: ClearingKind.PRESENTMENT_REVERSAL,
    ClearingKind.REFUND: ClearingKind.REFUND_REVERSAL,
}


class BreakKind(StrEnum):
    """What is made wrong in a file: a record that is missing, there twice, wrong, or about nothing anyone knows."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    CHANGE_AMOUNT = "change_amount"
    CHANGE_CURRENCY = "change_currency"
    INVENT = "invent"


class Break(BaseModel):
    """One thing that is wrong in the file of a day.

    It strikes the first record with `rrn` (and, if several may have it, of `record`). `amount_minor` and `currency`
    are what a changed or invented record says. An invented one is a presentment if `record` says nothing else.
    """

    model_config = ConfigDict(extra="forbid")

    kind: BreakKind
    rrn: str = Field(pattern=r"^[0-9]{12}$")
    record: ClearingKind | None = None
    amount_minor: int | None = Field(default=None, ge=1, le=MAX_AMOUNT_MINOR)
    currency: Currency | None = None

    @model_validator(mode="after")
    def _complete(self) -> Break:
        amount = self.kind in (BreakKind.CHANGE_AMOUNT, BreakKind.INVENT)
        currency = self.kind in (BreakKind.CHANGE_CURRENCY, BreakKind.INVENT)
        if (self.amount_minor is not None) != amount or (self.currency is not None) != currency:
            raise ValueError(f"{self.kind} needs an amount: {amount}, a currency: {currency}")
        if self.kind is BreakKind.INVENT and self.record is ClearingKind.FEE:
            raise ValueError("a fee has no RRN")
        return self


@dataclass(frozen=True, slots=True)
class ClosedDay:
    """All that goes into the file of a day; `content` is the file, once it was made."""

    day: date
    content: bytes | None
    items: Sequence[sqlite3.Row] = ()
    breaks: Sequence[Break] = ()


class ClearingBook:
    """The clearing part of the simulator's journal, on the journal's own connection and in its transactions."""

    def __init__(self, database: sqlite3.Connection, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def day(self) -> date:
        """The day to which what is decided now belongs. Days that are over are closed by the way."""
        today = self._clock().astimezone(UTC).date()
        open_day = self._first_open(today)
        while open_day < today:
            self._close(open_day)
            open_day += timedelta(days=1)
        return open_day

    def add(
        self,
        kind: ClearingKind,
        transaction_id: int,
        amount_minor: int,
        *,
        message: Message | None = None,
        day: date | None = None,
        reason_code: str | None = None,
        chargeback_id: str | None = None,
    ) -> None:
        """An item about a transaction; of nothing there is none. `message` is the one that is cleared, if one is."""
        if amount_minor == 0:
            return
        self._database.execute(
            "INSERT INTO clearing_items (day, kind, transaction_id, occurred_at, stan, amount_minor, reason_code,"
            " chargeback_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (day or self.day()).isoformat(),
                kind,
                transaction_id,
                self._clock().isoformat(),
                message.get(11) if message else None,
                amount_minor,
                reason_code,
                chargeback_id,
            ),
        )

    def add_return(self, transaction_id: int, amount_minor: int) -> None:
        """The refund `transaction_id` comes back on the day after this one."""
        self.add(
            ClearingKind.REFUND_RETURNED,
            transaction_id,
            amount_minor,
            day=self.day() + timedelta(days=1),
            reason_code=ipm.RETURNED_BY_ISSUER,
        )

    def take_back(self, transaction_id: int, message: Message) -> None:
        """The transaction was reversed: what no file has yet leaves no trace, the rest is taken back in today's."""
        open_day = self.day().isoformat()
        items = self._database.execute(
            "SELECT * FROM clearing_items WHERE transaction_id = ? AND day < ? AND kind IN (?, ?)",
            (transaction_id, open_day, *_TAKEN_BACK),
        ).fetchall()
        self._database.execute(
            "DELETE FROM clearing_items WHERE transaction_id = ? AND day >= ? AND kind IN (?, ?, ?)",
            (transaction_id, open_day, *_TAKEN_BACK, ClearingKind.REFUND_RETURNED),
        )
        for item in items:
            self.add(
                _TAKEN_BACK[ClearingKind(item["kind"])],
                transaction_id,
                item["amount_minor"],
                message=message,
                reason_code=ipm.REVERSED_BY_ACQUIRER,
            )

    def returned(self, transaction_id: int) -> bool:
        """Whether the refund came back: its return is in the file of a closed day."""
        row = self._database.execute(
            "SELECT 1 FROM clearing_items WHERE transaction_id = ? AND kind = ? AND day < ?",
            (transaction_id, ClearingKind.REFUND_RETURNED, self.day().isoformat()),
        ).fetchone()
        return row is not None

    def close(self, day: date) -> None:
        """Closes `day`, if it is the one that is open; closing it again changes nothing.

        Raises:
            DayNotBegun: an earlier day is open.
        """
        open_day = self.day()
        if day > open_day:
            raise DayNotBegun(day, open_day)
        if day == open_day:
            self._close(day)

    def script(self, day: date, wanted: Break) -> None:
        """Makes the file of `day` wrong.

        Raises:
            DayOver: the day is closed.
        """
        self._check_open(day)
        self._database.execute(
            "INSERT INTO clearing_breaks (day, content) VALUES (?, ?)", (day.isoformat(), wanted.model_dump_json())
        )

    def breaks(self, day: date) -> list[Break]:
        rows = self._database.execute("SELECT content FROM clearing_breaks WHERE day = ? ORDER BY id", (str(day),))
        return [Break.model_validate_json(row["content"]) for row in rows]

    def forget_breaks(self, day: date) -> None:
        """Raises: DayOver, as `script`."""
        self._check_open(day)
        self._database.execute("DELETE FROM clearing_breaks WHERE day = ?", (day.isoformat(),))

    def closed(self, day: date) -> ClosedDay:
        """What the file of `day` is made of, or the file.

        Raises:
            DayNotClosed: there is none yet.
        """
        if day >= self.day():
            raise DayNotClosed(day)
        row = self._database.execute("SELECT content FROM clearing_days WHERE day = ?", (day.isoformat(),)).fetchone()
        if row is not None and row["content"] is not None:
            return ClosedDay(day, row["content"])
        items = self._database.execute(
            "SELECT item.*, about.kind AS about_kind, about.rrn, about.acquirer_id, about.approval_code,"
            " about.currency, about.amount_minor AS about_minor, about.card_masked, about.acceptor"
            " FROM clearing_items AS item JOIN transactions AS about ON about.id = item.transaction_id"
            " WHERE item.day = ? ORDER BY item.id",
            (day.isoformat(),),
        ).fetchall()
        return ClosedDay(day, None, items, self.breaks(day))

    def keep(self, day: date, content: bytes) -> bytes:
        """Keeps the file of a closed day; the one that was kept before, if one was.

        A day before the first of all was never closed. Its file, which is empty, is made whenever someone asks.
        """
        self._database.execute(
            "UPDATE clearing_days SET content = ? WHERE day = ? AND content IS NULL", (content, day.isoformat())
        )
        row = self._database.execute("SELECT content FROM clearing_days WHERE day = ?", (day.isoformat(),)).fetchone()
        kept: bytes = content if row is None else row["content"]
        return kept

    def _first_open(self, today: date) -> date:
        (closed,) = self._database.execute("SELECT max(day) FROM clearing_days").fetchone()
        if closed is not None:
            return date.fromisoformat(closed) + timedelta(days=1)
        (first,) = self._database.execute("SELECT min(day) FROM clearing_items").fetchone()
        return today if first is None else date.fromisoformat(first)

    def _close(self, day: date) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO clearing_days (day, closed_at) VALUES (?, ?)",
            (day.isoformat(), self._clock().isoformat()),
        )
        # What came back can be refunded again.
        self._database.execute(
            "UPDATE transactions SET refunded_minor = refunded_minor - (SELECT sum(item.amount_minor)"
            " FROM clearing_items AS item JOIN transactions AS refund ON refund.id = item.transaction_id"
            " WHERE item.day = ?1 AND item.kind = ?2 AND refund.about = transactions.id)"
            " WHERE id IN (SELECT refund.about FROM clearing_items AS item"
            " JOIN transactions AS refund ON refund.id = item.transaction_id WHERE item.day = ?1 AND item.kind = ?2)",
            (day.isoformat(), ClearingKind.REFUND_RETURNED),
        )

    def _check_open(self, day: date) -> None:
        if day < self.day():
            raise DayOver(day)


def make_file(closed: ClosedDay) -> bytes:
    """The file of a closed day: always the same bytes for the same day."""
    entries = [_entry(closed.day, item) for item in closed.items]
    fees = _fees(closed.day, entries)
    for wanted in closed.breaks:
        entries = _broken(closed.day, entries, wanted)
    file = io.BytesIO()
    ipm.write(file, closed.day, _NETWORK_ID, [*entries, *fees])
    return file.getvalue()


def _entry(day: date, item: sqlite3.Row) -> ipm.Entry:
    money = Money(item["amount_minor"], Currency.from_numeric(item["currency"]))
    record = ClearingRecord(
        day,
        0,
        ClearingKind(item["kind"]),
        money,
        datetime.fromisoformat(item["occurred_at"]),
        rrn=item["rrn"],
        stan=item["stan"],
        approval_code=item["approval_code"],
        arn=_arn(day, item) if item["stan"] else None,
        reason_code=item["reason_code"],
        chargeback_id=item["chargeback_id"],
    )
    return ipm.Entry(record, item["acquirer_id"], _acceptor(item), partial=item["amount_minor"] != item["about_minor"])


def _arn(day: date, item: sqlite3.Row) -> str:
    """23 digits: a 7, six of the acquirer, year and day of the year, eleven of our own, and Luhn's check digit."""
    julian = f"{day:%Y%j}"[3:]
    digits = f"7{item['acquirer_id'][-6:]:0>6}{julian}{item['stan']}{item['id'] % 10**5:05d}"
    return digits + luhn_check_digit(digits)


def _acceptor(item: sqlite3.Row) -> ipm.Acceptor | None:
    named: dict[str, str] = json.loads(item["acceptor"])
    if not item["card_masked"] or "18" not in named:
        return None
    return ipm.Acceptor(item["card_masked"].replace("•", "*"), named["18"], named["42"], named["43"])


def _fees(day: date, entries: Sequence[ipm.Entry]) -> list[ipm.Entry]:
    """Interchange, a record for each acquirer and currency; half a minor unit and more is a whole one."""
    owed: Counter[tuple[str, Currency]] = Counter()
    for entry in entries:
        if entry.record.kind is ClearingKind.PRESENTMENT:
            share = entry.record.money.amount_minor * _INTERCHANGE_BASIS_POINTS
            owed[entry.acquirer_id, entry.record.money.currency] += (share + 5_000) // 10_000 + _INTERCHANGE_FIXED_MINOR
    end = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
    return [
        ipm.Entry(
            ClearingRecord(day, 0, ClearingKind.FEE, Money(fee, currency), end, reason_code=ipm.INTERCHANGE), acquirer
        )
        for (acquirer, currency), fee in sorted(owed.items())
    ]


def _broken(day: date, entries: Sequence[ipm.Entry], wanted: Break) -> list[ipm.Entry]:
    if wanted.kind is BreakKind.INVENT:
        return [*entries, _invented(day, wanted)]
    for position, entry in enumerate(entries):
        record = entry.record
        if record.rrn == wanted.rrn and wanted.record in (None, record.kind):
            return [*entries[:position], *_struck(entry, wanted), *entries[position + 1 :]]
    return list(entries)


def _struck(entry: ipm.Entry, wanted: Break) -> list[ipm.Entry]:
    record = entry.record
    match wanted.kind:
        case BreakKind.DROP:
            return []
        case BreakKind.DUPLICATE:
            return [entry, entry]
        case _:
            amount = record.money.amount_minor if wanted.amount_minor is None else wanted.amount_minor
            money = Money(amount, wanted.currency or record.money.currency)
            return [replace(entry, record=replace(record, money=money))]


def _invented(day: date, wanted: Break) -> ipm.Entry:
    assert wanted.amount_minor is not None, "an invented record was checked to have an amount"
    assert wanted.currency is not None, "an invented record was checked to have a currency"
    kind = wanted.record or ClearingKind.PRESENTMENT
    chargeback = kind in (ClearingKind.CHARGEBACK, ClearingKind.CHARGEBACK_REVERSAL)
    record = ClearingRecord(
        day,
        0,
        kind,
        Money(wanted.amount_minor, wanted.currency),
        datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
        rrn=wanted.rrn,
        stan=None if chargeback else wanted.rrn[-6:],
        approval_code="000000",
        reason_code=_INVENTED_REASONS.get(kind),
        chargeback_id=wanted.rrn[:10] if chargeback else None,
    )
    return ipm.Entry(record, "0")


_INVENTED_REASONS: Final[dict[ClearingKind, str]] = {
    ClearingKind.CHARGEBACK: "10.4",
    ClearingKind.CHARGEBACK_REVERSAL: "10.4",
    ClearingKind.REFUND_RETURNED: ipm.RETURNED_BY_ISSUER,
    ClearingKind.REFUND_REVERSAL: ipm.REVERSED_BY_ACQUIRER,
    ClearingKind.PRESENTMENT_REVERSAL: ipm.REVERSED_BY_ACQUIRER,
}
