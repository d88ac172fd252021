"""API keys of an account."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import RequestModel, ResponseModel, Text, Timestamp
from domain.scopes import Scope

ScopeName = Literal[
    "payments:read",
    "payments:write",
    "payment_methods:read",
    "payment_methods:write",
    "users:read",
    "users:write",
    "disputes:read",
    "disputes:write",
    "settlement:read",
    "settlement:write",
    "api_keys:read",
    "api_keys:write",
]
_LONGEST_DAYS = 3660


class NewApiKey(RequestModel):
    """Without `scopes` a secret key may do all that the key may that makes it."""

    kind: Literal["secret", "publishable"] = "secret"
    name: Text | None = None
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=len(Scope))] | None = None
    expires_in_days: Annotated[int, Field(ge=1, le=_LONGEST_DAYS)] | None = None

    @model_validator(mode="after")
    def _publishable_has_none(self) -> NewApiKey:
        if self.kind == "publishable" and self.scopes is not None:
            raise PydanticCustomError("parameter_invalid", "a publishable key has no scopes")
        return self


class RollApiKey(RequestModel):
    overlap_seconds: int = Field(
        default=86_400, ge=0, le=604_800, description="For how long the old key is good still."
    )


class ApiKeyObject(ResponseModel):
    """`scopes` null is all that the role may do. `key` is there once, in the answer that makes it."""

    object: Literal["api_key"] = "api_key"
    id: str
    kind: Literal["secret", "publishable"]
    operator: bool
    name: str | None
    scopes: list[str] | None
    created: Timestamp
    expires_at: Timestamp | None
    replaced_by: str | None
    key: str | None = Field(default=None, repr=False)
