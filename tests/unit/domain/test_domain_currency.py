"""Spot checks against ISO 4217 list one, and the rules that the whole table keeps."""

from __future__ import annotations

import re
from typing import Any

import pytest

from domain.countries import NUMERIC_BY_ALPHA_2
from domain.currency import Currency

# To a type checker, the constructor of this enumeration wants a whole line of the table.
by_code: Any = Currency


@pytest.mark.parametrize(
    ("currency", "code", "numeric", "exponent"),
    [
        (Currency.USD, "USD", "840", 2),
        (Currency.EUR, "EUR", "978", 2),
        (Currency.JPY, "JPY", "392", 0),
        (Currency.KRW, "KRW", "410", 0),
        (Currency.CLP, "CLP", "152", 0),
        (Currency.VND, "VND", "704", 0),
        (Currency.XOF, "XOF", "952", 0),
        (Currency.KWD, "KWD", "414", 3),
        (Currency.BHD, "BHD", "048", 3),
        (Currency.TND, "TND", "788", 3),
        (Currency.ALL, "ALL", "008", 2),
        (Currency.HUF, "HUF", "348", 2),
    ],
)
def test_a_currency_is_as_iso_4217_has_it(currency: Currency, code: str, numeric: str, exponent: int) -> None:
    assert (currency.value, currency.numeric, currency.exponent) == (code, numeric, exponent)


def test_a_currency_travels_as_its_code() -> None:
    assert by_code("JPY") is Currency.JPY
    assert f"{Currency.JPY}" == "JPY"


def test_every_currency_has_a_code_and_a_number_of_its_own() -> None:
    assert all(
        re.fullmatch("[A-Z]{3}", currency) and re.fullmatch("[0-9]{3}", currency.numeric) for currency in Currency
    )
    assert len({currency.numeric for currency in Currency}) == len(Currency)
    assert {currency.exponent for currency in Currency} == {0, 2, 3}


@pytest.mark.parametrize("code", ["XXX", "XTS", "XAU", "CHE", "CLF", "usd", ""])
def test_what_no_card_is_charged_in_is_no_currency(code: str) -> None:
    with pytest.raises(ValueError):
        by_code(code)


@pytest.mark.parametrize("currency", Currency)
def test_a_currency_is_found_by_its_number(currency: Currency) -> None:
    assert Currency.from_numeric(currency.numeric) is currency


@pytest.mark.parametrize("numeric", ["000", "999", "84", "USD", ""])
def test_an_unknown_number_is_refused(numeric: str) -> None:
    with pytest.raises(ValueError, match="unknown ISO 4217"):
        Currency.from_numeric(numeric)


@pytest.mark.parametrize(("country", "numeric"), [("US", "840"), ("NO", "578"), ("AF", "004"), ("ZW", "716")])
def test_a_country_is_as_iso_3166_has_it(country: str, numeric: str) -> None:
    assert NUMERIC_BY_ALPHA_2[country] == numeric


def test_every_country_has_a_number_of_its_own() -> None:
    assert all(re.fullmatch("[A-Z]{2}", code) for code in NUMERIC_BY_ALPHA_2)
    assert all(re.fullmatch("[0-9]{3}", numeric) for numeric in NUMERIC_BY_ALPHA_2.values())
    assert len(set(NUMERIC_BY_ALPHA_2.values())) == len(NUMERIC_BY_ALPHA_2) == 249
