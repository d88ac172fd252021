"""What `durapay settlement` prints: amounts as people read them, and each open break with its workflow."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from embedded import cli

REPORT: dict[str, Any] = {
    "day": date(2026, 11, 22),
    "file_id": "file-7",
    "records": 4,
    "verdicts": {"matched": 2, "amount": 1, "fee": 1},
    "finished_at": datetime(2026, 11, 23, 2, 30, tzinfo=UTC),
    "payouts": 2,
    "payouts_waiting": 1,
    "open_breaks": 1,
    "currencies": [
        {
            "currency": "USD",
            "records": 4,
            "owed_to_us_minor": 2900,
            "owed_by_us_minor": 3400,
            "net_minor": -500,
            "matched_minor": 2000,
            "fees_minor": 29,
            "open_breaks_minor": 100,
            "paid_out_minor": 1900,
        }
    ],
}
BREAK: dict[str, Any] = {
    "id": "brk_1",
    "kind": "amount",
    "parts": [{"account": "receivable", "excess": "debit", "amount_minor": 100, "currency": "USD"}],
}


def test_a_day_is_printed_with_its_totals_breaks_and_payouts(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_settlement(REPORT, [BREAK])  # type: ignore[arg-type, list-item]
    printed = capsys.readouterr().out
    assert "2026-11-22 settled: file file-7, 4 records (1 amount, 1 fee, 2 matched)" in printed
    for amount in ("29.00 USD", "34.00 USD", "-5.00 USD", "20.00 USD", "0.29 USD", "1.00 USD", "19.00 USD"):
        assert amount in printed
    assert "2 payouts, 1 wait to be covered; 1 open breaks" in printed
    assert "amount: 1.00 USD too much debit on receivable (workflow break/brk_1)" in printed


def test_a_day_that_is_not_finished_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_settlement(REPORT | {"finished_at": None, "currencies": []}, [])  # type: ignore[arg-type]
    assert "2026-11-22 not finished" in capsys.readouterr().out
