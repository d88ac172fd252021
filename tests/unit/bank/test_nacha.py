"""ACH files: a golden one, round trips of whatever can be written, and the refusal of whatever was altered."""

from __future__ import annotations

import contextlib
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bank.errors import FieldInvalid, NachaInvalid
from bank.nacha import (
    Batch,
    Change,
    Correction,
    Entry,
    NachaFile,
    Return,
    SecCode,
    ServiceClass,
    corrected_data,
    correction_of,
    credit_code,
    debit_code,
    is_debit,
    parse,
    returned_code,
    write,
)
from domain.bank_accounts import BankAccountType, routing_check_digit

GOLDEN = Path(__file__).parent / "micro_deposits.ach"


def _entry(code: int, amount_minor: int, trace: int) -> Entry:
    return Entry(code, "021000021", "000123456789", amount_minor, "ADA LOVELACE", trace)


def _file() -> NachaFile:
    """Two credits of 32 and 45 cents by PPD and the debit of their sum by WEB, as a verification sends them."""
    credits = Batch(
        number=1,
        service_class=ServiceClass.CREDITS,
        company_name="DURAPAY",
        company_id="1123456789",
        sec_code=SecCode.PPD,
        description="ACCTVERIFY",
        originating_dfi="07640125",
        entries=(_entry(22, 32, 76401250000001), _entry(22, 45, 76401250000002)),
        effective_date=date(2026, 11, 24),
    )
    debit = Batch(
        number=2,
        service_class=ServiceClass.DEBITS,
        company_name="DURAPAY",
        company_id="1123456789",
        sec_code=SecCode.WEB,
        description="ACCTVERIFY",
        originating_dfi="07640125",
        entries=(
            Entry(27, "021000021", "000123456789", 77, "ADA LOVELACE", 76401250000003, "md_1", discretionary_data="S "),
        ),
        effective_date=date(2026, 11, 24),
    )
    created = datetime(2026, 11, 23, 10, 15)  # noqa: DTZ001 - the wall clock of a file
    return NachaFile(" 076401251", "1123456789", created, "A", (credits, debit), "FIRST BANK", "DURAPAY", "F1")


def test_the_file_of_a_verification_is_the_golden_one() -> None:
    assert write(_file()) == GOLDEN.read_text()


def test_a_file_has_94_characters_a_line_in_blocks_of_ten() -> None:
    lines = write(_file()).splitlines()
    assert {len(line) for line in lines} == {94}
    assert len(lines) % 10 == 0


def test_the_entry_hash_is_the_sum_of_the_receiving_banks_cut_to_ten_digits() -> None:
    control = next(line for line in write(_file()).splitlines() if line.startswith("9") and not line.startswith("99"))
    assert control[21:31] == f"{3 * 2100002:010d}"
    assert (int(control[31:43]), int(control[43:55])) == (77, 77)


_TEXT = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-/&"), min_size=1)
_EIGHT = st.integers(0, 99_999).map(lambda number: f"021{number:05d}")
_ROUTING = _EIGHT.map(lambda eight: eight + routing_check_digit(eight))
_DAY = st.dates(date(2001, 1, 1), date(2099, 12, 31))


@st.composite
def _batches(draw: st.DrawFn, number: int) -> Batch:
    originator = draw(_EIGHT)
    backward = draw(st.sampled_from(["forward", "return", "change"]))
    entries = []
    for place in range(draw(st.integers(1, 6))):
        code = draw(st.sampled_from([22, 27, 32, 37]))
        trace = int(originator) * 10**7 + number * 100 + place
        addenda: Return | Change | None = None
        amount_minor = draw(st.integers(1, 10**10 - 1))
        original, bank = draw(st.integers(0, 10**15 - 1)), draw(_EIGHT)
        if backward == "return":
            reason = f"R{draw(st.integers(1, 85)):02d}"
            dead = draw(st.none() | _DAY)
            addenda = Return(reason, original, bank, draw(_TEXT.map(lambda text: text[:44])), dead)
        elif backward == "change":
            addenda = Change(f"C{draw(st.integers(1, 14)):02d}", original, bank, draw(_TEXT.map(lambda t: t[:29])))
            amount_minor = 0
        entries.append(
            Entry(
                code if addenda is None else returned_code(code),
                draw(_ROUTING),
                str(draw(st.integers(1000, 10**17 - 1))),
                amount_minor,
                draw(_TEXT.map(lambda text: text[:22])),
                trace,
                addenda=addenda,
            )
        )
    return Batch(
        number=number,
        service_class=ServiceClass.MIXED,
        company_name=draw(_TEXT.map(lambda text: text[:16])),
        company_id="1123456789",
        sec_code=SecCode.COR if backward == "change" else draw(st.sampled_from([SecCode.PPD, SecCode.CCD])),
        description=draw(_TEXT.map(lambda text: text[:10])),
        originating_dfi=originator,
        entries=tuple(entries),
        effective_date=draw(st.none() | _DAY),
    )


@st.composite
def _files(draw: st.DrawFn) -> NachaFile:
    batches = tuple(draw(_batches(number)) for number in range(1, draw(st.integers(1, 4)) + 1))
    created = draw(st.datetimes(datetime(2001, 1, 1), datetime(2099, 12, 31))).replace(second=0, microsecond=0)  # noqa: DTZ001
    return NachaFile(" 076401251", "1123456789", created, draw(st.sampled_from("AZ09")), batches, reference="R1")


@given(_files())
def test_what_was_written_is_read_back(file: NachaFile) -> None:
    assert parse(write(file)) == file


@given(_files())
def test_line_breaks_of_either_kind_are_read(file: NachaFile) -> None:
    assert parse(write(file).replace("\n", "\r\n")) == file


@given(st.data())
def test_a_file_with_one_digit_altered_is_refused_or_says_something_else(data: st.DataObject) -> None:
    text = write(_file())
    place = data.draw(st.sampled_from([place for place, character in enumerate(text) if character.isdigit()]))
    altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
    with contextlib.suppress(NachaInvalid):
        assert parse(altered) != _file()


@given(st.text(max_size=400))
def test_whatever_is_no_file_is_refused_by_name(text: str) -> None:
    with pytest.raises(NachaInvalid):
        parse(text)


def _altered(line: int, start: int, content: str) -> str:
    lines = write(_file()).splitlines()
    lines[line - 1] = lines[line - 1][:start] + content + lines[line - 1][start + len(content) :]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("line", "start", "content", "record", "field"),
    [
        (1, 34, "095", "file header", "record_size"),
        (1, 29, "2460", "file header", "file_creation_time"),
        (1, 23, "261332", "file header", "file_creation_date"),
        (2, 1, "225", "batch header", "service_class_code"),
        (2, 50, "XYZ", "batch header", "standard_entry_class_code"),
        (2, 69, "26 124", "batch header", "effective_entry_date"),
        (3, 1, "99", "entry", "transaction_code"),
        (3, 11, "2", "entry", "receiving_dfi_identification"),
        (3, 78, "1", "entry", "addenda_record_indicator"),
        (3, 29, "0000000000", "entry", "amount"),
        (4, 93, "1", "batch header", "trace_number"),
        (5, 10, "0000000001", "batch control", "entry_hash"),
        (5, 43, "0", "batch control", "total_credit_amount"),
        (5, 44, "2", "batch control", "company_identification"),
        (9, 1, "000003", "file control", "batch_count"),
        (9, 54, "8", "file control", "total_credit_amount"),
        (10, 0, "8", "filler", "text"),
    ],
)
def test_an_error_names_record_and_field(line: int, start: int, content: str, record: str, field: str) -> None:
    with pytest.raises(NachaInvalid) as refusal:
        parse(_altered(line, start, content))
    assert (refusal.value.record, refusal.value.field) == (record, field)


def test_a_file_that_ends_early_is_refused() -> None:
    lines = write(_file()).splitlines(keepends=True)
    for count in range(len(lines)):
        with pytest.raises(NachaInvalid):
            parse("".join(lines[:count]))


def test_a_name_that_does_not_fit_is_refused_and_not_repeated() -> None:
    file = _file()
    [first, second] = file.batches[0].entries
    long = Entry(22, first.receiving_routing, first.account_number, 1, "Q" * 23, first.trace)
    batch = Batch(
        1, ServiceClass.CREDITS, "DURAPAY", "1123456789", SecCode.PPD, "ACCTVERIFY", "07640125", (long, second)
    )
    with pytest.raises(FieldInvalid) as refusal:
        write(NachaFile(file.destination, file.origin, file.created_at, "A", (batch,)))
    assert refusal.value.field == "individual_name"
    assert "QQ" not in str(refusal.value)


def test_an_account_number_is_in_no_representation() -> None:
    assert "000123456789" not in repr(_file())


@pytest.mark.parametrize("account_type", BankAccountType)
def test_an_entry_comes_back_under_the_code_of_its_account_and_direction(account_type: BankAccountType) -> None:
    assert not is_debit(returned_code(credit_code(account_type)))
    assert is_debit(returned_code(debit_code(account_type)))


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("C01", Correction(account_number="000987654321")),
        ("C02", Correction(routing_number="011000015")),
        ("C03", Correction("011000015", "000987654321")),
        ("C05", Correction(account_type=BankAccountType.SAVINGS)),
        ("C06", Correction(account_number="000987654321", account_type=BankAccountType.SAVINGS)),
        ("C07", Correction("011000015", "000987654321", BankAccountType.SAVINGS)),
    ],
)
def test_each_change_code_says_what_is_right_in_its_own_places(code: str, right: Correction) -> None:
    data = corrected_data(code, "011000015", "000987654321", 32)
    assert correction_of(Change(code, 1, "02100002", data)) == right


@pytest.mark.parametrize(
    ("code", "data"), [("C04", "ADA LOVELACE"), ("C05", "99"), ("C03", "011000015"), ("C13", "x"), ("C01", " ")]
)
def test_a_change_that_says_nothing_of_an_account_is_no_correction(code: str, data: str) -> None:
    assert correction_of(Change(code, 1, "02100002", data)) is None


def test_the_places_are_those_of_the_rules() -> None:
    assert corrected_data("C03", "011000015", "123456", 22) == "011000015   123456"
    assert corrected_data("C06", "011000015", "123456", 32) == "123456              32"
    assert corrected_data("C07", "011000015", "123456", 37) == "011000015123456           37"
