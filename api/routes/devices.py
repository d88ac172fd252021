"""Devices: registered by a proof of their key, listed, revoked."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import Caller, Principal
from api.context import Context
from api.errors import ApiError, missing, unavailable
from api.routes.passkeys import fresh_session, whose
from api.schemas.common import Page
from api.schemas.devices import AttestationBody, DeviceChallengeObject, DeviceObject, NewDevice
from identity import devices
from identity.devices import Attestation, Device
from identity.errors import SessionsUnavailable
from identity.key_errors import ChallengeRefused, ChallengesUnavailable, DeviceRefused, DeviceTaken
from identity.proofs import base64url

router = APIRouter(prefix="/v1/devices", tags=["Devices"])


@router.post("/registration_options", summary="Begin to register a device")
async def registration_options(context: Context, caller: Caller) -> DeviceChallengeObject:
    """A challenge for the device's key to sign within five minutes."""
    session = fresh_session(caller)
    try:
        challenge = await context.identity.devices.registration_options(session)
    except ChallengesUnavailable:
        raise unavailable("memory of challenges") from None
    audience = context.identity.devices.audience
    return DeviceChallengeObject(
        challenge=base64url(challenge.value), audience=audience, expires_at=challenge.expires_at
    )


@router.post("", status_code=201, summary="Register a device")
async def register_device(body: NewDevice, context: Context, caller: Caller) -> DeviceObject:
    """Binds the session that asks to the device: from then on its requests that move money carry the device's proof."""
    session = fresh_session(caller)
    attestation = None if body.attestation is None else _attestation(body.attestation)
    new = devices.NewDevice(body.name, body.platform, body.proof, attestation)
    try:
        device = await context.identity.devices.register(session, new)
    except ChallengeRefused:
        raise ApiError("challenge_expired", "The challenge was used, has expired, or is not yours.", "proof") from None
    except DeviceRefused as refused:
        raise ApiError("device_invalid", f"The device was not taken: {refused.reason}.", "proof") from None
    except DeviceTaken:
        raise ApiError("device_exists", "The key is that of a device that is known, or was revoked.", "proof") from None
    except ChallengesUnavailable:
        raise unavailable("memory of challenges") from None
    return _shown(device, await _bound(context, caller))


@router.get("", summary="List devices, newest first")
async def list_devices(
    context: Context, caller: Caller, user: Annotated[str | None, Query(description="With an API key: whose")] = None
) -> Page[DeviceObject]:
    found = await context.identity.devices.list_of(await whose(context, caller, user))
    current = await _bound(context, caller)
    data = [_shown(device, current) for device in found]
    return Page(url="/v1/devices", has_more=False, data=data)


@router.get("/{device_id}", summary="Retrieve a device")
async def get_device(device_id: str, context: Context, caller: Caller) -> DeviceObject:
    return _shown(await _visible(context, caller, device_id), await _bound(context, caller))


@router.delete("/{device_id}", status_code=204, summary="Revoke a device")
async def revoke_device(device_id: str, context: Context, caller: Caller) -> Response:
    """Ends its sessions, forgets its push tokens, and tells the user. Its key is never taken again."""
    device = await _visible(context, caller, device_id)
    try:
        await context.identity.devices.revoke(device)
    except SessionsUnavailable:
        # It is revoked in the database. Whoever asks again is told once that counts everywhere.
        raise unavailable("register of sessions") from None
    return Response(status_code=204)


async def _visible(context: Context, caller: Principal, device_id: str) -> Device:
    device = await context.identity.devices.find(caller.account_id, device_id)
    if device is None or not caller.may_see(device.user_id):
        raise missing("device", device_id)
    return device


def _attestation(body: AttestationBody) -> Attestation:
    try:
        raw = base64.b64decode(body.object.encode() + b"=" * (-len(body.object) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ApiError("parameter_invalid", "The attestation must be base64url.", "attestation.object") from None
    return Attestation(body.format, raw, body.credential.document() if body.credential else None)


async def _bound(context: Context, caller: Principal) -> str | None:
    """The device of the session that asks."""
    device = await context.identity.devices.bound_to(caller.session.session_id) if caller.session else None
    return None if device is None else device.id


def _shown(device: Device, current: str | None) -> DeviceObject:
    return DeviceObject(
        id=device.id,
        user=device.user_id,
        name=device.name,
        platform=device.platform,
        thumbprint=base64url(device.thumbprint),
        attestation=device.attested,
        current=device.id == current,
        created=device.created_at,
    )
