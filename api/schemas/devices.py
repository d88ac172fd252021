"""Devices and their keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas.common import RequestModel, ResponseModel, Text, Timestamp
from api.schemas.passkeys import RegistrationCredential

Platform = Literal["android", "ios", "web"]


class AttestationBody(RequestModel):
    """What the platform says of the device's key. `object` is kept as it comes; `credential`, for the formats of
    WebAuthn, is verified too: a RegistrationResponseJSON over the same challenge, by the same key."""

    format: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] = Field(examples=["android-key"])
    object: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=43_000)] = Field(
        repr=False, examples=["o2NmbXRkbm9uZQ"]
    )
    credential: RegistrationCredential | None = None


class NewDevice(RequestModel):
    """`proof` is a JWS (ES256) of type `device-registration+jwt` with the public key as `jwk` in its header, and
    `challenge`, `aud` and `iat` as claims."""

    name: Text = Field(examples=["Ada's phone"])
    platform: Platform
    proof: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")] = Field(
        max_length=4096, repr=False, examples=["eyJhbGciOiJFUzI1NiJ9.eyJjaGFsbGVuZ2UiOiJBQSJ9.AAAA"]
    )
    attestation: AttestationBody | None = None


class DeviceChallengeObject(ResponseModel):
    """`challenge` (base64url) and `audience` go into the proof."""

    object: Literal["device_challenge"] = "device_challenge"
    challenge: str
    audience: str
    expires_at: Timestamp


class DeviceObject(ResponseModel):
    """`thumbprint` is the key's of RFC 7638. `attestation` says what is known of where the key lives."""

    object: Literal["device"] = "device"
    id: str
    user: str
    name: str
    platform: Platform
    thumbprint: str
    attestation: Literal["none", "stored", "verified"]
    current: bool
    created: Timestamp
