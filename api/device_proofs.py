"""Proofs of a device's key at requests (header `DPoP`): required where money moves once a session has a device."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Request

from api.auth import Caller
from api.context import Context
from api.errors import ApiError, unavailable
from identity.devices import Device
from identity.key_errors import ChallengesUnavailable, ProofRefused
from identity.proofs import SignedRequest

ProofHeader = Annotated[
    str | None,
    Header(
        alias="DPoP",
        description="A session that is bound to a device sends a proof of the device's key with what moves money.",
    ),
]
_READING = frozenset({"GET", "HEAD"})


async def require_device_proof(request: Request, context: Context, caller: Caller, proof: ProofHeader = None) -> None:
    """
    Raises:
        ApiError: the session is bound to a device, and the proof is missing or not of this request by that device.
    """
    if request.method in _READING or caller.session is None:
        return
    device = await context.identity.devices.bound_to(caller.session.session_id)
    if device is None:
        return
    if proof is None:
        raise ApiError("device_proof_missing", "The session is bound to a device: send its proof.", "DPoP")
    token = request.headers["authorization"].partition(" ")[2]
    try:
        await context.identity.devices.check(device, proof, await signed_request(context, request, token))
    except ProofRefused as refused:
        raise ApiError("device_proof_invalid", f"The proof is no good: {refused.reason}.", "DPoP") from None
    except ChallengesUnavailable:
        raise unavailable("memory of proofs") from None


async def signing_device(request: Request, context: Context, account_id: str, proof: str | None) -> Device | None:
    """The device that signed a sign-in, if one did; the session is bound to it then.

    Raises:
        ApiError: the proof is no good.
    """
    if proof is None:
        return None
    try:
        return await context.identity.devices.signing(account_id, proof, await signed_request(context, request, None))
    except ProofRefused as refused:
        raise ApiError("device_proof_invalid", f"The proof is no good: {refused.reason}.", "DPoP") from None
    except ChallengesUnavailable:
        raise unavailable("memory of proofs") from None


async def signed_request(context: Context, request: Request, token: str | None) -> SignedRequest:
    url = context.identity.devices.audience + request.url.path
    return SignedRequest(request.method, url, await request.body(), token)
