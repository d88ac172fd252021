"""What a card must pass before it becomes a token, and what is given out in its place."""

from __future__ import annotations

import dataclasses
import re
import secrets
from datetime import date

import pytest

from domain.cards import card_brand, luhn_valid
from vault.cards import NewCard, checked_brand, yymm
from vault.errors import InvalidCard
from vault.numbers import TOKEN_RANGES, check_ranges, device_number, payment_account_reference

TODAY = date(2026, 11, 22)
VISA = NewCard("4242424242424242", 12, 2030, "123")


@pytest.mark.parametrize(
    ("number", "cvc", "brand"),
    [
        ("4242424242424242", None, "visa"),
        ("5555555555554444", "123", "mastercard"),
        ("378282246310005", "1234", "amex"),
        ("6011111111111117", "123", "discover"),
    ],
)
def test_a_card_of_a_known_network_is_accepted(number: str, cvc: str | None, brand: str) -> None:
    assert checked_brand(NewCard(number, 11, 2026, cvc), TODAY) == brand


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"number": "4242424242424241"}, "number", "incorrect_number"),
        ({"number": "42424242 4242 4242"}, "number", "incorrect_number"),
        ({"number": "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢"}, "number", "incorrect_number"),
        ({"number": ""}, "number", "incorrect_number"),
        ({"number": "79927398713"}, "number", "incorrect_number"),
        ({"number": "9999999999999995"}, "number", "card_not_supported"),
        ({"exp_month": 13}, "exp_month", "invalid_expiry_month"),
        ({"exp_month": 0}, "exp_month", "invalid_expiry_month"),
        ({"exp_year": 30}, "exp_year", "invalid_expiry_year"),
        ({"exp_year": 2099}, "exp_year", "invalid_expiry_year"),
        ({"exp_month": 10, "exp_year": 2026}, "exp_year", "expired_card"),
        ({"cvc": "12"}, "cvc", "invalid_cvc"),
        ({"cvc": "1234"}, "cvc", "invalid_cvc"),
        ({"cvc": "12a"}, "cvc", "invalid_cvc"),
        ({"cvc": ""}, "cvc", "invalid_cvc"),
    ],
)
def test_a_refusal_names_the_field_and_never_the_value(changes: dict[str, object], param: str, code: str) -> None:
    card = dataclasses.replace(VISA, **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidCard) as refused:
        checked_brand(card, TODAY)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert str(refused.value) == f"{param}: {code}"


def test_a_card_is_good_through_the_last_day_of_its_month() -> None:
    assert checked_brand(NewCard(VISA.number, 11, 2026), date(2026, 11, 30)) == "visa"
    with pytest.raises(InvalidCard):
        checked_brand(NewCard(VISA.number, 11, 2026), date(2026, 12, 1))


def test_a_card_shows_neither_number_nor_code() -> None:
    assert "4242" not in repr(VISA)
    assert "123" not in repr(VISA)


def test_an_expiry_travels_as_year_and_month() -> None:
    assert yymm(2030, 4) == "3004"


@pytest.mark.parametrize("brand", TOKEN_RANGES)
def test_a_device_number_keeps_brand_range_and_check_digit(brand: str) -> None:
    numbers = {device_number(brand, TOKEN_RANGES[brand], secrets.token_bytes) for _ in range(200)}
    assert all(luhn_valid(number) and card_brand(number) == brand for number in numbers)
    assert all(number.startswith(tuple(TOKEN_RANGES[brand])) for number in numbers)
    assert {len(number) for number in numbers} == {15 if brand == "amex" else 16}
    assert len(numbers) > 190


def test_a_token_range_must_be_of_its_brand() -> None:
    check_ranges(TOKEN_RANGES)
    for ranges in ({"visa": ("52044701",)}, {"visa": ()}, {"visa": ("4895 7",)}, {"visa": ("489537011234567",)}):
        with pytest.raises(ValueError):
            check_ranges(ranges)


def test_a_payment_account_reference_has_29_characters_and_is_random() -> None:
    references = {payment_account_reference(secrets.token_bytes) for _ in range(100)}
    assert len(references) == 100
    assert all(re.fullmatch("Q1DP[0-9A-Z]{25}", reference) for reference in references)
