from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from hypothesis import given
from hypothesis import strategies as st

from domain.currency import Currency
from domain.money import MAX_AMOUNT_MINOR, Money
from domain.step_up import StepUpCodes, confirmation_challenge, confirmation_document, is_challenge_id

CODES = StepUpCodes(bytes(range(32)))
MONEY = Money(1050, Currency.USD)


@given(st.binary(min_size=32, max_size=32), st.integers(0, MAX_AMOUNT_MINOR), st.text(max_size=22))
def test_the_code_is_the_hotp_of_rfc_4226(secret: bytes, amount_minor: int, payee: str) -> None:
    """Against another implementation, for the key that the confirmed things derive."""
    money = Money(amount_minor, Currency.KWD)
    context = f"pay_1\x1f{amount_minor}\x1fKWD\x1f{payee}".encode()
    key = hmac.digest(secret, context, hashlib.sha256)
    assert StepUpCodes(secret).code("pay_1", money, payee).encode() == HOTP(key, 6, SHA1()).generate(0)


def test_a_code_has_six_digits_even_if_it_begins_with_zeros() -> None:
    codes = [CODES.code(f"pay_{number}", MONEY, "Corner Coffee") for number in range(300)]
    assert all(len(code) == 6 and code.isdigit() for code in codes)
    assert any(code.startswith("0") for code in codes)


def test_a_code_is_always_the_same_because_it_is_stored_nowhere() -> None:
    assert CODES.code("pay_1", MONEY, "Corner Coffee") == CODES.code("pay_1", MONEY, "Corner Coffee")


@pytest.mark.parametrize(
    ("payment_id", "money", "payee"),
    [
        ("pay_2", MONEY, "Corner Coffee"),
        ("pay_1", Money(1051, Currency.USD), "Corner Coffee"),
        ("pay_1", Money(1050, Currency.EUR), "Corner Coffee"),
        ("pay_1", MONEY, "Corner Coffee 2"),
    ],
)
def test_a_code_is_good_for_its_payment_amount_and_payee_alone(payment_id: str, money: Money, payee: str) -> None:
    code = CODES.code("pay_1", MONEY, "Corner Coffee")
    assert CODES.matches("pay_1", MONEY, "Corner Coffee", code)
    assert not CODES.matches(payment_id, money, payee, code)


def test_a_code_of_another_platform_is_wrong() -> None:
    assert not CODES.matches(
        "pay_1", MONEY, "Corner Coffee", StepUpCodes(b"x" * 32).code("pay_1", MONEY, "Corner Coffee")
    )


@pytest.mark.parametrize("code", ["", "0", "00000000", "abcdef", "１２３４５６", "\ud7ff"])
def test_whatever_else_is_typed_is_wrong(code: str) -> None:
    assert not CODES.matches("pay_1", MONEY, "Corner Coffee", code)


def test_the_secret_is_not_shown() -> None:
    assert "0102" not in repr(CODES)
    assert repr(bytes(range(4)))[2:-1] not in repr(CODES)


NONCE = bytes(range(32))


def test_a_passkey_signs_the_digest_of_what_is_confirmed() -> None:
    document = confirmation_document("pay_1", MONEY, 'Kaffee "Süd"', NONCE)
    assert document == (
        '{"amount_minor":1050,"currency":"USD","merchant":"Kaffee \\"Süd\\"","nonce":"'
        + NONCE.hex()
        + '","payment":"pay_1"}'
    )
    assert confirmation_challenge("pay_1", MONEY, 'Kaffee "Süd"', NONCE) == hashlib.sha256(document.encode()).digest()


@pytest.mark.parametrize(
    ("payment_id", "money", "payee", "nonce"),
    [
        ("pay_2", MONEY, "Corner Coffee", NONCE),
        ("pay_1", Money(1051, Currency.USD), "Corner Coffee", NONCE),
        ("pay_1", Money(1050, Currency.EUR), "Corner Coffee", NONCE),
        ("pay_1", MONEY, "Corner Coffee 2", NONCE),
        ("pay_1", MONEY, "Corner Coffee", bytes(32)),
    ],
)
def test_a_signature_is_for_its_payment_amount_payee_and_nonce_alone(
    payment_id: str, money: Money, payee: str, nonce: bytes
) -> None:
    challenge = confirmation_challenge("pay_1", MONEY, "Corner Coffee", NONCE)
    assert confirmation_challenge(payment_id, money, payee, nonce) != challenge


@pytest.mark.parametrize("code", ["000000", "123456", "", "suc", "xsuc_1"])
def test_a_code_is_never_taken_for_a_challenge(code: str) -> None:
    assert not is_challenge_id(code)
    assert is_challenge_id("suc_abc")
