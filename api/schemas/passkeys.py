"""Passkeys as WebAuthn's JSON has them (Level 3, section 5.1.8): what a browser's `toJSON()` gives goes in as it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.common import RequestModel, ResponseModel, Text, Timestamp

_Base64Url = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=32_768),
    Field(examples=["eyJ0eXBlIjoid2ViYXV0aG4uZ2V0In0"]),
]


class _FromAuthenticator(BaseModel):
    """Browsers add fields from one version to the next; what is not known here is left out."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    def document(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class AttestationResponse(_FromAuthenticator):
    client_data: _Base64Url = Field(alias="clientDataJSON", repr=False)
    attestation_object: _Base64Url = Field(alias="attestationObject", repr=False)
    transports: Annotated[list[Annotated[str, StringConstraints(max_length=32)]], Field(max_length=16)] | None = None


class AssertionResponse(_FromAuthenticator):
    client_data: _Base64Url = Field(alias="clientDataJSON", repr=False)
    authenticator_data: _Base64Url = Field(alias="authenticatorData", repr=False)
    signature: _Base64Url = Field(repr=False)
    user_handle: _Base64Url | None = Field(default=None, alias="userHandle", repr=False)


class _Credential(_FromAuthenticator):
    id: _Base64Url
    raw_id: _Base64Url = Field(alias="rawId")
    type: Literal["public-key"]


class RegistrationCredential(_Credential):
    """RegistrationResponseJSON."""

    response: AttestationResponse


class AssertionCredential(_Credential):
    """AuthenticationResponseJSON."""

    response: AssertionResponse


class NewPasskey(RequestModel):
    name: Text = Field(examples=["Ada's phone"])
    credential: RegistrationCredential


class PasskeyName(RequestModel):
    name: Text = Field(examples=["Ada's old phone"])


class PasskeySignIn(RequestModel):
    credential: AssertionCredential


class OptionsObject(ResponseModel):
    """`public_key` goes into `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`."""

    object: Literal["passkey_options"] = "passkey_options"
    public_key: dict[str, Any]
    expires_at: Timestamp


class PasskeyObject(ResponseModel):
    """`synced`: the passkey is on more than one device. A suspended one signs nobody in, and cannot be mended."""

    object: Literal["passkey"] = "passkey"
    id: str
    user: str
    name: str
    status: Literal["active", "suspended"]
    aaguid: str
    transports: list[str]
    synced: bool
    created: Timestamp
    last_used_at: Timestamp | None
