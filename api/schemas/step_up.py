"""What a payer confirms a payment with."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import RequestModel, ResponseModel, Str, Timestamp
from api.schemas.passkeys import AssertionCredential


class PasskeyAnswer(RequestModel):
    """What the payer's passkey signed: `challenge` is the id from `GET …/step_up`."""

    challenge: Str = Field(examples=["suc_…"], max_length=64)
    credential: AssertionCredential


class ConfirmPaymentBody(RequestModel):
    """The one-time code that the payer got by SMS, or what their passkey signed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "123456"}]})

    code: Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")] | None = Field(default=None, examples=["123456"])
    passkey: PasskeyAnswer | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.code is None and self.passkey is None:
            raise PydanticCustomError("parameter_missing", "give a code, or what a passkey signed", {"param": "code"})
        if self.code is not None and self.passkey is not None:
            raise PydanticCustomError("parameter_invalid", "give a code or a passkey, not both", {"param": "passkey"})
        return self


class StepUpPasskey(ResponseModel):
    """`public_key` goes into `PublicKeyCredential.parseRequestOptionsFromJSON`. Its challenge is the SHA-256 of
    `document`, which says what is confirmed: an app shows it, and may check it."""

    challenge: str
    public_key: dict[str, Any]
    document: str
    expires_at: Timestamp


class StepUpObject(ResponseModel):
    """How this payment can be confirmed: `passkey` is absent for a payer who has none."""

    object: Literal["step_up"] = "step_up"
    payment: str
    methods: list[Literal["code", "passkey"]]
    passkey: StepUpPasskey | None
