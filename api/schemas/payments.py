"""Payments and refunds, as asked for and as shown."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from api.schemas.common import (
    STORABLE,
    AmountMinor,
    CurrencyCode,
    Metadata,
    RequestModel,
    ResponseModel,
    Str,
    Text,
    Timestamp,
)
from domain.countries import NUMERIC_BY_ALPHA_2


def _known_country(code: str) -> str:
    if code not in NUMERIC_BY_ALPHA_2:
        raise PydanticCustomError("parameter_invalid", "must be an ISO 3166-1 alpha-2 country code, such as US")
    return code


class MerchantBody(RequestModel):
    """The card acceptor, in the lengths that ISO 8583 gives it."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,15}$")] = Field(examples=["coffee-42"])
    name: Annotated[str, StringConstraints(min_length=1, max_length=22, pattern=r"^[ -~]+$")] = Field(
        examples=["Corner Coffee"]
    )
    category_code: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$")] = Field(
        description="MCC, ISO 18245", examples=["5814"]
    )
    city: Annotated[str, StringConstraints(max_length=13, pattern=r"^[ -~]*$")] = Field(default="", examples=["Oslo"])
    country: Annotated[str, AfterValidator(_known_country)] = Field(default="US", description="ISO 3166-1 alpha-2")


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise PydanticCustomError("ip_address_invalid", "must be an IPv4 or IPv6 address") from None


IpAddress = Annotated[Str, AfterValidator(_ip_address)]


class DeviceBody(RequestModel):
    id: Annotated[str, StringConstraints(min_length=1, max_length=128), STORABLE] | None = None
    ip_address: IpAddress | None = Field(default=None, examples=["203.0.113.7"])
    user_agent: Annotated[str, StringConstraints(max_length=512), STORABLE] | None = None


class LocationBody(RequestModel):
    """Degrees, WGS 84."""

    latitude: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
    longitude: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]


class NewPayment(RequestModel):
    amount_minor: AmountMinor
    currency: CurrencyCode
    payment_method: Str = Field(examples=["pm_…"])
    merchant: MerchantBody
    capture_method: Literal["automatic", "manual"] = "automatic"
    device: DeviceBody | None = None
    location: LocationBody | None = None
    metadata: Metadata = Field(default_factory=dict)


class RiskObject(ResponseModel):
    """Why the payment was let through, questioned or stopped. `score` is the model's probability of fraud."""

    action: Literal["allow", "step_up", "review", "block"]
    score: float | None
    reasons: list[str]
    model_version: str | None
    rules_version: str


class PaymentObject(ResponseModel):
    object: Literal["payment"] = "payment"
    id: str
    status: str
    status_reason: str | None = None
    amount_minor: int
    currency: str
    amount_authorized_minor: int = 0
    amount_captured_minor: int = 0
    amount_refunded_minor: int = 0
    capture_method: str
    capture_before: Timestamp | None = None
    decline_code: str | None = None
    user: str
    payment_method: str
    merchant: MerchantBody
    risk: RiskObject | None = None
    metadata: dict[str, str]
    livemode: bool
    created: Timestamp


class CaptureBody(RequestModel):
    """`amount_minor` absent: all that is left. With `final` the rest of the authorization is released."""

    amount_minor: AmountMinor | None = None
    final: bool = True


class IncrementBody(RequestModel):
    """How much more to authorize."""

    amount_minor: AmountMinor


class VoidBody(RequestModel):
    reason: Text | None = None


class ReviewBody(RequestModel):
    operator: Text
    approve: bool
    reason: Text


class RefundBody(RequestModel):
    """`amount_minor` absent: all that is left. `currency` may be given to be sure; it must be the payment's."""

    amount_minor: AmountMinor | None = None
    currency: CurrencyCode | None = None
    reason: Text | None = None


class RefundObject(ResponseModel):
    object: Literal["refund"] = "refund"
    id: str
    payment: str
    amount_minor: int
    currency: str
    status: Literal["pending", "in_doubt", "succeeded", "failed"]
    failure_code: str | None
    reason: str | None
    livemode: bool
    created: Timestamp
