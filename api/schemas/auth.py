"""Registration, sign-in, sessions and what keeps them going."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import STORABLE, RequestModel, ResponseModel, Text, Timestamp
from api.schemas.users import SessionObject
from identity import contacts
from identity.contacts import Contact
from identity.errors import ContactInvalid


def _email(value: str) -> str:
    try:
        contacts.email(value)
    except ContactInvalid:
        raise PydanticCustomError("email_invalid", "must be an e-mail address") from None
    return value


def _phone(value: str) -> str:
    try:
        contacts.phone(value)
    except ContactInvalid:
        raise PydanticCustomError("phone_invalid", "must be in international form, such as +14155550100") from None
    return value


Email = Annotated[
    str, StringConstraints(max_length=320), STORABLE, AfterValidator(_email), Field(examples=["ada@example.com"])
]
Phone = Annotated[
    str, StringConstraints(max_length=32), STORABLE, AfterValidator(_phone), Field(examples=["+14155550100"])
]
# What is wrong with a password is said in words of its own (`password_refused`); here only what would be a burden.
Password = Annotated[str, StringConstraints(min_length=1, max_length=1024), STORABLE]
Code = Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$"), Field(examples=["493021"])]
Locale = Literal["en", "de"]
ContactName = Literal["email", "phone"]


class NewRegistration(RequestModel):
    """Somebody who wants to be a user. Without a password they sign in by a passkey, or set one later."""

    name: Text = Field(examples=["Ada Lovelace"])
    email: Email
    phone: Phone
    password: Password | None = Field(default=None, repr=False, examples=["otters juggle on tuesdays"])
    locale: Locale = "en"


class CodeGiven(RequestModel):
    code: Code = Field(repr=False)


class ResendCode(RequestModel):
    contact: ContactName


def _shown(**example: str) -> ConfigDict:
    """An example of the whole body, where its fields' own do not go together."""
    return ConfigDict(json_schema_extra={"examples": [dict(example)]})


class OneContact(RequestModel):
    """Exactly one of the two."""

    email: Email | None = None
    phone: Phone | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> OneContact:
        if (self.email is None) == (self.phone is None):
            raise PydanticCustomError("parameter_invalid", "give either an email or a phone")
        return self

    def contact(self) -> Contact:
        return contacts.email(self.email) if self.email is not None else contacts.phone(str(self.phone))


class SignIn(OneContact):
    model_config = _shown(email="ada@example.com", password="otters juggle on tuesdays")  # noqa: S106

    password: Password = Field(repr=False, examples=["otters juggle on tuesdays"])


class NewPasswordReset(OneContact):
    model_config = _shown(email="ada@example.com")

    locale: Locale = "en"


class PasswordReset(RequestModel):
    code: Code = Field(repr=False)
    password: Password = Field(repr=False, examples=["otters juggle on tuesdays"])


class NewPassword(RequestModel):
    """`current_password` may be absent where there is none yet and the session is no older than ten minutes."""

    current_password: Password | None = Field(default=None, repr=False)
    password: Password = Field(repr=False, examples=["otters juggle on tuesdays"])


class NewContact(OneContact):
    model_config = _shown(email="ada@example.com")


class Refresh(RequestModel):
    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=100), STORABLE] = Field(repr=False)


class CodeObject(ResponseModel):
    """A one-time code that was sent, as far as anybody but the owner of the address can tell."""

    object: Literal["code"] = "code"
    id: str
    expires_at: Timestamp
    attempts_remaining: int
    resend_after: Timestamp


class RegistrationContact(ResponseModel):
    """`verified`, or what is known of the code that is to prove it."""

    verified: bool
    code_expires_at: Timestamp | None
    attempts_remaining: int | None
    resend_after: Timestamp | None


class RegistrationObject(ResponseModel):
    """`completed` once both contacts are verified: then there is a `user`, and, in that answer alone, a `session`."""

    object: Literal["registration"] = "registration"
    id: str
    status: Literal["pending", "completed"]
    email: RegistrationContact
    phone: RegistrationContact
    user: str | None
    session: SessionObject | None = None
    created: Timestamp
    expires_at: Timestamp


class SessionRecordObject(ResponseModel):
    """A session as its user sees it in a list. `methods` says how the sign-in was proved (RFC 8176)."""

    object: Literal["session"] = "session"
    id: str
    user: str
    methods: list[str]
    device: str | None
    device_name: str | None
    authenticated_at: Timestamp
    created: Timestamp
    refreshed_at: Timestamp
    expires_at: Timestamp
    current: bool = Field(description="Whether it is the session that asks.")


class KeySetObject(ResponseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]
