from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.currency import Currency
from domain.money import MAX_AMOUNT_MINOR, Money

amounts = st.integers(0, MAX_AMOUNT_MINOR)


@pytest.mark.parametrize("amount", [1.0, 10.5, True, "12", None, 1 + 0j])
def test_only_an_integer_is_an_amount(amount: Any) -> None:
    with pytest.raises(TypeError):
        Money(amount, Currency.USD)


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT_MINOR + 1])
def test_an_amount_has_at_most_twelve_digits_and_no_sign(amount: int) -> None:
    with pytest.raises(ValueError):
        Money(amount, Currency.USD)


@pytest.mark.parametrize("currency", ["USD", "usd", None, 840])
def test_a_currency_is_never_just_a_text(currency: Any) -> None:
    with pytest.raises(TypeError):
        Money(1, currency)


def test_the_largest_amount_fills_de4() -> None:
    assert len(str(Money(MAX_AMOUNT_MINOR, Currency.USD).amount_minor)) == 12


@given(amounts, amounts)
def test_sums_and_differences_are_exact_or_refused(first: int, second: int) -> None:
    for result, calculate in ((first + second, Money.__add__), (first - second, Money.__sub__)):
        if 0 <= result <= MAX_AMOUNT_MINOR:
            assert calculate(Money(first, Currency.EUR), Money(second, Currency.EUR)) == Money(result, Currency.EUR)
        else:
            with pytest.raises(ValueError):
                calculate(Money(first, Currency.EUR), Money(second, Currency.EUR))


def test_amounts_of_different_currencies_do_not_meet() -> None:
    dollars, yen = Money(100, Currency.USD), Money(100, Currency.JPY)
    assert dollars != yen
    with pytest.raises(ValueError, match="currency mismatch"):
        dollars + yen
    with pytest.raises(ValueError, match="currency mismatch"):
        dollars - yen


def test_amounts_have_no_order_because_currencies_have_none() -> None:
    with pytest.raises(TypeError):
        _ = Money(1, Currency.USD) < Money(2, Currency.USD)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (1050, Currency.USD, "10.50 USD"),
        (5, Currency.USD, "0.05 USD"),
        (0, Currency.EUR, "0.00 EUR"),
        (1050, Currency.JPY, "1050 JPY"),
        (1050, Currency.KWD, "1.050 KWD"),
        (7, Currency.KWD, "0.007 KWD"),
        (MAX_AMOUNT_MINOR, Currency.USD, "9999999999.99 USD"),
    ],
)
def test_an_amount_is_shown_with_the_digits_of_its_currency(amount: int, currency: Currency, shown: str) -> None:
    assert str(Money(amount, currency)) == shown
