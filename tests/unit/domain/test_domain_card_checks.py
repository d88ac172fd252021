"""What the networks' letters mean for a security code and an address."""

from __future__ import annotations

import pytest

from domain.card_checks import CardChecks, CheckResult, card_checks

PASS, FAIL, UNAVAILABLE, UNCHECKED = CheckResult


@pytest.mark.parametrize(
    ("letter", "line1", "postal_code"),
    [
        ("Y", PASS, PASS),
        ("X", PASS, PASS),
        ("D", PASS, PASS),
        ("M", PASS, PASS),
        ("F", PASS, PASS),
        ("A", PASS, FAIL),
        ("B", PASS, UNAVAILABLE),
        ("Z", FAIL, PASS),
        ("W", FAIL, PASS),
        ("P", UNAVAILABLE, PASS),
        ("N", FAIL, FAIL),
        *((letter, UNAVAILABLE, UNAVAILABLE) for letter in ("U", "R", "S", "G", "I", "C", "?", None)),
    ],
)
def test_an_address_result_speaks_of_street_and_postal_code(
    letter: str | None, line1: CheckResult, postal_code: CheckResult
) -> None:
    found = card_checks(letter, None, code=False, line1=True, postal_code=True)
    assert found == CardChecks(UNCHECKED, line1, postal_code)


@pytest.mark.parametrize(
    ("letter", "cvc"), [("M", PASS), ("N", FAIL), ("P", UNAVAILABLE), ("S", UNAVAILABLE), (None, UNAVAILABLE)]
)
def test_a_code_matches_or_not_or_nobody_says(letter: str | None, cvc: CheckResult) -> None:
    assert card_checks(None, letter, code=True, line1=False, postal_code=False) == CardChecks(cvc)


def test_what_was_not_sent_did_not_fail() -> None:
    assert card_checks("Z", None, code=False, line1=False, postal_code=True) == CardChecks(postal_code=PASS)
    assert card_checks("A", None, code=False, line1=True, postal_code=False) == CardChecks(address_line1=PASS)
    assert card_checks("Y", "M", code=False, line1=False, postal_code=False) is None
