"""Routing and account numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.bank_accounts import account_number_valid, routing_check_digit, routing_number_valid


# Published by JPMorgan Chase, Bank of America, Wells Fargo, and the Federal Reserve Bank of Boston.
@pytest.mark.parametrize("number", ["021000021", "026009593", "121000248", "011000015"])
def test_routing_numbers_of_banks_are_valid(number: str) -> None:
    assert routing_number_valid(number)


@pytest.mark.parametrize("number", ["", "021000022", "02100002", "0210000210", "02100002x", "５21000021", "000000000"])
def test_what_is_no_routing_number_is_refused(number: str) -> None:
    assert not routing_number_valid(number)


def test_districts_that_the_aba_does_not_assign_are_refused() -> None:
    for district in (0, 13, 20, 33, 60, 73, 80, 99):
        first_eight = f"{district:02d}100002"
        assert not routing_number_valid(first_eight + routing_check_digit(first_eight))


@given(st.integers(0, 8), st.integers(1, 9))
def test_every_wrong_digit_is_found(place: int, by: int) -> None:
    number = "021000021"
    wrong = number[:place] + str((int(number[place]) + by) % 10) + number[place + 1 :]
    assert not routing_number_valid(wrong)


@pytest.mark.parametrize(
    ("number", "valid"), [("1234", True), ("123", False), ("1" * 17, True), ("1" * 18, False), ("12 34", False)]
)
def test_an_account_number_has_4_to_17_digits(number: str, valid: bool) -> None:
    assert account_number_valid(number) is valid
