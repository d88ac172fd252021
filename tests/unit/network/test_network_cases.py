"""What is said of disputes on the wire is understood as it was meant, or refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.currency import Currency
from domain.disputes import DisputeKind, NoticeStage
from domain.merchants import Merchant
from domain.money import MAX_AMOUNT_MINOR, Money
from network import cases, messages
from network.cases import CaseAnswer, CaseNotice
from network.codec import Message, decode, encode
from network.errors import MessageInvalid
from network.messages import Acceptor, Purchase, Trace

TODAY = date(2025, 10, 21)
ISSUED = datetime(2025, 10, 21, 14, 30, tzinfo=UTC)
TRACE = Trace("1021143000", "000007", "400123", "529414000042")
PURCHASE = Purchase(
    TRACE, Money(1050, Currency.USD), Acceptor.of(Merchant("shop_1", "Corner Shop", "5411"), "00000001")
)
OPENED = CaseNotice(
    "0123456789",
    DisputeKind.CHARGEBACK,
    NoticeStage.OPENED,
    TRACE.rrn,
    Money(1050, Currency.USD),
    "10.4",
    ISSUED,
    ISSUED + timedelta(days=30),
    TODAY,
)
NOTICES = [
    OPENED,
    replace(OPENED, stage=NoticeStage.WON, respond_by=None),
    replace(OPENED, stage=NoticeStage.LOST, respond_by=None, settlement_date=None),
    replace(OPENED, kind=DisputeKind.INQUIRY, reason_code="30", settlement_date=None),
    replace(OPENED, kind=DisputeKind.INQUIRY, stage=NoticeStage.WON, settlement_date=None, respond_by=None),
]


@given(
    st.sampled_from(NOTICES),
    st.integers(1, MAX_AMOUNT_MINOR),
    st.sampled_from(Currency),
    st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
def test_a_notice_is_understood_as_it_was_meant(
    case: CaseNotice, amount_minor: int, currency: Currency, issued_at: datetime
) -> None:
    meant = replace(case, money=Money(amount_minor, currency), issued_at=issued_at)
    for repeat in (False, True):
        message = decode(encode(cases.notice(meant, TRACE, repeat=repeat)))
        assert message.mti == ("0621" if repeat else "0620")
        assert cases.is_about_case(message)
        assert cases.parse_notice(message, TODAY) == meant


@given(st.sampled_from([None, "ab" * 32]), st.integers(0, 99), st.text(st.characters(codec="ascii"), max_size=120))
def test_an_answer_is_understood_as_it_was_meant(digest: str | None, documents: int, statement: str) -> None:
    given_answer = CaseAnswer("0123456789", digest, documents, statement)
    understood = cases.parse_answer(decode(encode(cases.answer(PURCHASE, given_answer))))
    if digest is None:
        assert understood == CaseAnswer("0123456789")
    else:
        assert understood == replace(given_answer, statement=messages.ascii_text(statement, 90))


def test_an_answer_never_carries_a_card_number() -> None:
    message = cases.answer(PURCHASE, CaseAnswer("1", "ab" * 32, 1))
    assert 2 not in message.fields
    assert message.get(37) == TRACE.rrn


def _with(**changes: str | None) -> Message:
    whole = cases.notice(OPENED, TRACE)
    fields = {**whole.fields, **{int(name[2:]): value for name, value in changes.items() if value is not None}}
    for name, value in changes.items():
        if value is None:
            del fields[int(name[2:])]
    return Message(whole.mti, fields)


@pytest.mark.parametrize(
    "message",
    [
        _with(de124=None),
        _with(de15=None),
        _with(de4=None),
        _with(de4="0" * 12),
        _with(de49="000"),
        _with(de124="0110012345678902010" + "0301C"),
        cases.notice(replace(OPENED, chargeback_id="way too long"), TRACE),
        cases.notice(replace(OPENED, reason_code="fraud"), TRACE),
        cases.notice(replace(OPENED, stage=NoticeStage.LOST), TRACE),
    ],
    ids=["no data", "no day", "no amount", "of nothing", "no currency", "no stage", "case", "reason", "day of a loss"],
)
def test_a_notice_that_makes_no_sense_is_refused(message: Message) -> None:
    with pytest.raises(MessageInvalid):
        cases.parse_notice(message, TODAY)


def test_half_a_time_is_no_time() -> None:
    whole = cases.notice(OPENED, TRACE)
    data = whole.get(124).replace("051420251021143000", "05122025102114300"[:16])
    with pytest.raises(MessageInvalid):
        cases.parse_notice(Message(whole.mti, {**whole.fields, 124: data}), TODAY)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_any_data_is_understood_or_refused_with_the_typed_error(data: str) -> None:
    message = _with(de124=data)
    with contextlib.suppress(MessageInvalid):
        cases.parse_notice(message, TODAY)
    with contextlib.suppress(MessageInvalid):
        cases.parse_answer(message)


def test_a_sub_field_that_does_not_fit_is_refused() -> None:
    with pytest.raises(MessageInvalid):
        messages.subfields({"01": "x" * 100})
