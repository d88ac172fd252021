"""Pieces that several requests and answers share. Unknown fields are refused, numbers are not coerced."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from domain.cards import holds_card_number
from domain.currency import Currency

T = TypeVar("T")


class RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ResponseModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)


def _storable(value: str) -> str:
    """PostgreSQL keeps neither NUL nor half a surrogate pair (JSON can carry both), so neither gets past this door."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("parameter_invalid", "must be valid Unicode") from None
    if "\0" in value:
        raise PydanticCustomError("parameter_invalid", "must not contain the character NUL")
    return value


def _without_card_number(value: str) -> str:
    """What people write freely is kept in clear, and a card number is never."""
    if holds_card_number(value):
        raise PydanticCustomError("card_number_refused", "must not hold a card number")
    return value


FREE_TEXT = AfterValidator(_without_card_number)

# Every text of a request has it, unless its pattern says as much already.
STORABLE = AfterValidator(_storable)
Str = Annotated[str, STORABLE]


def _known_currency(code: str) -> str:
    if code not in Currency.__members__:
        raise PydanticCustomError("currency_unknown", "must be an ISO 4217 currency code in upper case, such as USD")
    return code


def _utc(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


CurrencyCode = Annotated[
    str, AfterValidator(_known_currency), Field(description="ISO 4217, upper case", examples=["USD"])
]
AmountMinor = Annotated[
    int, Field(gt=0, le=999_999_999_999, description="Minor units of the currency, e.g. cents", examples=[1050])
]


def _rfc_3339(value: Any) -> Any:
    # Pydantic would take a number for seconds since 1970.
    if isinstance(value, str) and re.match(r"\d{4}-\d{2}-\d{2}T", value) is None:
        raise PydanticCustomError("parameter_invalid", "must be a time such as 2026-11-22T10:00:00Z (RFC 3339)")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_rfc_3339)]
Timestamp = Annotated[datetime, PlainSerializer(_utc, return_type=str)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), STORABLE, FREE_TEXT]


def _bounded_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > 50:
        raise PydanticCustomError("metadata_too_large", "may have 50 keys at most")
    for content in (*metadata, *metadata.values()):
        _without_card_number(_storable(content))
    if any(len(key) > 40 or len(value) > 500 for key, value in metadata.items()):
        raise PydanticCustomError("metadata_too_large", "may have keys of 40 and values of 500 characters at most")
    return metadata


Metadata = Annotated[dict[str, str], AfterValidator(_bounded_metadata)]


class Page(BaseModel, Generic[T]):
    """One page of a list, newest first. `has_more` says whether another one follows in the direction asked for."""

    object: Literal["list"] = "list"
    url: str
    has_more: bool
    data: list[T]


class ErrorBody(BaseModel):
    type: str
    code: str
    decline_code: str | None = None
    message: str
    param: str | None = None
    doc_url: str
    request_id: str
    payment: dict[str, Any] | None = Field(default=None, description="The payment that was declined or blocked.")
    verification: dict[str, Any] | None = Field(default=None, description="The verification that was declined.")
    payment_method: dict[str, Any] | None = Field(
        default=None, description="The card that was added and whose verification was declined."
    )


class ErrorAnswer(BaseModel):
    error: ErrorBody
