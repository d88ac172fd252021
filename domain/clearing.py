"""The network's daily clearing: the records of its file, and what of ours has to be among them.

The file of a day holds what the network's host decided on that day of its clearing: DE15 of its acknowledgement, kept
in the journal with the answer. That is the host's UTC day, or a later one if the host closed the day before. Both
sides read the same date, so nothing changes its day at midnight; only what was never answered has no date yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from domain.currency import Currency
from domain.money import Money


class ClearingKind(StrEnum):
    """What a record of the file is.

    A `*_REVERSAL` takes back what an earlier day's file had: a reversal that the host took before the day was closed
    leaves no record at all. `REFUND_RETURNED` is a refund that was approved and could not be credited to its card.
    """

    PRESENTMENT = "presentment"
    PRESENTMENT_REVERSAL = "presentment_reversal"
    REFUND = "refund"
    REFUND_REVERSAL = "refund_reversal"
    REFUND_RETURNED = "refund_returned"
    CHARGEBACK = "chargeback"
    CHARGEBACK_REVERSAL = "chargeback_reversal"
    FEE = "fee"

    @property
    def owed_to_us(self) -> bool:
        """Whether the network pays the record's amount; otherwise it keeps it."""
        return self in _OWED_TO_US


_OWED_TO_US = frozenset(
    {
        ClearingKind.PRESENTMENT,
        ClearingKind.REFUND_REVERSAL,
        ClearingKind.REFUND_RETURNED,
        ClearingKind.CHARGEBACK_REVERSAL,
    }
)


@dataclass(frozen=True, slots=True)
class ClearingRecord:
    """One record of a day's file. `line` is its message number (DE71), unique and ascending in the file.

    `rrn` and `stan` are DE37 and DE11 of the message that is cleared: several captures of one authorization have one
    RRN and a STAN each. `arn` is the acquirer reference number (DE31). A fee has none of the three; `reason_code`
    (DE25) says what it is for. A chargeback bears the RRN of its authorization or sale, the network's `chargeback_id`
    and `reason_code`. `occurred_at` is DE12. A card number is not in it.
    """

    day: date
    line: int
    kind: ClearingKind
    money: Money
    occurred_at: datetime
    rrn: str | None = None
    stan: str | None = None
    approval_code: str | None = None
    arn: str | None = None
    reason_code: str | None = None
    chargeback_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClearingTotal:
    """What the records of one currency come to, in minor units."""

    currency: Currency
    records: int
    owed_to_us_minor: int
    owed_by_us_minor: int

    @property
    def net_minor(self) -> int:
        """What the network pays us for the day; negative if we pay."""
        return self.owed_to_us_minor - self.owed_by_us_minor


@dataclass(frozen=True, slots=True)
class ClearingFile:
    """A file that was checked as a whole. `sha256` (hexadecimal) tells it from any other; a closed day has one only."""

    day: date
    file_id: str
    sha256: str
    records: int
    totals: tuple[ClearingTotal, ...]


@dataclass(frozen=True, slots=True)
class ClearingPage:
    """Some records in the order of the file; `next_offset` is None with the last of them."""

    file: ClearingFile
    records: tuple[ClearingRecord, ...]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class Clearable:
    """Something of ours that belongs into the file of a day.

    `effect_key` is the journal's: the capture's, sale's or refund's, or that of the reversal that takes one back; of a
    chargeback it is made of its number and stage. `approval_code` is that of the authorization, sale or refund.

    `certain` is False where nobody knows yet: a message without an answer, or a request whose reversal is not
    acknowledged. Such an item may be in the file, of this day or of another for which it is listed too, and is not
    missing if it is not.
    """

    effect_key: str
    kind: ClearingKind
    payment_id: str
    rrn: str
    stan: str | None
    approval_code: str | None
    money: Money
    certain: bool = True
    chargeback_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClearablePage:
    """Some items in the order of their keys; `next_after` is None with the last of them."""

    items: tuple[Clearable, ...]
    next_after: str | None
