"""Users, their sessions, their messages and the devices that notifications are pushed to."""

from __future__ import annotations

from typing import Annotated, Literal

import phonenumbers
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from api.schemas.common import STORABLE, RequestModel, ResponseModel, Text, Timestamp


def _e164(value: str) -> str:
    try:
        number = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_possible_number(number):
        raise PydanticCustomError("phone_invalid", "must be a phone number in international form, such as +14155550100")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]{1,64}@[^@\s]+\.[^@\s.]{2,}$", max_length=254), STORABLE]
Phone = Annotated[str, StringConstraints(max_length=32), AfterValidator(_e164)]


class NewUser(RequestModel):
    name: Text = Field(examples=["Ada Lovelace"])
    email: Email | None = Field(default=None, examples=["ada@example.com"])
    phone: Phone | None = Field(default=None, examples=["+14155550100"])
    locale: Literal["en", "de"] = "en"


class UserObject(ResponseModel):
    object: Literal["user"] = "user"
    id: str
    name: str
    email: str | None
    phone: str | None
    locale: str
    livemode: bool
    created: Timestamp


class SessionObject(ResponseModel):
    """A user's session with its tokens, which are shown this once.

    `token` (a JWT) opens the API until `expires_at`; `refresh_token` gets the next pair, once, until
    `refresh_expires_at`.
    """

    object: Literal["session"] = "session"
    id: str
    user: str
    token: str = Field(repr=False)
    expires_at: Timestamp
    refresh_token: str = Field(repr=False)
    refresh_expires_at: Timestamp


class NewPushToken(RequestModel):
    token: Annotated[str, StringConstraints(min_length=8, max_length=4096), STORABLE]
    platform: Literal["ios", "android", "web"]


class PushTokenObject(ResponseModel):
    object: Literal["push_token"] = "push_token"
    user: str
    platform: str


class MessageObject(ResponseModel):
    """An in-app message."""

    object: Literal["message"] = "message"
    id: str
    kind: str
    title: str
    body: str
    created: Timestamp
    read_at: Timestamp | None
