"""Passkeys: added, listed, renamed, removed, and signed in with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.auth import App, Caller, Principal
from api.context import Context
from api.device_proofs import ProofHeader, signing_device
from api.errors import ApiError, missing, unavailable
from api.routes.auth import session_object
from api.routes.users import visible_user
from api.schemas.common import Page
from api.schemas.passkeys import NewPasskey, OptionsObject, PasskeyName, PasskeyObject, PasskeySignIn
from api.schemas.users import SessionObject
from identity.errors import SessionsUnavailable
from identity.key_errors import (
    ChallengeRefused,
    ChallengesUnavailable,
    LastWayIn,
    PasskeyRefused,
    PasskeySuspended,
    PasskeyTaken,
    TooManyPasskeys,
)
from identity.passkeys import MAX_PASSKEYS, Passkey, is_fresh
from identity.tokens import SessionClaims

router = APIRouter(prefix="/v1", tags=["Passkeys"])


@router.post("/passkeys/registration_options", summary="Begin to add a passkey")
async def registration_options(context: Context, caller: Caller) -> OptionsObject:
    """What the browser makes a passkey of, within five minutes. The sign-in must be at most ten minutes old."""
    session = fresh_session(caller)
    user = await visible_user(context, caller, session.user_id)
    with _refusals():
        options = await context.identity.passkeys.registration_options(session, user["email"] or user["name"])
    return OptionsObject(public_key=options.public_key, expires_at=options.expires_at)


@router.post("/passkeys", status_code=201, summary="Add a passkey")
async def add_passkey(body: NewPasskey, context: Context, caller: Caller) -> PasskeyObject:
    """What the authenticator made. The user is told. A challenge is good once, so nothing is added twice."""
    session = fresh_session(caller)
    with _refusals():
        return _shown(await context.identity.passkeys.add(session, body.credential.document(), body.name))


@router.get("/passkeys", summary="List passkeys, newest first")
async def list_passkeys(
    context: Context, caller: Caller, user: Annotated[str | None, Query(description="With an API key: whose")] = None
) -> Page[PasskeyObject]:
    user_id = await whose(context, caller, user)
    data = [_shown(passkey) for passkey in await context.identity.passkeys.list_of(user_id)]
    return Page(url="/v1/passkeys", has_more=False, data=data)


@router.get("/passkeys/{passkey_id}", summary="Retrieve a passkey")
async def get_passkey(passkey_id: str, context: Context, caller: Caller) -> PasskeyObject:
    return _shown(await _visible(context, caller, passkey_id))


@router.post("/passkeys/{passkey_id}", summary="Rename a passkey")
async def rename_passkey(passkey_id: str, body: PasskeyName, context: Context, caller: Caller) -> PasskeyObject:
    passkey = await _visible(context, caller, passkey_id)
    renamed = await context.identity.passkeys.rename(passkey.user_id, passkey_id, body.name)
    if renamed is None:
        raise missing("passkey", passkey_id)
    return _shown(renamed)


@router.delete("/passkeys/{passkey_id}", status_code=204, summary="Remove a passkey")
async def remove_passkey(passkey_id: str, context: Context, caller: Caller) -> Response:
    """For good, and the user is told. The only passkey of a user without a password stays."""
    if caller.session is not None:
        fresh_session(caller)
    passkey = await _visible(context, caller, passkey_id)
    with _refusals():
        found = await context.identity.passkeys.remove(passkey.account_id, passkey.user_id, passkey_id)
    if not found:
        raise missing("passkey", passkey_id)
    return Response(status_code=204)


@router.post("/sessions/passkey_options", tags=["Sessions"], summary="Begin to sign in by passkey")
async def sign_in_options(context: Context, caller: App) -> OptionsObject:
    """The same for everybody: the authenticator knows whose passkeys it has."""
    with _refusals():
        options = await context.identity.passkeys.sign_in_options(caller.account_id)
    return OptionsObject(public_key=options.public_key, expires_at=options.expires_at)


@router.post("/sessions/passkey", status_code=201, tags=["Sessions"], summary="Sign in by passkey")
async def sign_in(
    body: PasskeySignIn, request: Request, context: Context, caller: App, proof: ProofHeader = None
) -> SessionObject:
    """A session of the user whose passkey signed. With a device's proof (`DPoP`) it is bound to that device."""
    device = await signing_device(request, context, caller.account_id, proof)
    with _refusals(signing_in=True):
        opened = await context.identity.passkeys.sign_in(
            caller.account_id,
            body.credential.document(),
            device=device,
            device_name=request.headers.get("user-agent", "")[:200] or None,
        )
    return session_object(opened)


def fresh_session(caller: Principal) -> SessionClaims:
    """The session of a user who has proved lately who they are.

    Raises:
        ApiError
    """
    if caller.session is None:
        raise ApiError("permission_denied", "This needs the user's session.")
    if not is_fresh(caller.session):
        raise ApiError("reauthentication_required", "Sign in again: this session's sign-in is too old for that.")
    return caller.session


async def whose(context: Context, caller: Principal, user: str | None) -> str:
    """The user that a list is of: the session's own, or whom an API key names."""
    user_id = caller.user_id if user is None else user
    if user_id is None:
        raise ApiError("parameter_missing", "Say whose: with an API key `user` is needed.", "user")
    await visible_user(context, caller, user_id, "user")
    return user_id


async def _visible(context: Context, caller: Principal, passkey_id: str) -> Passkey:
    passkey = await context.identity.passkeys.find(caller.account_id, passkey_id)
    if passkey is None or not caller.may_see(passkey.user_id):
        raise missing("passkey", passkey_id)
    return passkey


@contextmanager
def _refusals(*, signing_in: bool = False) -> Iterator[None]:
    try:
        yield
    except ChallengeRefused:
        raise ApiError("challenge_expired", "The challenge was used, has expired, or is not yours.") from None
    except PasskeyRefused:
        if signing_in:
            raise ApiError("passkey_not_accepted", "The passkey does not sign anybody in.", "credential") from None
        raise ApiError("passkey_invalid", "The passkey was not made as asked.", "credential") from None
    except PasskeySuspended:
        raise ApiError("passkey_suspended", "The passkey is suspended; its user was told.", "credential") from None
    except PasskeyTaken:
        raise ApiError("passkey_exists", "The passkey is known already.", "credential") from None
    except TooManyPasskeys:
        raise ApiError("passkey_limit_reached", f"A user may have {MAX_PASSKEYS} passkeys.") from None
    except LastWayIn:
        raise ApiError("passkey_last", "It is the user's only way in: add another, or set a password.") from None
    except (ChallengesUnavailable, SessionsUnavailable):
        raise unavailable("memory of challenges") from None


def _shown(passkey: Passkey) -> PasskeyObject:
    return PasskeyObject(
        id=passkey.id,
        user=passkey.user_id,
        name=passkey.name,
        status="active" if passkey.suspended_at is None else "suspended",
        aaguid=str(passkey.aaguid),
        transports=list(passkey.transports),
        synced=passkey.backed_up,
        created=passkey.created_at,
        last_used_at=passkey.last_used_at,
    )
