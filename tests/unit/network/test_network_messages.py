from __future__ import annotations

import contextlib
import string
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.currency import Currency
from domain.merchants import Merchant
from domain.money import MAX_AMOUNT_MINOR, Money
from network import messages, tlv
from network.codec import _LAYOUT, _MANDATORY, Message, decode, encode
from network.errors import MessageInvalid
from network.framing import MAX_FRAME_BYTES
from network.messages import Acceptor, Authentication, Card, Original, Purchase, Trace

TRACE = Trace("1021143000", "000042", "400123", "529414000042")
ACCEPTOR = Acceptor.of(Merchant("shop_1", "Zoë's Café", "5812", "Zürich", "CH"), "00000001")
PURCHASE = Purchase(TRACE, Money(1050, Currency.USD), ACCEPTOR)
CARD = Card("4895370012345676", "2912", "01")
ORIGINAL = Original("0100", "000041", "1021142959", "400123")
AUTHENTICATION = Authentication(
    cryptogram="7A788EA6B8A3E733",
    atc="001C",
    unpredictable_number="52BF4585",
    iad="06011203A0B800",
    aip="1800",
    tvr="8000048000",
    transaction_date="251021",
    transaction_type="00",
    terminal_country="0756",
    amount_other="000000000000",
    cvv="123",
)

_ALPHABETS = {
    "n": string.digits,
    "an": string.ascii_letters + string.digits + " ",
    "ans": "".join(map(chr, range(0x20, 0x7F))),
    "z": string.digits + "=D",
}


def _values(number: int) -> st.SearchStrategy[str]:
    format_, prefix, length, _ = _LAYOUT[number]
    least = 1 if prefix else length
    if format_ == "b":
        return st.binary(min_size=least, max_size=length).map(lambda raw: raw.hex().upper())
    return st.text(_ALPHABETS[format_], min_size=least, max_size=length)


@st.composite
def any_message(draw: st.DrawFn) -> Message:
    mti = draw(st.sampled_from(sorted(_MANDATORY)))
    more = draw(st.sets(st.sampled_from(sorted(_LAYOUT))))
    return Message(mti, {number: draw(_values(number)) for number in sorted(_MANDATORY[mti] | more)})


@given(any_message())
def test_what_was_encoded_is_decoded_again(message: Message) -> None:
    decoded = decode(encode(message))
    assert (decoded.mti, decoded.fields) == (message.mti, message.fields)


@given(st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused_with_the_typed_error(raw: bytes) -> None:
    with contextlib.suppress(MessageInvalid):
        decode(raw)


@given(any_message(), st.data())
def test_a_damaged_message_never_raises_anything_but_the_typed_error(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(raw)))
    with contextlib.suppress(MessageInvalid):
        decode(bytes(raw[:cut]))


def test_the_longest_possible_message_fits_into_a_frame() -> None:
    longest = sum(prefix + length for _, prefix, length, _ in _LAYOUT.values()) + 4 + 16
    assert longest <= MAX_FRAME_BYTES


@pytest.mark.parametrize(
    ("number", "value"),
    [(4, "00000000105A"), (4, "١" * 12), (11, "42"), (2, "4" * 20), (37, "52941400004é"), (43, "\n" * 40), (55, "9")],
    ids=["letter", "other digits", "short", "long", "accent", "control character", "half a byte"],
)
def test_a_field_out_of_its_format_is_not_encoded(number: int, value: str) -> None:
    message = messages.authorization(PURCHASE, CARD, None)
    with pytest.raises(MessageInvalid) as refused:
        encode(Message(message.mti, {**message.fields, number: value}))
    assert refused.value.field == number
    assert value not in str(refused.value)


def test_letters_in_a_numeric_field_are_refused_on_arrival() -> None:
    raw = encode(messages.authorization(PURCHASE, CARD, None)).replace(b"000000001050", b"0000000010A0")
    with pytest.raises(MessageInvalid) as refused:
        decode(raw)
    assert refused.value.field == 4


def test_unknown_message_types_and_fields_are_refused() -> None:
    request = messages.network_management(messages.ECHO, "000001", "1021143000")
    with pytest.raises(MessageInvalid):
        encode(Message("0600", request.fields))
    with pytest.raises(MessageInvalid):
        encode(Message("0800", {**request.fields, 64: "00"}))
    unknown_field = bytearray(encode(request))
    unknown_field[4 + 7] |= 0x01  # DE64 in the primary bitmap
    with pytest.raises(MessageInvalid):
        decode(bytes(unknown_field))


def test_a_message_shows_no_field_in_its_repr() -> None:
    message = messages.authorization(PURCHASE, CARD, AUTHENTICATION)
    for shown in (repr(message), repr(CARD), repr(AUTHENTICATION)):
        assert CARD.dpan not in shown
        assert AUTHENTICATION.cryptogram not in shown


def test_an_authorization_carries_the_token_its_chip_data_and_the_security_code() -> None:
    message = decode(encode(messages.authorization(PURCHASE, CARD, AUTHENTICATION)))
    assert message.mti == "0100"
    assert (message.get(2), message.get(14), message.get(23)) == (CARD.dpan, "2912", "001")
    assert (message.get(3), message.get(4), message.get(49)) == ("000000", "000000001050", "840")
    assert (message.get(12), message.get(13)) == ("143000", "1021")
    assert message.get(43) == "Zoe's Cafe             Zurich         CH"
    chip_data = tlv.parse(bytes.fromhex(message.get(55)))
    assert chip_data["9F26"].hex().upper() == AUTHENTICATION.cryptogram
    assert chip_data["9F02"].hex() == message.get(4)
    assert chip_data["5F2A"].hex() == "0840"
    assert messages.cvv(message) == "123"


def test_a_repeat_differs_from_its_first_sending_in_the_type_alone() -> None:
    first = messages.authorization(PURCHASE, CARD, AUTHENTICATION)
    again = messages.authorization(PURCHASE, CARD, AUTHENTICATION, repeat=True)
    assert again.mti == "0101"
    assert again.fields == first.fields
    assert messages.request_key(again) == messages.request_key(first)


def test_a_reversal_names_its_original() -> None:
    message = decode(encode(messages.reversal(PURCHASE, CARD, ORIGINAL, "")))
    assert message.get(90) == "0100" + "000041" + "1021142959" + "00000400123" + "0" * 11
    assert Original.of(message) == ORIGINAL
    assert 38 not in message.fields


def test_the_reversal_of_a_refund_has_the_refunds_processing_code() -> None:
    refund = Original("0200", "000041", "1021142959", "400123")
    assert messages.reversal(PURCHASE, CARD, refund, "", of_refund=True).get(3) == "200000"
    assert messages.refund(PURCHASE, CARD, ORIGINAL).get(3) == "200000"
    sale = Original("0200", "000041", "1021142959", "400123")
    assert messages.reversal(PURCHASE, CARD, sale, "").get(3) == "000000"
    assert messages.reversal(PURCHASE, CARD, ORIGINAL, "").get(3) == "000000"


def test_a_sale_is_an_authorization_in_a_financial_request() -> None:
    sale = decode(encode(messages.sale(PURCHASE, CARD, AUTHENTICATION)))
    assert (sale.mti, messages.is_refund(sale)) == ("0200", False)
    assert sale.fields == messages.authorization(PURCHASE, CARD, AUTHENTICATION).fields
    assert messages.sale(PURCHASE, CARD, AUTHENTICATION, repeat=True).mti == "0201"


@pytest.mark.parametrize(
    ("today", "named", "expected"),
    [
        (date(2026, 1, 1), "1231", date(2025, 12, 31)),
        (date(2025, 12, 31), "0101", date(2026, 1, 1)),
        (date(2028, 3, 1), "0229", date(2028, 2, 29)),
        (date(2027, 3, 1), "0229", date(2028, 2, 29)),
        (date(2026, 3, 1), "0229", None),
        (date(2026, 3, 1), "1399", None),
        (date(2026, 3, 1), None, None),
    ],
)
def test_a_settlement_date_gets_the_year_next_to_today(today: date, named: str | None, expected: date | None) -> None:
    answered = Message("0210", {} if named is None else {15: named})
    assert messages.settlement_date(answered, today) == expected


@pytest.mark.parametrize("final", [True, False])
def test_a_capture_says_whether_it_is_the_last_one(final: bool) -> None:
    message = decode(encode(messages.capture(PURCHASE, CARD, ORIGINAL, "", final=final)))
    assert messages.is_final(message) is final
    assert not messages.is_final(
        Message(message.mti, {key: message.fields[key] for key in message.fields if key != 60})
    )


def test_a_provisioning_advice_carries_both_numbers() -> None:
    message = decode(encode(messages.provisioning(TRACE, CARD, "4242424242424242")))
    assert message.mti == "0620"
    assert message.get(2) == CARD.dpan
    assert messages.token_pan(message) == "4242424242424242"


@given(st.integers(0, MAX_AMOUNT_MINOR), st.sampled_from(Currency))
def test_amounts_of_every_currency_come_back(amount_minor: int, currency: Currency) -> None:
    money = Money(amount_minor, currency)
    message = messages.capture(Purchase(TRACE, money, ACCEPTOR), CARD, ORIGINAL, "123456", final=True)
    assert messages.amount(decode(encode(message))) == money


@given(st.text(max_size=40), st.text(max_size=30))
def test_any_merchant_name_and_city_can_be_sent(name: str, city: str) -> None:
    acceptor = Acceptor.of(Merchant("m", name, "5411", city, "US"), "1")
    encode(messages.authorization(Purchase(TRACE, Money(1, Currency.EUR), acceptor), CARD, None))


@pytest.mark.parametrize(
    "merchant",
    [Merchant("", "n", "5411"), Merchant("m" * 16, "n", "5411"), Merchant("m", "n", "5411", country="USA")],
    ids=["no id", "long id", "country of three letters"],
)
def test_a_merchant_that_cannot_be_named_is_refused(merchant: Merchant) -> None:
    with pytest.raises(MessageInvalid):
        Acceptor.of(merchant, "1")


def test_an_answer_never_repeats_the_card_number() -> None:
    answered = messages.answer(messages.authorization(PURCHASE, CARD, AUTHENTICATION), "00", {38: "123456"})
    assert 2 not in answered.fields
    assert 55 not in answered.fields
    assert messages.answer_key(decode(encode(answered))) == ("0110", "000042", "1021143000", "400123")


@pytest.mark.parametrize("number", [4, 37, 49])
def test_an_approval_of_another_amount_rrn_or_currency_is_told_apart(number: int) -> None:
    request = messages.authorization(PURCHASE, CARD, None)
    answered = messages.answer(request, "00")
    assert messages.difference(request, answered) is None
    other = Message(answered.mti, {**answered.fields, number: "9" * len(answered.get(number))})
    assert messages.difference(request, other) == number
    without = Message(answered.mti, {key: value for key, value in answered.fields.items() if key != number})
    assert messages.difference(request, without) == number


def test_an_acknowledgement_may_leave_out_what_it_echoes() -> None:
    request = messages.capture(PURCHASE, CARD, ORIGINAL, "", final=True)
    bare = Message("0230", {**{key: request.fields[key] for key in (7, 11, 32)}, 39: "00"})
    assert messages.difference(request, bare) is None


@pytest.mark.parametrize("content", ["0116424242", "01XX42", "0", "0102aa", "0102120102"])
def test_malformed_token_data_is_refused(content: str) -> None:
    message = Message("0620", {123: content})
    with pytest.raises(MessageInvalid):
        messages.token_pan(message)


def test_authentication_data_that_is_not_hexadecimal_is_refused_without_showing_it() -> None:
    with pytest.raises(MessageInvalid) as refused:
        messages.authorization(PURCHASE, CARD, replace(AUTHENTICATION, cryptogram="secret"))
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
