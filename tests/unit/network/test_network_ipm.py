"""The clearing file's layout: what is written is read again, and whatever was changed on the way is refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from cardutil import mciipm
from hypothesis import given
from hypothesis import strategies as st

from domain.clearing import ClearingKind, ClearingRecord, ClearingTotal
from domain.currency import Currency
from domain.money import MAX_AMOUNT_MINOR, Money
from network import ipm
from network.ipm import Acceptor, Entry, IpmInvalid, Reader, unblocked

DAY = date(2025, 10, 21)
AT = datetime(2025, 10, 21, 14, 30, 5, tzinfo=UTC)
ACCEPTOR = Acceptor("424242******4242", "5411", "shop_1", "Corner Shop            Springfield    US")
PRESENTMENT = ClearingRecord(
    DAY,
    2,
    ClearingKind.PRESENTMENT,
    Money(1050, Currency.USD),
    AT,
    rrn="529414000042",
    stan="000042",
    approval_code="123456",
    arn="74001235294000042000019",
)
CHARGEBACK = replace(
    PRESENTMENT,
    kind=ClearingKind.CHARGEBACK,
    stan=None,
    arn=None,
    approval_code=None,
    reason_code="10.4",
    chargeback_id="0123456789",
)
FEE = ClearingRecord(DAY, 2, ClearingKind.FEE, Money(29, Currency.USD), AT, reason_code=ipm.INTERCHANGE)
RETURNED = replace(PRESENTMENT, kind=ClearingKind.REFUND_RETURNED, reason_code=ipm.RETURNED_BY_ISSUER)
TAKEN_BACK = [
    replace(PRESENTMENT, kind=kind, reason_code=ipm.REVERSED_BY_ACQUIRER)
    for kind in (ClearingKind.PRESENTMENT_REVERSAL, ClearingKind.REFUND_REVERSAL)
]
ONE_OF_EACH = [
    PRESENTMENT,
    replace(PRESENTMENT, kind=ClearingKind.REFUND),
    *TAKEN_BACK,
    RETURNED,
    CHARGEBACK,
    replace(CHARGEBACK, kind=ClearingKind.CHARGEBACK_REVERSAL),
    FEE,
]


def written(records: Sequence[ClearingRecord], day: date = DAY) -> bytes:
    file = io.BytesIO()
    ipm.write(file, day, "99", [Entry(record, "400123", ACCEPTOR) for record in records])
    return file.getvalue()


def raw_records(file: bytes) -> list[bytes]:
    return list(unblocked(io.BytesIO(file)))


def read(file: bytes, day: date = DAY) -> tuple[list[ClearingRecord], tuple[ClearingTotal, ...]]:
    reader = Reader(day)
    records = [record for raw in raw_records(file) if (record := reader.take(raw)) is not None]
    return records, reader.totals()


def rewritten(records: Sequence[bytes]) -> bytes:
    file = io.BytesIO()
    with mciipm.VbsWriter(file, blocked=True) as writer:
        writer.write_many(records)
    return file.getvalue()


def test_one_record_of_each_kind_is_read_as_it_was_written() -> None:
    records, totals = read(written(ONE_OF_EACH))
    assert records == [replace(record, line=line) for line, record in enumerate(ONE_OF_EACH, start=2)]
    assert totals == (ClearingTotal(Currency.USD, 8, owed_to_us_minor=4 * 1050, owed_by_us_minor=3 * 1050 + 29),)
    assert totals[0].net_minor == 1050 - 29


def test_an_empty_day_has_a_file_too() -> None:
    assert read(written([])) == ([], ())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ONE_OF_EACH),
            st.integers(0, MAX_AMOUNT_MINOR),
            st.sampled_from([Currency.USD, Currency.JPY, Currency.KWD, Currency.EUR]),
        ),
        max_size=25,
    )
)
def test_any_records_are_read_as_they_were_written(chosen: list[tuple[ClearingRecord, int, Currency]]) -> None:
    records = [
        replace(record, money=Money(amount, currency), line=line)
        for line, (record, amount, currency) in enumerate(chosen, start=2)
    ]
    again, totals = read(written(records))
    assert again == records
    for total in totals:
        of_currency = [record for record in records if record.money.currency is total.currency]
        assert total.records == len(of_currency)
        signed = [record.money.amount_minor * (1 if record.kind.owed_to_us else -1) for record in of_currency]
        assert total.net_minor == sum(signed)


def test_the_library_reads_the_file_as_it_is_blocked() -> None:
    file = written([PRESENTMENT] * 30)
    assert len(file) % ipm.BLOCK_BYTES == 0
    messages = list(mciipm.IpmReader(io.BytesIO(file), blocked=True, encoding="ascii"))
    assert [message["MTI"] for message in messages] == ["1644", *["1240"] * 30, "1644", "1644"]
    assert messages[1]["DE37"] == PRESENTMENT.rrn
    assert messages[1]["DE4"] == 1050
    assert messages[-1]["PDS0306"] == "00000033"


def test_the_card_number_is_masked_and_a_clear_one_is_neither_written_nor_read() -> None:
    assert b"424242******4242" in written([PRESENTMENT])
    with pytest.raises(IpmInvalid) as refused:
        ipm.encode({"MTI": "1240", "DE2": "4242424242424242"})
    assert "4242" not in str(refused.value)
    clear = raw_records(written([PRESENTMENT]))[1].replace(b"424242******4242", b"4242424242424242")
    with pytest.raises(IpmInvalid):
        ipm.decode(clear)


def test_a_chargeback_of_a_part_says_so() -> None:
    file = io.BytesIO()
    ipm.write(file, DAY, "99", [Entry(CHARGEBACK, "400123", ACCEPTOR, partial=partial) for partial in (False, True)])
    functions = [ipm.decode(raw)["DE24"] for raw in raw_records(file.getvalue())[1:3]]
    assert functions == ["450", "453"]


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records[1:],
        lambda records: records[:-1],
        lambda records: [records[0], *records[2:]],
        lambda records: [*records[:2], records[1], *records[2:]],
        lambda records: [*records[:-2], records[-1]],
        lambda records: [*records[:-2], records[-2], records[-2], records[-1]],
        lambda records: [*records, records[-1]],
        lambda records: [records[0], records[-1]],
        lambda records: [records[0], *records[:-1], records[-1]],
        lambda records: [],
        lambda records: [*records[:1], records[1].replace(b"000000001050", b"000000001051"), *records[2:]],
        lambda records: [*records[:1], records[1].replace(b"840", b"978"), *records[2:]],
        lambda records: [*records[:1], records[1].replace(b"000000001050", b"+00000001050"), *records[2:]],
        lambda records: [*records[:1], records[1] + b" ", *records[2:]],
        lambda records: [*records[:1], records[1][:-1], *records[2:]],
        lambda records: [*records[:1], records[1].replace(b"1240", b"1644", 1), *records[2:]],
        lambda records: [*records[:1], records[1].replace(b"1240", b"9999", 1), *records[2:]],
    ],
    ids=[
        "no header",
        "no trailer",
        "a record lost",
        "a record twice",
        "a position lost",
        "a position twice",
        "a trailer twice",
        "all records lost",
        "a header twice",
        "nothing",
        "another amount",
        "another currency",
        "a sign",
        "a trailing byte",
        "a byte lost",
        "a record about the file",
        "an unknown message",
    ],
)
def test_a_file_that_is_not_whole_is_refused(change: Callable[[list[bytes]], list[bytes]]) -> None:
    records = raw_records(written([PRESENTMENT, replace(PRESENTMENT, stan="000043")]))
    with pytest.raises(IpmInvalid):
        read(rewritten(change(records)))


def test_another_days_file_is_refused() -> None:
    with pytest.raises(IpmInvalid):
        read(written([PRESENTMENT]), date(2025, 10, 22))


def test_a_record_after_the_positions_is_refused() -> None:
    records = raw_records(written([PRESENTMENT]))
    late = records[1].replace(b"00000002", b"00000004")
    with pytest.raises(IpmInvalid, match="follows the positions"):
        read(rewritten([*records[:3], late, records[3]]))


@pytest.mark.parametrize("count", [1013, 1, -1], ids=["a block cut short", "a byte", "all but a byte"])
def test_a_truncated_file_is_refused(count: int) -> None:
    with pytest.raises(IpmInvalid):
        read(written([PRESENTMENT] * 20)[:count])


def test_what_follows_the_end_is_refused() -> None:
    file = written([PRESENTMENT])
    with pytest.raises(IpmInvalid, match="follows the end"):
        read(file + file)


def test_blocks_that_are_not_filled_up_are_refused() -> None:
    file = bytearray(written([PRESENTMENT] * 20))
    file[1012] = 0
    with pytest.raises(IpmInvalid, match="block"):
        read(bytes(file))


def test_a_record_of_absurd_length_is_refused_before_it_is_read() -> None:
    file = bytearray(written([PRESENTMENT]))
    file[0:4] = b"\x7f\xff\xff\xff"
    with pytest.raises(IpmInvalid, match="longer"):
        read(bytes(file))


@given(st.data())
def test_a_damaged_file_is_refused_with_the_typed_error(data: st.DataObject) -> None:
    file = bytearray(written(ONE_OF_EACH))
    position = data.draw(st.integers(0, len(file) - 1))
    file[position] ^= data.draw(st.integers(1, 255))
    try:
        records, _ = read(bytes(file))
    except IpmInvalid:
        return
    # A changed number or name is nothing that sums can show; amounts, currencies and kinds are.
    assert [(record.money, record.kind.owed_to_us) for record in records] == [
        (record.money, record.kind.owed_to_us) for record in ONE_OF_EACH
    ]


@given(st.binary(max_size=3 * ipm.BLOCK_BYTES))
def test_any_bytes_are_refused_with_the_typed_error(content: bytes) -> None:
    with pytest.raises(IpmInvalid):
        read(content)


@pytest.mark.parametrize("text", ["0025-07", "0025000", "0025007R25102", "00250", "0025007R2510210025007R251021"])
def test_malformed_private_elements_are_refused(text: str) -> None:
    from cardutil import iso8583

    raw = iso8583.dumps({"MTI": "1644", "DE24": "697", "DE71": "00000001", "DE48": text}, iso_config=ipm._READING)
    with pytest.raises(IpmInvalid):
        ipm.decode(raw)
