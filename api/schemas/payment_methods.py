"""Cards as a client adds them and as they are shown: never more than BIN and last four digits."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import STORABLE, CurrencyCode, RequestModel, ResponseModel, Str, Text, Timestamp
from api.schemas.payments import MerchantBody
from domain.cards import LONGEST_VALIDITY_YEARS, card_brand, expired, luhn_valid
from domain.countries import NUMERIC_BY_ALPHA_2
from vault.cards import BillingAddress

# They are not kept, so they need not be searched for card numbers.
_Street = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), STORABLE]
_PostalCode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 -]{1,9}$")]


class BillingAddressBody(RequestModel):
    """Where the card's statements go. It is told to the issuer with the first question, and kept no longer."""

    line1: _Street | None = Field(default=None, examples=["1 Market Street"])
    postal_code: _PostalCode | None = Field(default=None, examples=["94105"])
    country: Annotated[str, Field(description="ISO 3166-1 alpha-2", examples=["US"])]

    @field_validator("country")
    @classmethod
    def _known(cls, country: str) -> str:
        if country not in NUMERIC_BY_ALPHA_2:
            raise PydanticCustomError("country_unknown", "must be an ISO 3166-1 code of two letters, such as US")
        return country

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.line1 is None and self.postal_code is None:
            param = {"param": "billing_address.line1"}
            raise PydanticCustomError("parameter_missing", "an address has a street, a postal code, or both", param)
        if self.country == "US" and self.postal_code and not re.fullmatch(r"\d{5}(-?\d{4})?", self.postal_code):
            param = {"param": "billing_address.postal_code"}
            raise PydanticCustomError("parameter_invalid", "must be a ZIP code of five or nine digits", param)
        return self

    def as_compared(self) -> BillingAddress:
        """As issuers compare it: a postal code is letters in upper case and digits."""
        postal_code = re.sub(r"[ -]", "", self.postal_code).upper() if self.postal_code else None
        return BillingAddress(self.line1, postal_code)


class NewCard(RequestModel):
    """A card to keep. `number` goes straight into the vault, `cvc` and `billing_address` are kept some minutes for the
    first question to its issuer."""

    user: Str = Field(examples=["usr_…"])
    number: SecretStr = Field(examples=["4242424242424242"])
    exp_month: Annotated[int, Field(ge=1, le=12, examples=[12])]
    exp_year: Annotated[int, Field(ge=2000, le=2099, examples=[2030])]
    cvc: SecretStr | None = Field(default=None, examples=["123"])
    billing_address: BillingAddressBody | None = None
    holder_name: Annotated[str, Field(max_length=100), STORABLE] | None = None
    verify: bool = Field(default=False, description="Ask the issuer about the card at once, for no money")

    @field_validator("number")
    @classmethod
    def _card_number(cls, number: SecretStr) -> SecretStr:
        digits = number.get_secret_value()
        if not 12 <= len(digits) <= 19 or not luhn_valid(digits):
            raise PydanticCustomError("incorrect_number", "is not a card number")
        if card_brand(digits) is None:
            raise PydanticCustomError("card_brand_unsupported", "belongs to no supported card network")
        return number

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if expired(self.exp_year, self.exp_month, datetime.now(UTC).date()):
            raise PydanticCustomError("expired_card", "the card has expired", {"param": "exp_year"})
        if self.cvc is not None:
            wanted = 4 if card_brand(self.number.get_secret_value()) == "amex" else 3
            code = self.cvc.get_secret_value()
            if len(code) != wanted or not (code.isascii() and code.isdigit()):
                raise PydanticCustomError("invalid_cvc", "must have the card's number of digits", {"param": "cvc"})
        return self


class VerifyBody(RequestModel):
    """In whose name the issuer is asked; the wallet's own, if no `merchant` is given."""

    merchant: MerchantBody | None = None
    currency: CurrencyCode = "USD"


class PaymentMethodChange(RequestModel):
    """What is left out stays as it is. A later expiry takes both of its parts; `label` null takes the label away."""

    label: Annotated[Text, Field(max_length=50)] | None = None
    default: bool | None = None
    exp_month: Annotated[int, Field(ge=1, le=12, examples=[12])] | None = None
    exp_year: Annotated[int, Field(ge=2000, le=2099, examples=[2034])] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.exp_month is None) != (self.exp_year is None):
            missing = "exp_month" if self.exp_month is None else "exp_year"
            raise PydanticCustomError("parameter_missing", "an expiry has a month and a year", {"param": missing})
        if self.exp_year is not None and self.exp_month is not None:
            today = datetime.now(UTC).date()
            if expired(self.exp_year, self.exp_month, today):
                raise PydanticCustomError("expired_card", "the card has expired", {"param": "exp_year"})
            if self.exp_year > today.year + LONGEST_VALIDITY_YEARS:
                raise PydanticCustomError("parameter_invalid", "no card is valid for so long", {"param": "exp_year"})
        return self


CheckName = Literal["pass", "fail", "unavailable", "unchecked"]


class ChecksObject(ResponseModel):
    """What the issuer said of the security code and the billing address. `unavailable`: it did not say; `unchecked`:
    there was nothing to ask about."""

    cvc: CheckName = "unchecked"
    address_line1: CheckName = "unchecked"
    postal_code: CheckName = "unchecked"


class VerificationObject(ResponseModel):
    """What came of asking a card's issuer about it. `network_reference` is the network's number of the question (RRN).

    `unknown`: no answer came, for `reason`. Nothing was charged; ask for another verification.
    """

    object: Literal["card_verification"] = "card_verification"
    id: str
    payment_method: str
    status: Literal["processing", "verified", "declined", "unknown"]
    decline_code: str | None = None
    reason: str | None = None
    network_reference: str | None = None
    checks: ChecksObject = ChecksObject()
    currency: str
    livemode: bool
    created: Timestamp
    decided: Timestamp | None = None


class PaymentMethodObject(ResponseModel):
    """What a user pays with. `verification` is a card's latest one."""

    object: Literal["payment_method"] = "payment_method"
    type: Literal["card", "us_bank_account"]
    id: str
    user: str
    last4: str
    label: str | None = None
    default: bool = False
    status: Literal["pending", "active", "removed"]
    livemode: bool
    created: Timestamp
    removed: Timestamp | None = None


class CardObject(PaymentMethodObject):
    """`funding` and `country` (the issuer's) are what the BIN says; null where that is not known. `checks` is what the
    issuer said last, be it to a verification or to a payment."""

    type: Literal["card"] = "card"
    brand: str
    bin: str
    funding: Literal["credit", "debit", "prepaid"] | None = None
    country: str | None = None
    exp_month: int
    exp_year: int
    checks: ChecksObject = ChecksObject()
    verification: VerificationObject | None = None
