"""No text that leaves for a vendor can hold a card number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cards import luhn_check_digit
from notify.card_numbers import refuse_card_numbers
from notify.errors import CardNumberRefused
from notify.messages import Kind, Notification

_FACTS = {"amount": "10.50 USD", "merchant": "Blue Bottle", "last4": "4242"}


@pytest.mark.parametrize(
    "value",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "pay with 378282246310005, thanks",
        "４２４２４２４２４２４２４２４２",  # full-width digits
        "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",  # Arabic-Indic digits
        "4242\u200b4242\u200b4242\u200b4242",  # zero-width spaces
        "4242\u00a04242\u00a04242\u00a04242",  # no-break spaces
        "ref 00042424242424242429999999999",  # inside a longer run
    ],
)
def test_a_fact_that_holds_a_card_number_is_refused(value: str) -> None:
    with pytest.raises(CardNumberRefused) as refused:
        Notification("pay_1:notify:authorized", "usr_1", Kind.PAYMENT_AUTHORIZED, {**_FACTS, "merchant": value})
    assert refused.value.fact == "merchant"
    assert value not in str(refused.value)


@given(st.text("0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "-", "."]))
def test_every_number_with_a_luhn_check_digit_is_refused_however_it_is_grouped(payload: str, separator: str) -> None:
    number = payload + luhn_check_digit(payload)
    grouped = separator.join(number[start : start + 4] for start in range(0, len(number), 4))
    with pytest.raises(CardNumberRefused):
        refuse_card_numbers({"merchant": f"to {grouped}!"})


@pytest.mark.parametrize(
    "value",
    [
        "4242",
        "424242••••••4242",
        "1,234,567.89 USD",
        "999999999999 KRW",
        "+1 500 555 0006",
        "4242424242424241",
        "123456",
    ],
)
def test_amounts_masked_numbers_phone_numbers_and_codes_pass(value: str) -> None:
    refuse_card_numbers({"merchant": value})
