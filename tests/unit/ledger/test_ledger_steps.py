"""Steps refuse what is not money before anything is sent; refusals come back as errors of their own."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest

from domain.currency import Currency
from ledger import errors
from ledger.errors import BreaksRule, ExceedsCredits, LedgerError, refusal
from ledger.transfers import MAX_AMOUNT_MINOR, Pending, Post, PostPending, Transfer, VoidPending

VERSIONS = Path(errors.__file__).parent.parent / "store/migrations/versions"
# The tables, and the functions as they are now.
MIGRATIONS = [VERSIONS / f"{name}.py" for name in ("0002_ledger", "0007_ledger_complete", "0012_open_ends")]


def post(amount_minor: object) -> Post:
    return Post("id", "a", "b", amount_minor, Currency.USD, "code", "reference")  # type: ignore[arg-type]


def part(amount_minor: object) -> PostPending:
    return PostPending("id", "pending", amount_minor, "reference")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [post, part])
@pytest.mark.parametrize("amount_minor", [1.0, 1.5, True, "12", None])
def test_an_amount_is_an_integer(make: type[Transfer], amount_minor: object) -> None:
    with pytest.raises(TypeError):
        make(amount_minor)  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("make", [post, part])
@pytest.mark.parametrize("amount_minor", [0, -1, MAX_AMOUNT_MINOR + 1, 10**20])
def test_an_amount_is_positive_and_fits_into_63_bits(make: type[Transfer], amount_minor: int) -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        make(amount_minor)  # type: ignore[call-arg, arg-type]


def test_the_end_of_a_hold_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Pending("id", "a", "b", 1, Currency.USD, "code", "reference", datetime(2030, 1, 1))  # noqa: DTZ001


def test_a_pending_transfer_is_checked_like_any_other() -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        Pending("id", "a", "b", 0, Currency.USD, "code", "reference")


def test_a_void_has_no_amount() -> None:
    assert not hasattr(VoidPending("id", "pending", "reference"), "amount_minor")


def test_a_refusal_names_its_rule_and_its_subject() -> None:
    error = refusal("exceeds_credits", "pay_1:hold")
    assert type(error) is ExceedsCredits
    assert (str(error), error.code, error.subject) == ("exceeds_credits: pay_1:hold", "exceeds_credits", "pay_1:hold")


def test_a_rule_without_an_error_of_its_own_is_still_a_refusal() -> None:
    error = refusal("balances", "pay_1:hold")
    assert isinstance(error, BreaksRule)
    assert (error.rule, error.subject) == ("balances", "pay_1:hold")


def test_every_refusal_of_the_database_has_an_error_and_every_error_a_refusal() -> None:
    source = "".join(migration.read_text() for migration in MIGRATIONS)
    codes = {error.code for error in LedgerError.__subclasses__()} - {BreaksRule.code}
    refused = set(re.findall(r"ledger\.refuse\('(\w+)'", source)) - {"pending_transfer_already_"}
    refused |= {"pending_transfer_already_posted", "pending_transfer_already_voided"}
    refused |= set(re.findall(r"ck_(?:accounts|transfers)_((?:exceeds|accounts_must)_\w+)", source))
    refused |= set(re.findall(r"'refused', '(\w+)'", source))
    refused |= set(re.findall(r"RAISE EXCEPTION '(\w+)' USING ERRCODE = 'LG001'", source))
    assert codes == refused


def test_every_kind_of_transfer_has_its_kind_in_the_database() -> None:
    from ledger.transfers import _KINDS

    assert set(_KINDS) == set(get_args(Transfer))
