"""Sessions and what keeps them going."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas.common import STORABLE, RequestModel, ResponseModel, Timestamp


class Refresh(RequestModel):
    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=100), STORABLE] = Field(repr=False)


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
