"""Bank accounts as a client adds and verifies them, and as they are shown: never more than four digits of a number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import STORABLE, RequestModel, ResponseModel, Str, Text, Timestamp
from api.schemas.payment_methods import PaymentMethodObject
from domain.bank_accounts import account_number_valid, routing_number_valid
from domain.micro_deposits import LARGEST_DEPOSIT_MINOR, SMALLEST_DEPOSIT_MINOR

_Cents = Annotated[
    int,
    Field(ge=SMALLEST_DEPOSIT_MINOR, le=LARGEST_DEPOSIT_MINOR, description="Cents", examples=[32]),
]


def _is_deposit(amount: object) -> bool:
    return type(amount) is int and SMALLEST_DEPOSIT_MINOR <= amount <= LARGEST_DEPOSIT_MINOR


class NewBankAccount(RequestModel):
    """A bank account in the United States. `account_number` goes straight into the vault."""

    user: Str = Field(examples=["usr_…"])
    routing_number: Annotated[str, STORABLE] = Field(examples=["021000021"])
    account_number: SecretStr = Field(examples=["000123456789"])
    account_type: Literal["checking", "savings"]

    @field_validator("routing_number")
    @classmethod
    def _routing_number(cls, number: str) -> str:
        if not routing_number_valid(number):
            raise PydanticCustomError("incorrect_routing_number", "must be nine digits with the ABA's check digit")
        return number

    @field_validator("account_number")
    @classmethod
    def _account_number(cls, number: SecretStr) -> SecretStr:
        if not account_number_valid(number.get_secret_value()):
            raise PydanticCustomError("incorrect_account_number", "must be 4 to 17 digits")
        return number


class ConfirmBody(RequestModel):
    """The two deposits that arrived, in any order."""

    amounts_minor: Annotated[list[_Cents], Field(min_length=2, max_length=2, examples=[[32, 45]])]

    @field_validator("amounts_minor", mode="before")
    @classmethod
    def _two_amounts(cls, amounts: object) -> object:
        if not isinstance(amounts, list) or len(amounts) != 2 or not all(_is_deposit(each) for each in amounts):
            raise PydanticCustomError("amount_invalid", "must be two amounts of 1 to 49 cents")
        return amounts


class CancelDepositsBody(RequestModel):
    reason: Text | None = None


class StartDepositsBody(RequestModel):
    """Nothing is to be said."""


class BankAccountObject(PaymentMethodObject):
    type: Literal["us_bank_account"] = "us_bank_account"
    routing_number: str
    account_type: Literal["checking", "savings"]


class MicroDepositObject(ResponseModel):
    """A verification. `reason` says more of `failed` and `returned`, e.g. the bank's R-code; `expires` is when the
    amounts must have been named. The amounts themselves are never shown here."""

    object: Literal["micro_deposit"] = "micro_deposit"
    id: str
    payment_method: str
    status: Literal[
        "new", "initiating", "sent", "awaiting_confirmation", "verified", "failed", "expired", "returned",
        "origination_in_doubt", "canceled",
    ]  # fmt: skip
    reason: str | None = None
    attempts_remaining: int
    effective_on: str | None = Field(default=None, description="The banking day on which the deposits are to arrive")
    expires: Timestamp | None = None
    livemode: bool
    created: Timestamp


class AmountsObject(ResponseModel):
    """What was deposited, for support staff. That it was looked at is recorded."""

    object: Literal["micro_deposit_amounts"] = "micro_deposit_amounts"
    micro_deposit: str
    amounts_minor: list[int]


class BankDayObject(ResponseModel):
    object: Literal["bank_day"] = "bank_day"
    status: Literal["reading", "read"]
    posted: int | None = None
    returned: int | None = None
