"""Knowing the customer: what a user says, how the case stands, limits, and the end of a wallet."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import STORABLE, RequestModel, ResponseModel, Text, Timestamp
from domain.closure import ClosureStatus
from domain.onboarding import MAX_DOCUMENTS, DocumentKind, OnboardingStatus
from domain.personal import Address, DocumentType, IdentityDocument, PersonalDetails
from domain.tiers import Tier

# What is said in it is encrypted, so it need not be searched for card numbers.
_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), STORABLE]
_Optional = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), STORABLE]
_Country = Annotated[
    str, StringConstraints(pattern=r"^[A-Z]{2}$"), Field(description="ISO 3166-1 alpha-2", examples=["SE"])
]
_MrzLine = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9<]{30,44}$")]


def _calendar_day(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        # Not the week dates and compact forms that ISO 8601 has, too.
        if len(value) == len("2026-11-22") and value[4] == value[7] == "-":
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise PydanticCustomError("parameter_invalid", "must be a date such as 1990-12-31")


_Day = Annotated[date, BeforeValidator(_calendar_day)]


class AddressBody(RequestModel):
    line1: _Line = Field(examples=["1 Ocean Drive"])
    line2: _Optional = ""
    city: _Line = Field(examples=["Zenith"])
    region: _Optional = ""
    postal_code: _Line = Field(examples=["10001"])
    country: _Country


class IdentityDocumentBody(RequestModel):
    """`mrz` are the lines of the machine-readable zone: two of 44 of a passport, three of 30 or two of 36 of a card."""

    type: Literal["passport", "id_card", "driving_licence"]
    number: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=30), STORABLE]
    country: _Country
    expires_on: _Day = Field(examples=["2031-04-15"])
    mrz: list[_MrzLine] = Field(default=[], max_length=3)


class DetailsBody(RequestModel):
    """Who the user is. It is kept under a key of that user, and shown to nobody but a reviewer."""

    legal_name: _Line = Field(examples=["Anna Maria Eriksson"])
    date_of_birth: _Day = Field(examples=["1974-08-12"])
    address: AddressBody
    document: IdentityDocumentBody | None = None
    us_tax_id: Annotated[str, StringConstraints(min_length=9, max_length=11), STORABLE] | None = Field(
        default=None, description="An SSN or ITIN", examples=["123-45-6789"]
    )

    def details(self) -> PersonalDetails:
        document = self.document
        return PersonalDetails(
            legal_name=self.legal_name,
            date_of_birth=self.date_of_birth,
            address=Address(**self.address.model_dump()),
            document=None
            if document is None
            else IdentityDocument(
                type=DocumentType(document.type),
                number=document.number,
                country=document.country,
                expires_on=document.expires_on,
                mrz=tuple(document.mrz),
            ),
            us_tax_id=self.us_tax_id,
        )


class AppealBody(RequestModel):
    """Nothing: what was said before is looked at again, with the documents that have come since."""


class OnboardingReviewBody(RequestModel):
    operator: Text = Field(examples=["maria"])
    approve: bool
    reason: Text = Field(examples=["Another person of that name"])


class ProfileBody(RequestModel):
    """What is not given stays. Contacts are changed by proving the new ones."""

    name: Text | None = Field(default=None, examples=["Ada King"])
    locale: Literal["en", "de"] | None = None

    @model_validator(mode="after")
    def _something(self) -> ProfileBody:
        if self.name is None and self.locale is None:
            raise PydanticCustomError("parameter_missing", "give a name or a locale", {"param": "name"})
        return self


class CloseBody(RequestModel):
    """Nothing."""


class OnboardingDocumentObject(ResponseModel):
    object: Literal["onboarding_document"] = "onboarding_document"
    id: str
    kind: DocumentKind
    content_type: str
    size_bytes: int
    created: Timestamp


class OnboardingObject(ResponseModel):
    """How well a user is known. Only an operator is shown `reasons`: a suspicion must not be told to who is suspected
    (FATF, recommendation 21)."""

    object: Literal["onboarding"] = "onboarding"
    user: str
    status: OnboardingStatus
    tier: Tier
    awaits_review: bool
    sending_frozen: bool
    reasons: list[str] | None
    documents: list[OnboardingDocumentObject]
    livemode: bool
    created: Timestamp
    updated: Timestamp


class PersonalDetailsObject(ResponseModel):
    """What a user said. That it was looked at, and by whom, is recorded."""

    object: Literal["personal_details"] = "personal_details"
    user: str
    legal_name: str
    date_of_birth: date
    address: dict[str, Any]
    document: dict[str, Any] | None
    us_tax_id: str | None


class WindowObject(ResponseModel):
    """Within any `hours` in a row."""

    hours: int
    count: int
    amount_minor: int


class LimitsObject(ResponseModel):
    """What the user's tier may do in a currency: pay by card, and send to other users."""

    object: Literal["limits"] = "limits"
    user: str
    tier: Tier
    currency: str
    per_payment_minor: int
    per_transfer_minor: int
    transfers: list[WindowObject]
    sending_frozen: bool


class ClosureObject(ResponseModel):
    """The end of a wallet. `waiting_for` names what is still open, each with how many there are: `payments:2`."""

    object: Literal["closure"] = "closure"
    user: str
    status: ClosureStatus
    waiting_for: list[str]
    requested: Timestamp
    closed: Timestamp | None
    erase_after: Timestamp | None
    erased: Timestamp | None
    destroyed_key: str | None
    livemode: bool


# The form of a document, for the API's documentation: it is read by hand, once its sender is known.
DOCUMENT_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["file", "kind"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A PDF, PNG or JPEG, told from its content, of 5,242,880 bytes at most; "
                            f"a case takes {MAX_DOCUMENTS}.",
                        },
                        "kind": {
                            "type": "string",
                            "enum": [kind.value for kind in DocumentKind],
                            "description": "What the file shows.",
                        },
                    },
                }
            }
        },
    }
}
