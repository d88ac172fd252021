"""ACH files as the NACHA Operating Rules lay them out (appendix "ACH Record Format Specifications").

A file is lines of 94 characters, in blocks of ten: file header (1), batches of header (5), entries (6) with addenda (7)
and control (8), file control (9), and lines of nines that fill the last block. The field tables below are the rules';
`write` and `parse` are made of them, and `parse` takes nothing that `write` would not have written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum, StrEnum
from itertools import pairwise

from bank.errors import FieldInvalid, NachaInvalid
from domain.bank_accounts import BankAccountType, routing_number_valid

RECORD_LENGTH = 94
BLOCKING_FACTOR = 10
_FILLER = "9" * RECORD_LENGTH
_HASH_MODULUS = 10**10


class SecCode(StrEnum):
    """Standard entry class: how the receiver authorized an entry."""

    PPD = "PPD"  # consumers, in writing; and credits to consumers
    WEB = "WEB"  # debits that consumers authorized over the internet
    CCD = "CCD"  # companies
    COR = "COR"  # notifications of change


class ServiceClass(IntEnum):
    MIXED = 200
    CREDITS = 220
    DEBITS = 225


# By account type: forward credit and debit, and the returns (or notifications of change) of each.
_FORWARD_CREDIT = {BankAccountType.CHECKING: 22, BankAccountType.SAVINGS: 32}
_FORWARD_DEBIT = {BankAccountType.CHECKING: 27, BankAccountType.SAVINGS: 37}
_RETURNED = {22: 21, 27: 26, 32: 31, 37: 36}
_DEBITS = frozenset({26, 27, 36, 37})
_CREDITS = frozenset({21, 22, 31, 32})
_BACKWARD = frozenset(_RETURNED.values())


_CODES_OF = {
    kind: frozenset(
        str(code) for code in (credit, _FORWARD_DEBIT[kind], _RETURNED[credit], _RETURNED[_FORWARD_DEBIT[kind]])
    )
    for kind, credit in _FORWARD_CREDIT.items()
}


def credit_code(account_type: BankAccountType) -> int:
    return _FORWARD_CREDIT[account_type]


def debit_code(account_type: BankAccountType) -> int:
    return _FORWARD_DEBIT[account_type]


def returned_code(transaction_code: int) -> int:
    """The transaction code under which an entry with `transaction_code` comes back."""
    return _RETURNED[transaction_code]


def is_debit(transaction_code: int) -> bool:
    return transaction_code in _DEBITS


class _Kind(StrEnum):
    NUMERIC = "9"  # right-justified, filled up with zeros
    TEXT = "X"  # left-justified, filled up with spaces
    DATE = "YYMMDD"
    BLANK = " "


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    length: int
    kind: _Kind = _Kind.TEXT
    constant: str | None = None
    optional: bool = False


def _n(name: str, length: int) -> _Field:
    return _Field(name, length, _Kind.NUMERIC)


def _x(name: str, length: int, *, optional: bool = False) -> _Field:
    return _Field(name, length, optional=optional)


def _date(name: str, *, optional: bool = False) -> _Field:
    return _Field(name, 6, _Kind.DATE, optional=optional)


def _is(name: str, value: str) -> _Field:
    return _Field(name, len(value), constant=value)


def _blank(length: int) -> _Field:
    return _Field("reserved", length, _Kind.BLANK)


_FILE_HEADER = (
    _is("record_type", "1"),
    _is("priority_code", "01"),
    _x("immediate_destination", 10),
    _x("immediate_origin", 10),
    _date("file_creation_date"),
    _n("file_creation_time", 4),
    _x("file_id_modifier", 1),
    _is("record_size", "094"),
    _is("blocking_factor", "10"),
    _is("format_code", "1"),
    _x("immediate_destination_name", 23, optional=True),
    _x("immediate_origin_name", 23, optional=True),
    _x("reference_code", 8, optional=True),
)
_BATCH_HEADER = (
    _is("record_type", "5"),
    _n("service_class_code", 3),
    _x("company_name", 16),
    _x("company_discretionary_data", 20, optional=True),
    _x("company_identification", 10),
    _x("standard_entry_class_code", 3),
    _x("company_entry_description", 10),
    _x("company_descriptive_date", 6, optional=True),
    _date("effective_entry_date", optional=True),
    _x("settlement_date", 3, optional=True),
    _is("originator_status_code", "1"),
    _n("originating_dfi_identification", 8),
    _n("batch_number", 7),
)
_ENTRY = (
    _is("record_type", "6"),
    _n("transaction_code", 2),
    _n("receiving_dfi_identification", 9),
    _x("dfi_account_number", 17),
    _n("amount", 10),
    _x("individual_identification_number", 15, optional=True),
    _x("individual_name", 22),
    _x("discretionary_data", 2, optional=True),
    _n("addenda_record_indicator", 1),
    _n("trace_number", 15),
)
_RETURN_ADDENDA = (
    _is("record_type", "7"),
    _is("addenda_type_code", "99"),
    _x("return_reason_code", 3),
    _n("original_entry_trace_number", 15),
    _date("date_of_death", optional=True),
    _n("original_receiving_dfi_identification", 8),
    _x("addenda_information", 44, optional=True),
    _n("trace_number", 15),
)
_CHANGE_ADDENDA = (
    _is("record_type", "7"),
    _is("addenda_type_code", "98"),
    _x("change_code", 3),
    _n("original_entry_trace_number", 15),
    _blank(6),
    _n("original_receiving_dfi_identification", 8),
    _x("corrected_data", 29),
    _blank(15),
    _n("trace_number", 15),
)
_BATCH_CONTROL = (
    _is("record_type", "8"),
    _n("service_class_code", 3),
    _n("entry_addenda_count", 6),
    _n("entry_hash", 10),
    _n("total_debit_amount", 12),
    _n("total_credit_amount", 12),
    _x("company_identification", 10),
    _x("message_authentication_code", 19, optional=True),
    _blank(6),
    _n("originating_dfi_identification", 8),
    _n("batch_number", 7),
)
_FILE_CONTROL = (
    _is("record_type", "9"),
    _n("batch_count", 6),
    _n("block_count", 6),
    _n("entry_addenda_count", 8),
    _n("entry_hash", 10),
    _n("total_debit_amount", 12),
    _n("total_credit_amount", 12),
    _blank(39),
)

_Values = dict[str, str | int | date | None]


@dataclass(frozen=True, slots=True)
class Return:
    """Addenda 99: why an entry came back (R01 to R85), and the trace number of the entry as it was originated.

    `information` is the returning bank's; `date_of_death` goes with R14 and R15.
    """

    reason_code: str
    original_trace: int
    original_routing: str
    information: str = ""
    date_of_death: date | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Addenda 98, a notification of change (C01 to C14): the entry was posted, and something is to be corrected."""

    change_code: str
    original_trace: int
    original_routing: str
    corrected_data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Correction:
    """What a notification of change corrects of an account; None stays as it is."""

    routing_number: str | None = None
    account_number: str | None = field(default=None, repr=False)
    account_type: BankAccountType | None = None


# Where the corrected values stand in the field (Nacha Operating Rules, Appendix Five, "Change Codes").
_CORRECTED: Mapping[str, Mapping[str, slice]] = {
    "C01": {"account_number": slice(0, 17)},
    "C02": {"routing_number": slice(0, 9)},
    "C03": {"routing_number": slice(0, 9), "account_number": slice(12, 29)},
    "C05": {"transaction_code": slice(0, 2)},
    "C06": {"account_number": slice(0, 17), "transaction_code": slice(20, 22)},
    "C07": {"routing_number": slice(0, 9), "account_number": slice(9, 26), "transaction_code": slice(26, 28)},
}


def correction_of(change: Change) -> Correction | None:
    """What `change` corrects of an account; None if it is about something else, or says nothing that can be used."""
    places = _CORRECTED.get(change.change_code)
    if places is None:
        return None
    found = {name: change.corrected_data[place].strip() for name, place in places.items()}
    code = found.get("transaction_code")
    types = [kind for kind, codes in _CODES_OF.items() if code is not None and code in codes]
    if (code is not None and not types) or not all(found.values()):
        return None
    return Correction(found.get("routing_number"), found.get("account_number"), next(iter(types), None))


def corrected_data(change_code: str, routing_number: str, account_number: str, transaction_code: int) -> str:
    """The field in which `change_code` says what is right; other codes say it in words."""
    values = {
        "routing_number": routing_number,
        "account_number": account_number,
        "transaction_code": str(transaction_code),
    }
    data = [" "] * 29
    for name, place in _CORRECTED.get(change_code, {}).items():
        data[place] = values[name].ljust(place.stop - place.start)
    return "".join(data).rstrip() or "CORRECT IT"


@dataclass(frozen=True, slots=True)
class Entry:
    """One credit or debit. `receiving_routing` has nine digits, `amount_minor` is cents; `trace` is the originating
    bank's eight digits and a number of seven that rises within a batch."""

    transaction_code: int
    receiving_routing: str
    account_number: str = field(repr=False)
    amount_minor: int
    individual_name: str = field(repr=False)
    trace: int
    individual_id: str = ""
    discretionary_data: str = ""
    addenda: Return | Change | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of one company, class and description. `originating_dfi` are the first eight digits of its bank's number.

    `settlement_date` (three digits, the day of the year) is filled in by the ACH operator: empty in what we send.
    """

    number: int
    service_class: ServiceClass
    company_name: str
    company_id: str
    sec_code: SecCode
    description: str
    originating_dfi: str
    entries: tuple[Entry, ...]
    effective_date: date | None = None
    descriptive_date: str = ""
    discretionary_data: str = ""
    settlement_date: str = ""


@dataclass(frozen=True, slots=True)
class NachaFile:
    """`created_at` counts minutes and has no time zone: it is the sender's wall clock. `destination` and `origin` are
    ten characters: a routing number after a space, or a company's id."""

    destination: str
    origin: str
    created_at: datetime
    modifier: str
    batches: tuple[Batch, ...]
    destination_name: str = ""
    origin_name: str = ""
    reference: str = ""


def write(file: NachaFile) -> str:
    """`file` as lines that end in LF.

    Raises:
        FieldInvalid: a value does not fit its field.
        NachaInvalid: the file breaks a rule that spans fields, such as the order of trace numbers.
    """
    lines = [_line(_FILE_HEADER, _file_header(file))]
    for batch in file.batches:
        lines += _batch_lines(batch)
    totals = [_totals(batch) for batch in file.batches]
    blocks = -(-(len(lines) + 1) // BLOCKING_FACTOR)
    lines.append(_line(_FILE_CONTROL, _file_control(totals, blocks)))
    lines += [_FILLER] * (blocks * BLOCKING_FACTOR - len(lines))
    text = "".join(f"{line}\n" for line in lines)
    parse(text)  # what breaks a rule never leaves this function
    return text


def parse(text: str) -> NachaFile:
    """The file that `text` holds; its lines end in LF or CR LF.

    Raises:
        NachaInvalid: it is not exactly what the rules ask for; names line, record and field.
    """
    return _Parser(text).file()


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a control record says of entries: how many records, the hash of their banks, and their sums."""

    records: int
    hash: int
    debit_minor: int
    credit_minor: int


def _totals(batch: Batch) -> _Totals:
    debits = sum(entry.amount_minor for entry in batch.entries if is_debit(entry.transaction_code))
    return _Totals(
        records=sum(2 if entry.addenda else 1 for entry in batch.entries),
        hash=sum(int(entry.receiving_routing[:8]) for entry in batch.entries) % _HASH_MODULUS,
        debit_minor=debits,
        credit_minor=sum(entry.amount_minor for entry in batch.entries) - debits,
    )


def _file_header(file: NachaFile) -> _Values:
    return {
        "immediate_destination": file.destination,
        "immediate_origin": file.origin,
        "file_creation_date": file.created_at.date(),
        "file_creation_time": file.created_at.hour * 100 + file.created_at.minute,
        "file_id_modifier": file.modifier,
        "immediate_destination_name": file.destination_name,
        "immediate_origin_name": file.origin_name,
        "reference_code": file.reference,
    }


def _file_control(totals: Sequence[_Totals], blocks: int) -> _Values:
    return {
        "batch_count": len(totals),
        "block_count": blocks,
        "entry_addenda_count": sum(each.records for each in totals),
        "entry_hash": sum(each.hash for each in totals) % _HASH_MODULUS,
        "total_debit_amount": sum(each.debit_minor for each in totals),
        "total_credit_amount": sum(each.credit_minor for each in totals),
    }


def _batch_lines(batch: Batch) -> Iterator[str]:
    yield _line(
        _BATCH_HEADER,
        {
            "service_class_code": batch.service_class,
            "company_name": batch.company_name,
            "company_discretionary_data": batch.discretionary_data,
            "company_identification": batch.company_id,
            "standard_entry_class_code": batch.sec_code,
            "company_entry_description": batch.description,
            "company_descriptive_date": batch.descriptive_date,
            "effective_entry_date": batch.effective_date,
            "settlement_date": batch.settlement_date,
            "originating_dfi_identification": _number("originating_dfi_identification", batch.originating_dfi),
            "batch_number": batch.number,
        },
    )
    for entry in batch.entries:
        yield from _entry_lines(entry)
    yield _line(_BATCH_CONTROL, _batch_control(batch))


def _batch_control(batch: Batch) -> _Values:
    totals = _totals(batch)
    return {
        "service_class_code": batch.service_class,
        "entry_addenda_count": totals.records,
        "entry_hash": totals.hash,
        "total_debit_amount": totals.debit_minor,
        "total_credit_amount": totals.credit_minor,
        "company_identification": batch.company_id,
        "originating_dfi_identification": _number("originating_dfi_identification", batch.originating_dfi),
        "batch_number": batch.number,
    }


def _entry_lines(entry: Entry) -> Iterator[str]:
    yield _line(
        _ENTRY,
        {
            "transaction_code": entry.transaction_code,
            "receiving_dfi_identification": _number("receiving_dfi_identification", entry.receiving_routing),
            "dfi_account_number": entry.account_number,
            "amount": entry.amount_minor,
            "individual_identification_number": entry.individual_id,
            "individual_name": entry.individual_name,
            "discretionary_data": entry.discretionary_data,
            "addenda_record_indicator": int(entry.addenda is not None),
            "trace_number": entry.trace,
        },
    )
    match entry.addenda:
        case Return() as returned:
            yield _line(
                _RETURN_ADDENDA,
                {
                    "return_reason_code": returned.reason_code,
                    "original_entry_trace_number": returned.original_trace,
                    "date_of_death": returned.date_of_death,
                    "original_receiving_dfi_identification": _number("original_routing", returned.original_routing),
                    "addenda_information": returned.information,
                    "trace_number": entry.trace,
                },
            )
        case Change() as change:
            yield _line(
                _CHANGE_ADDENDA,
                {
                    "change_code": change.change_code,
                    "original_entry_trace_number": change.original_trace,
                    "original_receiving_dfi_identification": _number("original_routing", change.original_routing),
                    "corrected_data": change.corrected_data,
                    "trace_number": entry.trace,
                },
            )


def _number(name: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise FieldInvalid(name, "must be digits")
    return int(digits)


def _line(layout: Sequence[_Field], values: _Values) -> str:
    return "".join(_written(each, values.get(each.name)) for each in layout)


def _written(spec: _Field, value: str | int | date | None) -> str:
    if spec.constant is not None:
        return spec.constant
    if spec.kind is _Kind.BLANK or (value is None and spec.optional):
        return " " * spec.length
    if spec.kind is _Kind.DATE and isinstance(value, date):
        return value.strftime("%y%m%d")
    if spec.kind is _Kind.NUMERIC and isinstance(value, int):
        if not 0 <= value < 10**spec.length:
            raise FieldInvalid(spec.name, f"must have {spec.length} digits at most and no sign")
        return f"{value:0{spec.length}d}"
    text = str(value or "")
    if not spec.optional and not text.strip():
        raise FieldInvalid(spec.name, "is required")
    if len(text) > spec.length:
        raise FieldInvalid(spec.name, f"must have {spec.length} characters at most")
    # The rules' character set: printable ASCII; what does not fit would shift every field after it.
    if not (text.isascii() and text.isprintable()):
        raise FieldInvalid(spec.name, "must be printable ASCII")
    return text.ljust(spec.length)


class _Record:
    """The fields of one line, as they are asked for. `name` is the record's, for errors."""

    def __init__(self, number: int, name: str, layout: Sequence[_Field], line: str) -> None:
        self.number = number
        self.name = name
        self._raw: dict[str, str] = {}
        position = 0
        for spec in layout:
            content = line[position : position + spec.length]
            position += spec.length
            self._check(spec, content)
            self._raw[spec.name] = content

    def _check(self, spec: _Field, content: str) -> None:
        if spec.constant is not None and content != spec.constant:
            raise self.invalid(spec.name, f"must be {spec.constant}")
        if spec.kind is _Kind.BLANK and content.strip():
            raise self.invalid(spec.name, "must be blank")
        if spec.kind is _Kind.NUMERIC and not content.isdigit():
            raise self.invalid(spec.name, "must be digits")
        if spec.kind is _Kind.TEXT and not spec.optional and not content.strip():
            raise self.invalid(spec.name, "is required")
        if spec.kind is _Kind.DATE and not (spec.optional and not content.strip()):
            self._day(spec.name, content)

    def text(self, name: str) -> str:
        return self._raw[name].rstrip()

    def digits(self, name: str) -> str:
        return self._raw[name]

    def number_of(self, name: str) -> int:
        return int(self._raw[name])

    def day(self, name: str) -> date | None:
        content = self._raw[name]
        return self._day(name, content) if content.strip() else None

    def _day(self, name: str, content: str) -> date:
        try:
            # Without `strptime`, which takes a space for a digit.
            if not content.isdigit():
                raise ValueError
            return date(2000 + int(content[:2]), int(content[2:4]), int(content[4:]))
        except ValueError:
            raise self.invalid(name, "must be a date as YYMMDD") from None

    def expect(self, name: str, value: int | str) -> None:
        found = self.number_of(name) if isinstance(value, int) else self.text(name)
        if found != value:
            raise self.invalid(name, f"is {found} where {value} was counted")

    def invalid(self, name: str, problem: str) -> NachaInvalid:
        return NachaInvalid(self.number, self.name, name, problem)


class _Parser:
    def __init__(self, text: str) -> None:
        if not text.isascii():
            raise NachaInvalid(1, "file", "text", "must be ASCII")
        if not text.endswith("\n"):
            raise NachaInvalid(text.count("\n") + 1, "file", "text", "must end with a line break")
        self._lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        for number, line in enumerate(self._lines, 1):
            if len(line) != RECORD_LENGTH:
                raise NachaInvalid(number, "record", "length", f"has {len(line)} characters instead of {RECORD_LENGTH}")
            if not line.isprintable():
                raise NachaInvalid(number, "record", "text", "must be printable")
        self._next = 0

    def file(self) -> NachaFile:
        header = self._take("file header", _FILE_HEADER)
        time = header.number_of("file_creation_time")
        day = header.day("file_creation_date")
        if day is None or time // 100 > 23 or time % 100 > 59:
            raise header.invalid("file_creation_time", "must be a time as HHMM")
        modifier = header.text("file_id_modifier")
        if not (modifier.isdigit() or (modifier.isalpha() and modifier.isupper())):
            raise header.invalid("file_id_modifier", "must be A to Z or 0 to 9")
        batches = []
        while self._type() == "5":
            batches.append(self._batch())
        self._end(batches)
        return NachaFile(
            destination=header.text("immediate_destination"),
            origin=header.text("immediate_origin"),
            created_at=datetime(day.year, day.month, day.day, time // 100, time % 100),  # noqa: DTZ001 - wall clock
            modifier=modifier,
            batches=tuple(batches),
            destination_name=header.text("immediate_destination_name"),
            origin_name=header.text("immediate_origin_name"),
            reference=header.text("reference_code"),
        )

    def _end(self, batches: Sequence[Batch]) -> None:
        control = self._take("file control", _FILE_CONTROL)
        blocks = -(-self._next // BLOCKING_FACTOR)
        for name, value in _file_control([_totals(batch) for batch in batches], blocks).items():
            control.expect(name, int(str(value)))
        for number, line in enumerate(self._lines[self._next :], self._next + 1):
            if line != _FILLER:
                raise NachaInvalid(number, "filler", "text", "only lines of nines follow the file control")
        if len(self._lines) != blocks * BLOCKING_FACTOR:
            raise NachaInvalid(len(self._lines), "filler", "block_count", "the last block has ten lines")

    def _batch(self) -> Batch:
        header = self._take("batch header", _BATCH_HEADER)
        service_class = _service_class(header)
        sec_code = _sec_code(header)
        settlement = header.text("settlement_date")
        if settlement and not (len(settlement) == 3 and settlement.isdigit()):
            raise header.invalid("settlement_date", "must be the day of a year")
        entries = []
        while self._type() == "6":
            entries.append(self._entry(sec_code))
        batch = Batch(
            number=header.number_of("batch_number"),
            service_class=service_class,
            company_name=header.text("company_name"),
            company_id=header.text("company_identification"),
            sec_code=sec_code,
            description=header.text("company_entry_description"),
            originating_dfi=header.digits("originating_dfi_identification"),
            entries=tuple(entries),
            effective_date=header.day("effective_entry_date"),
            descriptive_date=header.text("company_descriptive_date"),
            discretionary_data=header.text("company_discretionary_data"),
            settlement_date=settlement,
        )
        _check_batch(header, batch)
        control = self._take("batch control", _BATCH_CONTROL)
        for name, value in _batch_control(batch).items():
            control.expect(name, value if isinstance(value, str) else int(str(value)))
        return batch

    def _entry(self, sec_code: SecCode) -> Entry:
        record = self._take("entry", _ENTRY)
        transaction_code = record.number_of("transaction_code")
        if transaction_code not in _DEBITS | _CREDITS:
            raise record.invalid("transaction_code", "is none of ours")
        routing = record.digits("receiving_dfi_identification")
        if not routing_number_valid(routing):
            raise record.invalid("receiving_dfi_identification", "is no routing number")
        indicator = record.number_of("addenda_record_indicator")
        if indicator != (self._type() == "7"):
            raise record.invalid("addenda_record_indicator", "does not say whether an addenda record follows")
        trace = record.number_of("trace_number")
        addenda = self._addenda(trace) if indicator else None
        if (addenda is not None) != (transaction_code in _BACKWARD):
            raise record.invalid("transaction_code", "returns and changes, and only they, have an addenda record")
        if isinstance(addenda, Change) != (sec_code is SecCode.COR):
            raise record.invalid("transaction_code", "changes, and only they, come in a batch of class COR")
        amount_minor = record.number_of("amount")
        if (amount_minor == 0) != isinstance(addenda, Change):
            raise record.invalid("amount", "is zero for a notification of change, and for nothing else here")
        return Entry(
            transaction_code=transaction_code,
            receiving_routing=routing,
            account_number=record.text("dfi_account_number"),
            amount_minor=amount_minor,
            individual_name=record.text("individual_name"),
            trace=trace,
            individual_id=record.text("individual_identification_number"),
            discretionary_data=record.text("discretionary_data"),
            addenda=addenda,
        )

    def _addenda(self, entry_trace: int) -> Return | Change:
        if self._lines[self._next][1:3] == "98":
            record = self._take("addenda 98", _CHANGE_ADDENDA)
            code = _reason(record, "change_code", "C")
            record.expect("trace_number", entry_trace)
            return Change(
                code,
                record.number_of("original_entry_trace_number"),
                record.digits("original_receiving_dfi_identification"),
                record.text("corrected_data"),
            )
        record = self._take("addenda 99", _RETURN_ADDENDA)
        code = _reason(record, "return_reason_code", "R")
        record.expect("trace_number", entry_trace)
        return Return(
            code,
            record.number_of("original_entry_trace_number"),
            record.digits("original_receiving_dfi_identification"),
            record.text("addenda_information"),
            record.day("date_of_death"),
        )

    def _type(self) -> str:
        return self._lines[self._next][:1] if self._next < len(self._lines) else ""

    def _take(self, name: str, layout: Sequence[_Field]) -> _Record:
        if self._next == len(self._lines):
            raise NachaInvalid(self._next, name, "record_type", "is missing: the file ends before it")
        self._next += 1
        return _Record(self._next, name, layout, self._lines[self._next - 1])


def _service_class(record: _Record) -> ServiceClass:
    try:
        return ServiceClass(record.number_of("service_class_code"))
    except ValueError:
        raise record.invalid("service_class_code", "must be 200, 220 or 225") from None


def _sec_code(record: _Record) -> SecCode:
    try:
        return SecCode(record.text("standard_entry_class_code"))
    except ValueError:
        raise record.invalid("standard_entry_class_code", f"must be one of {', '.join(SecCode)}") from None


def _reason(record: _Record, name: str, letter: str) -> str:
    code = record.text(name)
    if not (len(code) == 3 and code[0] == letter and code[1:].isdigit() and code[1:] != "00"):
        raise record.invalid(name, f"must be {letter} and two digits")
    return code


def _check_batch(header: _Record, batch: Batch) -> None:
    """The rules that span the records of a batch."""
    if not batch.entries:
        raise header.invalid("batch_number", "the batch has no entries")
    debits = {is_debit(entry.transaction_code) for entry in batch.entries}
    if (batch.service_class is ServiceClass.CREDITS and True in debits) or (
        batch.service_class is ServiceClass.DEBITS and False in debits
    ):
        raise header.invalid("service_class_code", "does not fit the batch's entries")
    for first, second in pairwise(batch.entries):
        if second.trace <= first.trace:
            raise header.invalid("trace_number", "must rise within a batch")
    if any(f"{entry.trace:015d}"[:8] != batch.originating_dfi for entry in batch.entries):
        raise header.invalid("trace_number", "must begin with the originating bank's number")
