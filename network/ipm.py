"""The layout of a day's clearing file: Mastercard's IPM, as far as this network uses it.

The file is blocked to 1014 bytes, and its records have a length of four bytes before them (VBS). Each record is a
message of ISO 8583:1993 in ASCII, written and read by `cardutil`, which cuts off what is too long, pads what is too
short and takes `+1` for a number; what it does not check is checked here.

| Message | DE24 | What it is |
|---|---|---|
| 1644 | 697 | the header: PDS0105, the file's id |
| 1240 | 200 | a first presentment (DE3 00) or a refund (DE3 20); with PDS0025, taken back |
| 1442 | 450, 453 | a first chargeback, of the whole amount or a part; with PDS0025, reversed |
| 1740 | 783 | a fee of the network (DE3 29), named by DE25 |
| 1644 | 685 | the position in one currency: debits PDS0380, credits PDS0381 and count PDS0402 |
| 1644 | 695 | the trailer: PDS0105 again, PDS0301 the sum of all DE4, PDS0306 the count of all messages |

The message number (DE71) counts from 1 without gaps. Debits and credits are the acquirer's: what it owes, and what it
is owed. PDS1000, which is free for members to use, holds the STAN of the message that is cleared. DE2 is masked.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, BinaryIO, Final

from cardutil import CardutilError, iso8583
from cardutil.mciipm import VbsWriter

from domain.clearing import ClearingKind, ClearingRecord, ClearingTotal
from domain.currency import Currency
from domain.money import Money

BLOCK_BYTES: Final = 1014
BLOCK_CONTENT_BYTES: Final = 1012
FILL: Final = b"\x40"
MAX_RECORD_BYTES: Final = 2_000

Record = Mapping[str, str]

# DE25 of what takes an earlier record back: the acquirer reversed it, or the issuer could not credit the card.
REVERSED_BY_ACQUIRER: Final = "2501"
RETURNED_BY_ISSUER: Final = "2504"
# DE25 of a fee.
INTERCHANGE: Final = "7800"

_HEADER: Final = "697"
_POSITION: Final = "685"
_TRAILER: Final = "695"
_FIRST_PRESENTMENT: Final = "200"
_CHARGEBACK: Final = "450"
_CHARGEBACK_OF_A_PART: Final = "453"
_SYSTEM_FEE: Final = "783"
_PURCHASE: Final = "000000"
_REFUND: Final = "200000"
_FEE_DEBIT: Final = "290000"

_STAN: Final = "PDS1000"

# The type of a file that clears for an acquirer (PDS0105, subfield 1).
_FILE_TYPE: Final = "001"

# DE: (type, length or greatest length, what it looks like).
_LAYOUT: Final[dict[int, tuple[str, int, str]]] = {
    2: ("LLVAR", 19, r"[0-9]{4,6}\*+[0-9]{4}"),
    3: ("FIXED", 6, r"[0-9]{6}"),
    4: ("FIXED", 12, r"[0-9]{12}"),
    12: ("FIXED", 12, r"[0-9]{12}"),
    24: ("FIXED", 3, r"[0-9]{3}"),
    25: ("FIXED", 4, r"[0-9A-Z. ]{4}"),
    26: ("FIXED", 4, r"[0-9]{4}"),
    31: ("LLVAR", 23, r"[0-9]{23}"),
    37: ("FIXED", 12, r"[0-9]{12}"),
    38: ("FIXED", 6, r"[0-9A-Za-z ]{6}"),
    42: ("FIXED", 15, r"[\x20-\x7e]{15}"),
    43: ("LLVAR", 40, r"[\x20-\x7e]{1,40}"),
    48: ("LLLVAR", 999, r"[\x20-\x7e]{1,999}"),
    49: ("FIXED", 3, r"[0-9]{3}"),
    71: ("FIXED", 8, r"[0-9]{8}"),
    94: ("LLVAR", 11, r"[0-9]{1,11}"),
    95: ("LLVAR", 10, r"[0-9A-Z]{1,10}"),
}
_PATTERNS: Final = {number: re.compile(pattern, re.ASCII).fullmatch for number, (_, _, pattern) in _LAYOUT.items()}
_PDS: Final = re.compile(r"([0-9]{4})([0-9]{3})", re.ASCII)
_FILE_ID: Final = re.compile(rf"{_FILE_TYPE}([0-9]{{6}})([0-9]{{11}})([0-9]{{5}})", re.ASCII)


def _configuration(*, for_writing: bool) -> dict[str, dict[str, object]]:
    """Every element is text: conversions are made here, where they can be refused. So is DE48 on its way in."""
    configuration: dict[str, dict[str, object]] = {
        str(number): {"field_name": f"DE{number}", "field_type": kind, "field_length": length if kind == "FIXED" else 0}
        for number, (kind, length, _) in _LAYOUT.items()
    }
    if for_writing:
        configuration["48"]["field_processor"] = "PDS"
    return configuration


_WRITING: Final = _configuration(for_writing=True)
_READING: Final = _configuration(for_writing=False)


class IpmInvalid(ValueError):
    """Not a record, or not a file, of this layout. The message repeats nothing of the content."""


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What a presentment shows of card and merchant: a masked number, DE26, DE42 and DE43."""

    masked_card: str
    category_code: str
    merchant_id: str
    name_and_place: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A record on its way into a file, for the acquirer `acquirer_id`."""

    record: ClearingRecord
    acquirer_id: str
    acceptor: Acceptor | None = None
    partial: bool = False


# ---------------------------------------------------------------------------------------------------------- one record


def encode(record: Record) -> bytes:
    """The message with the elements `record`: `MTI`, `DE…` and `PDS…`.

    Raises:
        IpmInvalid: an element does not look as it should.
    """
    _check(record)
    raw: bytes = iso8583.dumps(dict(record), encoding="ascii", iso_config=_WRITING)
    return raw


def decode(raw: bytes) -> Record:
    """The elements of the message `raw`.

    Raises:
        IpmInvalid: it is none. What is not encoded exactly as we would encode it was not understood.
    """
    try:
        elements: dict[str, str] = iso8583.loads(raw, encoding="ascii", iso_config=_READING)
        again: bytes = iso8583.dumps(dict(elements), encoding="ascii", iso_config=_READING)
    except (CardutilError, ValueError, LookupError):
        # The library's errors hold the record.
        raise IpmInvalid("a record cannot be read") from None
    if again != raw:
        raise IpmInvalid("a record is not well-formed")
    elements |= _parse_pds(elements.get("DE48", ""))
    _check(elements)
    return elements


def _check(record: Record) -> None:
    for name, value in record.items():
        if name.startswith("DE") and not _PATTERNS[int(name[2:])](value):
            raise IpmInvalid(f"{name} is not in its format")


def _parse_pds(text: str) -> dict[str, str]:
    """The private sub-elements of DE48: four digits of name, three of length, the value."""
    elements: dict[str, str] = {}
    position = 0
    while position < len(text):
        head = _PDS.match(text, position)
        end = head.end() + int(head[2]) if head else 0
        if head is None or not head.end() < end <= len(text) or f"PDS{head[1]}" in elements:
            raise IpmInvalid("DE48 is malformed")
        elements[f"PDS{head[1]}"] = text[head.end() : end]
        position = end
    return elements


# ------------------------------------------------------------------------------------------- from and to the platform's


def _from_entry(entry: Entry) -> dict[str, str]:
    record = entry.record
    reverses = f"R{record.day:%y%m%d}"
    shared = {
        "DE4": f"{record.money.amount_minor:012d}",
        "DE12": f"{record.occurred_at.astimezone(UTC):%y%m%d%H%M%S}",
        "DE49": record.money.currency.numeric,
        "DE94": entry.acquirer_id,
    }
    optional = {
        _STAN: record.stan,
        "DE25": record.reason_code and f"{record.reason_code:<4}",
        "DE31": record.arn,
        "DE37": record.rrn,
        "DE38": record.approval_code and f"{record.approval_code:<6}",
        "DE95": record.chargeback_id,
    }
    shared |= {name: value for name, value in optional.items() if value}
    if entry.acceptor is not None:
        shared |= _from_acceptor(entry.acceptor)
    chargeback = {"MTI": "1442", "DE3": _PURCHASE, "DE24": _CHARGEBACK_OF_A_PART if entry.partial else _CHARGEBACK}
    presentment = {"MTI": "1240", "DE24": _FIRST_PRESENTMENT}
    match record.kind:
        case ClearingKind.PRESENTMENT:
            return shared | presentment | {"DE3": _PURCHASE}
        case ClearingKind.PRESENTMENT_REVERSAL:
            return shared | presentment | {"DE3": _PURCHASE, "PDS0025": reverses}
        case ClearingKind.REFUND:
            return shared | presentment | {"DE3": _REFUND}
        case ClearingKind.REFUND_REVERSAL | ClearingKind.REFUND_RETURNED:
            return shared | presentment | {"DE3": _REFUND, "PDS0025": reverses}
        case ClearingKind.CHARGEBACK:
            return shared | chargeback
        case ClearingKind.CHARGEBACK_REVERSAL:
            return shared | chargeback | {"PDS0025": reverses}
        case ClearingKind.FEE:
            return shared | {"MTI": "1740", "DE3": _FEE_DEBIT, "DE24": _SYSTEM_FEE}


def _from_acceptor(acceptor: Acceptor) -> dict[str, str]:
    return {
        "DE2": acceptor.masked_card,
        "DE26": acceptor.category_code,
        "DE42": f"{acceptor.merchant_id:<15}",
        "DE43": acceptor.name_and_place,
    }


def _to_record(elements: Record, day: date) -> ClearingRecord:
    kind = _kind(elements)
    fee = kind is ClearingKind.FEE
    return ClearingRecord(
        day=day,
        line=int(_get(elements, "DE71")),
        kind=kind,
        money=_money(elements),
        occurred_at=_time(_get(elements, "DE12")),
        rrn=None if fee else _get(elements, "DE37"),
        stan=f"{_number(elements, _STAN, 6):06d}" if _STAN in elements else None,
        approval_code=elements.get("DE38", "").strip() or None,
        arn=elements.get("DE31"),
        reason_code=elements.get("DE25", "").strip() or None,
        chargeback_id=_get(elements, "DE95") if kind in _CHARGEBACKS else None,
    )


_CHARGEBACKS: Final = (ClearingKind.CHARGEBACK, ClearingKind.CHARGEBACK_REVERSAL)


def _kind(elements: Record) -> ClearingKind:
    taken_back = "PDS0025" in elements
    if taken_back and not elements["PDS0025"].startswith("R"):
        raise IpmInvalid("PDS0025 is not in its format")
    match elements["MTI"], _get(elements, "DE24"), _get(elements, "DE3"):
        case "1240", "200", "000000":
            return ClearingKind.PRESENTMENT_REVERSAL if taken_back else ClearingKind.PRESENTMENT
        case "1240", "200", "200000" if taken_back:
            returned = _get(elements, "DE25") == RETURNED_BY_ISSUER
            return ClearingKind.REFUND_RETURNED if returned else ClearingKind.REFUND_REVERSAL
        case "1240", "200", "200000":
            return ClearingKind.REFUND
        case "1442", "450" | "453", "000000":
            return ClearingKind.CHARGEBACK_REVERSAL if taken_back else ClearingKind.CHARGEBACK
        case "1740", "783", "290000" if not taken_back:
            return ClearingKind.FEE
    raise IpmInvalid("not a record of this layout")


def _get(elements: Record, name: str) -> str:
    try:
        return elements[name]
    except KeyError:
        raise IpmInvalid(f"{name} is missing") from None


def _number(elements: Record, name: str, digits: int) -> int:
    value = _get(elements, name)
    if len(value) != digits or not (value.isascii() and value.isdigit()):
        raise IpmInvalid(f"{name} is not in its format")
    return int(value)


def _money(elements: Record) -> Money:
    return Money(int(_get(elements, "DE4")), _currency(elements))


def _currency(elements: Record) -> Currency:
    try:
        return Currency.from_numeric(_get(elements, "DE49"))
    except ValueError:
        raise IpmInvalid("DE49 is not a currency") from None


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise IpmInvalid("DE12 is not a time") from None


# ---------------------------------------------------------------------------------------------------------- whole files


class _Sums:
    """What is counted over a file's messages, by its writer and by its reader."""

    def __init__(self) -> None:
        self.checksum = 0
        self._counts: defaultdict[Currency, list[int]] = defaultdict(lambda: [0, 0, 0])

    def add(self, record: ClearingRecord) -> None:
        amount = record.money.amount_minor
        self.checksum += amount
        count = self._counts[record.money.currency]
        count[0] += 1
        count[1 if record.kind.owed_to_us else 2] += amount

    def totals(self) -> tuple[ClearingTotal, ...]:
        return tuple(ClearingTotal(currency, *self._counts[currency]) for currency in sorted(self._counts))


def write(file: BinaryIO, day: date, network_id: str, entries: Iterable[Entry]) -> None:
    """Writes the file of `day` into `file`, as made by `network_id` (digits).

    `entries` are numbered in their order: their own `line` is not used.

    Raises:
        IpmInvalid: an entry cannot be carried.
    """
    file_id = f"{_FILE_TYPE}{day:%y%m%d}{network_id:0>11}00001"
    numbers = (f"{number:08d}" for number in itertools.count(1))
    writer: Any = VbsWriter(file, blocked=True)
    sums = _Sums()
    writer.write(encode({"MTI": "1644", "DE24": _HEADER, "DE71": next(numbers), "PDS0105": file_id}))
    for entry in entries:
        writer.write(encode(_from_entry(entry) | {"DE71": next(numbers)}))
        sums.add(entry.record)
    for total in sums.totals():
        writer.write(encode(_position(total) | {"DE71": next(numbers)}))
    last = next(numbers)
    trailer = {"PDS0105": file_id, "PDS0301": f"{sums.checksum:016d}", "PDS0306": last}
    writer.write(encode({"MTI": "1644", "DE24": _TRAILER, "DE71": last, **trailer}))
    writer.close()


def _position(total: ClearingTotal) -> dict[str, str]:
    return {
        "MTI": "1644",
        "DE24": _POSITION,
        "DE49": total.currency.numeric,
        "PDS0380": f"{total.owed_by_us_minor:016d}",
        "PDS0381": f"{total.owed_to_us_minor:016d}",
        "PDS0402": f"{total.records:010d}",
    }


class Reader:
    """Takes the raw records of a file one by one, and at its end says what they come to, or what is wrong with them."""

    def __init__(self, day: date) -> None:
        self._day = day
        self._number = 0
        self._sums = _Sums()
        self._positions: list[ClearingTotal] = []
        self._ended = False
        self.file_id = ""

    def take(self, raw: bytes) -> ClearingRecord | None:
        """The record in `raw`; None for those that are about the file.

        Raises:
            IpmInvalid: it cannot stand here.
        """
        elements = decode(raw)
        self._number += 1
        if self._ended:
            raise IpmInvalid("a record follows the trailer")
        if _number(elements, "DE71", 8) != self._number:
            raise IpmInvalid("a message number is out of order")
        about_file = elements["MTI"] == "1644"
        if (self._number == 1) != (about_file and elements.get("DE24") == _HEADER):
            raise IpmInvalid("the header is not the first record")
        if about_file:
            self._take_about_file(elements)
            return None
        if self._positions:
            raise IpmInvalid("a record follows the positions")
        record = _to_record(elements, self._day)
        self._sums.add(record)
        return record

    def totals(self) -> tuple[ClearingTotal, ...]:
        """The totals by currency, once the last record was taken.

        Raises:
            IpmInvalid: the file has no trailer.
        """
        if not self._ended:
            raise IpmInvalid("the trailer is missing")
        return self._sums.totals()

    def _take_about_file(self, elements: Record) -> None:
        match _get(elements, "DE24"):
            case "697":
                self.file_id = _get(elements, "PDS0105")
                named = _FILE_ID.fullmatch(self.file_id)
                if named is None or named[1] != f"{self._day:%y%m%d}":
                    raise IpmInvalid("the header names another day, or no file of this kind")
            case "685":
                self._positions.append(
                    ClearingTotal(
                        _currency(elements),
                        _number(elements, "PDS0402", 10),
                        owed_to_us_minor=_number(elements, "PDS0381", 16),
                        owed_by_us_minor=_number(elements, "PDS0380", 16),
                    )
                )
            case "695":
                self._take_trailer(elements)
            case _:
                raise IpmInvalid("not a record of this layout")

    def _take_trailer(self, elements: Record) -> None:
        if _get(elements, "PDS0105") != self.file_id:
            raise IpmInvalid("the trailer is another file's")
        if _number(elements, "PDS0306", 8) != self._number:
            raise IpmInvalid("the trailer counts other messages")
        if _number(elements, "PDS0301", 16) != self._sums.checksum:
            raise IpmInvalid("the amounts do not come to the trailer's sum")
        if tuple(self._positions) != self._sums.totals():
            raise IpmInvalid("the records do not come to the positions")
        self._ended = True


def record_of(raw: bytes, day: date) -> ClearingRecord:
    """One record of a file that was read as a whole before.

    Raises:
        IpmInvalid: it is none.
    """
    return _to_record(decode(raw), day)


def unblocked(file: BinaryIO) -> Iterator[bytes]:
    """The raw records of a blocked file, each checked for its framing.

    Raises:
        IpmInvalid: the blocks or the lengths are wrong, the end is missing, or something follows it.
    """
    content = _Blocks(file)
    while True:
        length = int.from_bytes(content.take(4))
        if length == 0:
            break
        if length > MAX_RECORD_BYTES:
            raise IpmInvalid("a record is longer than any of this layout")
        yield content.take(length)
    content.only_fill_is_left()


class _Blocks:
    """The content of the blocks. `cardutil`'s own reader neither checks their filling nor minds a missing end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._content = b""

    def take(self, count: int) -> bytes:
        while len(self._content) < count:
            block = self._read()
            if not block:
                raise IpmInvalid("the file is truncated")
            self._content += block
        taken, self._content = self._content[:count], self._content[count:]
        return taken

    def only_fill_is_left(self) -> None:
        while self._content:
            if self._content.strip(FILL):
                raise IpmInvalid("something follows the end of the file")
            self._content = self._read()

    def _read(self) -> bytes:
        block = self._file.read(BLOCK_BYTES)
        if block and (len(block) != BLOCK_BYTES or block[BLOCK_CONTENT_BYTES:] != FILL * 2):
            raise IpmInvalid("a block is not filled up")
        return block[:BLOCK_CONTENT_BYTES]
