"""What a capture costs is said in basis points and by currency, and is nothing unless it is said."""

from __future__ import annotations

import pytest

from config.settings import LedgerSettings, SettingsInvalid
from domain.currency import Currency


def test_without_a_setting_a_capture_costs_nothing() -> None:
    settings = LedgerSettings()
    assert (settings.fee_basis_points, settings.fee_fixed_minor) == (0, {})


def test_the_fee_of_a_capture_is_a_share_and_an_amount_by_currency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURAPAY_LEDGER_FEE_BASIS_POINTS", "290")
    monkeypatch.setenv("DURAPAY_LEDGER_FEE_FIXED_MINOR", "USD:30,JPY:50")
    settings = LedgerSettings()
    assert (settings.fee_basis_points, settings.fee_fixed_minor) == (290, {Currency.USD: 30, Currency.JPY: 50})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BASIS_POINTS", "-1"),
        ("BASIS_POINTS", "10001"),
        ("BASIS_POINTS", "2.9"),
        ("FIXED_MINOR", "30"),
        ("FIXED_MINOR", "USD:-1"),
        ("FIXED_MINOR", "USD:0.3"),
    ],
)
def test_a_fee_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"DURAPAY_LEDGER_FEE_{name}", value)
    with pytest.raises(SettingsInvalid, match=f"DURAPAY_LEDGER_FEE_{name}"):
        LedgerSettings()
