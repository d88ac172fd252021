from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cards import card_brand, expired, holds_card_number, luhn_check_digit, luhn_valid, masked

# The test numbers that the networks and processors publish.
PUBLISHED = {
    "4242424242424242": "visa",
    "4000056655665556": "visa",
    "4222222222222": "visa",
    "5555555555554444": "mastercard",
    "2223003122003222": "mastercard",
    "378282246310005": "amex",
    "371449635398431": "amex",
    "6011111111111117": "discover",
    "3056930009020004": "diners",
    "36227206271667": "diners",
    "3566002020360505": "jcb",
    "6200000000000005": "unionpay",
}
digits = st.text("0123456789", min_size=1, max_size=18)


@pytest.mark.parametrize(("number", "brand"), PUBLISHED.items())
def test_a_published_number_is_valid_and_belongs_to_its_network(number: str, brand: str) -> None:
    assert luhn_valid(number)
    assert card_brand(number) == brand


@pytest.mark.parametrize(("payload", "check_digit"), [("7992739871", "3"), ("0", "0"), ("1", "8"), ("1789372997", "4")])
def test_the_check_digit_is_luhns(payload: str, check_digit: str) -> None:
    assert luhn_check_digit(payload) == check_digit


def _reference(number: str) -> bool:
    """The textbook's wording: double every second digit from the right, add the digits of the products."""
    total = sum(map(int, number[-1::-2])) + sum(sum(map(int, str(2 * int(digit)))) for digit in number[-2::-2])
    return total % 10 == 0


@given(digits)
def test_exactly_one_check_digit_completes_a_number(payload: str) -> None:
    valid = [digit for digit in "0123456789" if luhn_valid(payload + digit)]
    assert valid == [luhn_check_digit(payload)]
    assert _reference(payload + valid[0])


@given(digits, st.data())
def test_one_wrong_digit_is_always_noticed(payload: str, data: st.DataObject) -> None:
    number = payload + luhn_check_digit(payload)
    position = data.draw(st.integers(0, len(number) - 1))
    wrong = data.draw(st.sampled_from("0123456789").filter(lambda digit: digit != number[position]))
    assert not luhn_valid(number[:position] + wrong + number[position + 1 :])


@pytest.mark.parametrize("number", ["", "0", "4242 4242 4242 4242", "42424242424242a2", "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "²²"])
def test_what_is_not_made_of_ascii_digits_is_not_valid(number: str) -> None:
    assert not luhn_valid(number)


@pytest.mark.parametrize(
    ("number", "brand"),
    [
        ("5100000000000000", "mastercard"),
        ("5599999999999999", "mastercard"),
        ("5099999999999999", None),
        ("5600000000000000", None),
        ("2221000000000000", "mastercard"),
        ("2220999999999999", None),
        ("2720999999999999", "mastercard"),
        ("2721000000000000", None),
        ("6440000000000000", "discover"),
        ("6439999999999999", None),
        ("3528000000000000", "jcb"),
        ("3590000000000000", None),
        ("350000000000000", None),
        ("424242424242424", None),
        ("42424242424242424", None),
        ("", None),
        ("0000000000000000", None),
    ],
)
def test_a_network_is_told_by_its_ranges_and_lengths(number: str, brand: str | None) -> None:
    assert card_brand(number) == brand


@pytest.mark.parametrize(
    ("today", "is_expired"),
    [(date(2026, 11, 30), False), (date(2026, 12, 1), True), (date(2025, 12, 31), False), (date(2027, 1, 1), True)],
)
def test_a_card_is_valid_through_the_last_day_of_its_month(today: date, is_expired: bool) -> None:
    assert expired(2026, 11, today) is is_expired


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("4242424242424242", "424242••••••4242"),
        ("378282246310005", "378282•••••0005"),
        ("4222222222222", "422222•••2222"),
    ],
)
def test_a_masked_number_shows_six_and_four_digits(number: str, shown: str) -> None:
    assert masked(number) == shown


@given(st.text("0123456789", max_size=12))
def test_what_is_too_short_for_a_card_number_is_masked_as_a_whole(number: str) -> None:
    assert masked(number) == "•" * len(number)


@pytest.mark.parametrize(
    "text",
    ["4242424242424242", "paid with 4242 4242-4242 4242, thanks", "order:378282246310005;", "x5555555555554444x"],
)
def test_a_card_number_in_a_text_is_found(text: str) -> None:
    assert holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    ["", "4242424242424241", "1732281600000", "order 42424242", "42424242424242424242424242", "9999999999999995"],
)
def test_other_numbers_in_a_text_are_no_card_numbers(text: str) -> None:
    assert not holds_card_number(text)
