"""What a credential for one authorization is made of, and its cryptogram."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from domain.countries import NUMERIC_BY_ALPHA_2
from domain.merchants import Merchant
from domain.money import Money
from vault import emv
from vault.hsm.provider import HsmProvider

# Purchase of goods and services (ISO 8583 DE3, first two digits).
_TRANSACTION_TYPE = "00"
# Application interchange profile: cardholder verification is supported, terminal risk management is to be performed.
_AIP = "1800"
# Terminal verification results: offline data authentication was not performed; there is no terminal to do it.
_TVR = "8000000000"
# Issuer application data: length 6, key index 1, CVN 18 (hex 12), card verification results of length 3 that say
# "ARQC requested, no second cryptogram" (Visa Contactless Payment Specification, appendix on tag 9F10).
_IAD = "06011203A00000"
_UNPREDICTABLE_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class IssueCredential:
    """A credential for one authorization of `money` by the owner's token.

    `effect_key` is the authorization's; it goes into the vault's journal. `merchant_country` is ISO 3166-1 numeric
    (three digits), `transaction_date` the day of the request in UTC.
    """

    token_id: str
    owner_id: str
    effect_key: str
    money: Money
    merchant_country: str
    transaction_date: date

    def __post_init__(self) -> None:
        if len(self.merchant_country) != 3 or not self.merchant_country.isdecimal():
            raise ValueError("merchant_country must be three digits (ISO 3166-1 numeric)")


def purchase(
    effect_key: str, token_id: str, owner_id: str, money: Money, merchant: Merchant, requested_at: datetime
) -> IssueCredential:
    """What a payment asks for: a credential for `money` at `merchant`, by the owner's token."""
    return IssueCredential(
        token_id=token_id,
        owner_id=owner_id,
        effect_key=effect_key,
        money=money,
        merchant_country=NUMERIC_BY_ALPHA_2[merchant.country],
        transaction_date=requested_at.astimezone(UTC).date(),
    )


def authentication(
    hsm: HsmProvider, key: str, dpan: str, psn: str, atc: int, command: IssueCredential
) -> dict[str, str]:
    """The content of the authentication box, in hex: a CVN 18 cryptogram under `key` and the data that it covers.

    Amount and currency are not repeated: the request that carries this has them, and a changed one does not verify.
    """
    unpredictable_number = hsm.random(_UNPREDICTABLE_NUMBER_BYTES)
    data = emv.TransactionData(
        amount=bytes.fromhex(f"{command.money.amount_minor:012}"),
        amount_other=bytes(6),
        terminal_country=bytes.fromhex(command.merchant_country.zfill(4)),
        tvr=bytes.fromhex(_TVR),
        currency=bytes.fromhex(command.money.currency.numeric.zfill(4)),
        transaction_date=bytes.fromhex(f"{command.transaction_date:%y%m%d}"),
        transaction_type=bytes.fromhex(_TRANSACTION_TYPE),
        unpredictable_number=unpredictable_number,
        aip=bytes.fromhex(_AIP),
        atc=atc.to_bytes(2, "big"),
    )
    cryptogram = emv.visa_cvn18(hsm, key, dpan, psn, data, bytes.fromhex(_IAD))
    return {
        "cryptogram": cryptogram.hex().upper(),
        "atc": data.atc.hex().upper(),
        "unpredictable_number": unpredictable_number.hex().upper(),
        "iad": _IAD,
        "aip": _AIP,
        "tvr": _TVR,
        "transaction_date": data.transaction_date.hex(),
        "transaction_type": _TRANSACTION_TYPE,
        "terminal_country": data.terminal_country.hex(),
        "amount_other": data.amount_other.hex(),
    }
