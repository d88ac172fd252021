from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.logs import configure_logging, redacted
from domain.cards import luhn_check_digit

VISA, AMEX = "4242424242424242", "378282246310005"


@pytest.mark.parametrize(
    "number",
    [
        VISA,
        AMEX,
        "4222222222222",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242.4242.4242.4242",
        "4242  4242  4242  4242",
        "3782 822463 10005",
        "2200770212727079",
    ],
)
@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "pan={}",
        "card {} was declined",
        "card{}",
        '{{"number":"{}"}}',
        "[{}]",
        "{};{}",
        "({})\n",
        "_{}_",
    ],
)
def test_a_card_number_does_not_reach_the_log(line: str, number: str) -> None:
    struck = redacted(line.replace("{}", number).replace("{{", "{").replace("}}", "}"))
    assert "[card number]" in struck
    assert number not in struck
    assert not any(character.isdigit() for character in struck)


@pytest.mark.parametrize(
    ("line", "struck"),
    [
        (f"{VISA} 12/30", "[card number] 12/30"),
        (f"{VISA}=30121011000", "[card number]=30121011000"),
        (f"16{VISA}", "16[card number]"),
        (f"{VISA}, {AMEX}", "[card number], [card number]"),
        (f"amount 1050 card {VISA} at 12:00", "amount 1050 card [card number] at 12:00"),
    ],
)
def test_what_stands_beside_a_card_number_does_not_hide_it(line: str, struck: str) -> None:
    assert redacted(line) == struck


@pytest.mark.parametrize("line", ["4242 4242 4242 4242 123", f"{VISA} {AMEX}", f"{VISA}{AMEX}", f"00{VISA}00{AMEX}00"])
def test_of_numbers_that_run_into_others_at_most_five_digits_stay(line: str) -> None:
    assert re.search("[0-9 ]{6}", redacted(line)) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2026-11-22 12:00:00,123 INFO workers listening on 127.0.0.1:8000",
        "payment pay_7qvjgq7f5lzq3awz4dxxcata of 10.50 USD",
        "4242424242424241 fails the Luhn check",
        "42424242424",
        "card 424242••••••4242",
        "run 2f5a3c1e-8c3b-4b5c-9d2e-1f0a9b8c7d6e",
        "took 0.123456789012345 seconds",
        "STAN 000001 RRN 632512000001",
    ],
)
def test_what_is_no_secret_stays_readable(line: str) -> None:
    assert redacted(line) == line


@given(st.text("0123456789 -.abc/", max_size=30), st.text("0123456789", min_size=12, max_size=14), st.text(max_size=20))
def test_a_visa_number_is_struck_wherever_it_stands(before: str, middle: str, after: str) -> None:
    payload = ("4" + middle.ljust(14, "7"))[:15]
    number = payload + luhn_check_digit(payload)
    assert number not in redacted(before + number + after)


@pytest.mark.parametrize("key", ["sk_test_abcDEF123-_x", "sk_live_0123456789abcdefghijklmnop"])
def test_an_api_key_is_struck_but_its_kind_is_told(key: str) -> None:
    assert redacted(f"Authorization: Bearer {key}, next") == f"Authorization: Bearer {key[:8]}[secret], next"


def test_a_session_token_is_struck() -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl-_x"
    assert redacted(f"token={token}&x=1") == "token=eyJhbGciOiJFUzI1NiJ9.[secret]&x=1"


# ---------------------------------------------------------------------------------------------------------- the handler


@dataclass(frozen=True, slots=True)
class _Card:
    number: str


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the configured logging writes. The root logger is put back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []  # `basicConfig(force=True)` would close the test runner's own
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logging()
    yield written
    root.handlers[:] = before
    root.setLevel(level)


def test_arguments_of_a_log_call_are_redacted(log: io.StringIO) -> None:
    logging.getLogger("payments").warning("card %s of %r", VISA, _Card(AMEX))
    assert "card [card number] of _Card(number='[card number]')" in log.getvalue()


def test_an_exception_is_redacted_with_its_causes_and_notes(log: io.StringIO) -> None:
    try:
        try:
            raise ValueError(f"no such card: {VISA}")
        except ValueError as error:
            wrapped = RuntimeError(f"could not charge {_Card(AMEX)!r}")
            wrapped.add_note(f"while looking at {VISA}")
            raise wrapped from error
    except RuntimeError:
        logging.getLogger("payments").exception("failed")
    written = log.getvalue()
    assert "Traceback" in written
    assert "ValueError: no such card: [card number]" in written
    assert "could not charge _Card(number='[card number]')" in written
    assert VISA not in written
    assert AMEX not in written


def test_a_stack_is_redacted_too(log: io.StringIO) -> None:
    logging.getLogger("payments").info("here", stack_info=True)
    assert "Stack (most recent call last)" in log.getvalue()


def test_chatty_libraries_say_only_what_matters(log: io.StringIO) -> None:
    logging.getLogger("httpx").info("POST https://example.test/?number=%s", VISA)
    assert log.getvalue() == ""
