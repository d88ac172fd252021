from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from domain.currency import Currency
from domain.money import MAX_AMOUNT_MINOR, Money
from domain.outcomes import (
    Acknowledged,
    Approved,
    AuthorizationOutcome,
    Declined,
    DoubtReason,
    NeverSent,
    ReversalOutcome,
    Reversed,
    Unknown,
)
from domain.risk import RiskSignals
from temporal.codec import ENCODING, EncryptionCodec
from temporal.converter import PayloadInvalid, StrictPayloadConverter, data_converter
from tests.unit.temporal.messages import message_types
from workflows.messages import CaptureRequest, PaymentSnapshot, RefundSnapshot, StepUpAnswer

CONVERTER = StrictPayloadConverter()
NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
KINDS = [Approved, Declined, Unknown, Reversed, NeverSent, Acknowledged]

st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(Money, st.builds(Money, st.integers(0, MAX_AMOUNT_MINOR), st.sampled_from(Currency)))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


def decoded(document: object, type_hint: Any) -> Any:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return CONVERTER.from_payloads([Payload(metadata={"encoding": b"json/plain"}, data=data)], [type_hint])[0]


def round_trip(value: object, type_hint: Any) -> Any:
    return CONVERTER.from_payloads(CONVERTER.to_payloads([value]), [type_hint])[0]


def refused(document: object, type_hint: Any) -> str:
    with pytest.raises(PayloadInvalid) as refusal:
        decoded(document, type_hint)
    assert refusal.value.__suppress_context__
    return str(refusal.value)


# -------------------------------------------------------------------------------------------------------- every message


@pytest.mark.parametrize("message", message_types())
def test_a_message_comes_back_as_it_was_sent(message: type) -> None:
    @settings(max_examples=25, database=None)
    @given(st.from_type(message))
    def holds(value: object) -> None:
        again = round_trip(value, message)
        assert again == value
        assert type(again) is message

    holds()


@pytest.mark.parametrize("message", message_types())
def test_a_message_is_frozen_and_slotted(message: Any) -> None:
    assert message.__dataclass_params__.frozen
    assert "__slots__" in vars(message)
    assert not hasattr(message, "__dict__") or "__dict__" not in dir(message)


def test_the_messages_were_found() -> None:
    assert len(message_types()) > 40


# ----------------------------------------------------------------------------------------------------------- strictness


@pytest.mark.parametrize("amount", [1.5, 1.0, True, "12", None, [12], 1e3])
def test_only_an_integer_is_decoded_as_one(amount: object) -> None:
    assert "amount_minor" in refused({"amount_minor": amount, "currency": "USD"}, Money)
    assert "amount_authorized_minor" in refused(
        {
            "payment_id": "pay_1",
            "status": "authorized",
            "amount_authorized_minor": amount,
            "amount_captured_minor": 0,
            "amount_refunded_minor": 0,
        },
        PaymentSnapshot,
    )


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT_MINOR + 1, 10**30])
def test_money_keeps_its_bounds_when_it_is_decoded(amount: int) -> None:
    refused({"amount_minor": amount, "currency": "USD"}, Money)


@pytest.mark.parametrize("currency", ["usd", "XXX", "", None, 840])
def test_money_keeps_its_currency_when_it_is_decoded(currency: object) -> None:
    assert "currency" in refused({"amount_minor": 1, "currency": currency}, Money)


@pytest.mark.parametrize("final", [1, 0, "true", "yes", None])
def test_only_true_and_false_are_decoded_as_such(final: object) -> None:
    refused({"final": final}, CaptureRequest)


@pytest.mark.parametrize("code", [123456, None, ["123456"]])
def test_a_number_is_not_decoded_as_a_text(code: object) -> None:
    refused({"code": code}, StepUpAnswer)


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"null", b'"text"', b"{'amount_minor': 1}"])
def test_what_is_no_such_document_is_refused(document: bytes) -> None:
    refused(document, Money)


def test_a_missing_field_is_refused() -> None:
    assert "currency" in refused({"amount_minor": 1}, Money)


def test_a_field_of_a_newer_build_is_ignored() -> None:
    assert decoded({"amount_minor": 1, "currency": "USD", "exchange_rate": 2}, Money) == Money(1, Currency.USD)


def test_a_field_that_an_older_build_did_not_know_gets_its_default() -> None:
    assert decoded({}, CaptureRequest) == CaptureRequest(amount_minor=None, final=True)
    assert decoded({}, RiskSignals) == RiskSignals()


def test_a_whole_message_added_to_a_signature_later_is_checked_as_deeply() -> None:
    document = {"refund_id": "re_1", "status": "pending", "money": {"amount_minor": 1.5, "currency": "USD"}}
    assert "money.amount_minor" in refused(document, RefundSnapshot)


def test_a_refusal_names_the_field_and_not_what_was_in_it() -> None:
    for document in ({"code": ["424242"]}, {"kode": "424242"}, {"code": {"424242": "424242"}}):
        message = refused(document, StepUpAnswer)
        assert "code" in message
        assert "424242" not in message


# --------------------------------------------------------------------------------------------------------------- unions


OUTCOMES = [
    Approved(1050, "123456", "632512000001", "000001", NOW),
    Declined("51", "632512000001", "000001", NOW),
    Unknown(DoubtReason.TIMEOUT),
    Unknown(DoubtReason.CONNECTION_LOST, "632512000001", "000001"),
]
REVERSALS = [Reversed(NOW), Reversed(NOW, "00"), NeverSent()]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_outcome_of_an_authorization_keeps_its_kind(outcome: object) -> None:
    assert round_trip(outcome, AuthorizationOutcome) == outcome


@pytest.mark.parametrize("outcome", REVERSALS)
def test_the_outcome_of_a_reversal_keeps_its_kind(outcome: object) -> None:
    assert round_trip(outcome, ReversalOutcome) == outcome


@pytest.mark.parametrize("union", [AuthorizationOutcome, ReversalOutcome])
def test_the_members_of_a_union_have_tags_of_their_own(union: Any) -> None:
    tags = [{field.name: field for field in dataclasses.fields(each)}["kind"].default for each in get_args(union)]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("kind", ["approved", "declined", "unknown", "reversed", "Approved", "", None, 1])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_tag_that_does_not_fit_the_fields_is_refused_and_never_guessed(outcome: Any, kind: object) -> None:
    document = json.loads(CONVERTER.to_payloads([outcome])[0].data) | {"kind": kind}
    if kind == outcome.kind:
        assert decoded(document, AuthorizationOutcome) == outcome
    else:
        refused(document, AuthorizationOutcome)


# ------------------------------------------------------------------------------------------------------------ datetimes


@pytest.mark.parametrize(
    "moment",
    [NOW, NOW.replace(microsecond=0), datetime(2026, 11, 22, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))],
)
def test_a_moment_comes_back_exactly(moment: datetime) -> None:
    again = round_trip(moment, datetime)
    assert again == moment
    assert again.utcoffset() == moment.utcoffset()


@pytest.mark.parametrize("moment", [1700000000, 1700000000.5, "22.11.2026", "2026-11-22", True])
def test_a_moment_is_written_in_full_and_nothing_else_is_one(moment: object) -> None:
    refused(moment, datetime)


# ------------------------------------------------------------------------------------------------------------- failures


@dataclass(frozen=True, slots=True)
class _Detail:
    secret: str


async def test_nothing_of_a_failure_but_its_type_is_in_clear() -> None:
    converter = data_converter(EncryptionCodec({"k1": bytes(32)}, "k1"))
    failure = Failure()
    await converter.encode_failure(_raised(), failure)
    assert failure.message == failure.cause.message == "Encoded failure"
    assert failure.stack_trace == failure.cause.stack_trace == ""
    assert failure.encoded_attributes.metadata["encoding"] == ENCODING
    assert failure.application_failure_info.type == "CardRefused"
    wire = failure.SerializeToString()
    for secret in (b"the outer word", b"the inner word", b"the detail", b"_raised", b"ValueError("):
        assert secret not in wire


async def test_a_failure_is_readable_again_for_whoever_has_the_key() -> None:
    converter = data_converter(EncryptionCodec({"k1": bytes(32)}, "k1"))
    failure = Failure()
    await converter.encode_failure(_raised(), failure)
    again = await converter.decode_failure(failure)
    assert isinstance(again, ApplicationError)
    assert (again.message, again.type, str(again.__cause__)) == (
        "the outer word",
        "CardRefused",
        "ValueError: the inner word",
    )


def _raised() -> ApplicationError:
    try:
        try:
            raise ValueError("the inner word")
        except ValueError as error:
            raise ApplicationError("the outer word", _Detail("the detail"), type="CardRefused") from error
    except ApplicationError as error:
        return error


async def test_a_payload_that_is_not_encrypted_does_not_reach_the_converter() -> None:
    converter = data_converter(EncryptionCodec({"k1": bytes(32)}, "k1"))
    plain = CONVERTER.to_payloads([Money(1, Currency.USD)])
    with pytest.raises(Exception, match="not encrypted"):
        await converter.decode(plain, [Money])
