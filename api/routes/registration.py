"""Registration, sign-in by password, passwords and contacts.

Whether an address belongs to a user shows in no answer here: neither in what is said nor in how long it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Request, Response

from api.auth import App, Caller, client_address
from api.context import Context
from api.errors import ApiError, missing, unavailable
from api.idempotency import KeyHeader, reserve
from api.routes.auth import session_object
from api.routes.users import visible_user
from api.schemas.auth import (
    CodeGiven,
    CodeObject,
    ContactName,
    NewContact,
    NewPassword,
    NewPasswordReset,
    NewRegistration,
    PasswordReset,
    RegistrationContact,
    RegistrationObject,
    ResendCode,
    SignIn,
)
from api.schemas.users import SessionObject
from domain.errors import NotFound
from domain.ids import REGISTRATION
from identity import contacts
from identity.codes import Asked
from identity.contacts import ContactKind
from identity.errors import (
    Busy,
    CodeAttemptsExceeded,
    CodeExpired,
    CodeIncorrect,
    CodeUsed,
    ContactTaken,
    LockedOut,
    LocksUnavailable,
    PasswordIncorrect,
    PasswordRefused,
    SessionsUnavailable,
    TooManyCodes,
)
from identity.registration import Applicant, Registration
from identity.sessions import OpenSession

router = APIRouter(prefix="/v1", tags=["Registration"])


@router.post("/registrations", status_code=201, summary="Register a user")
async def begin_registration(
    body: NewRegistration, request: Request, context: Context, caller: App, key: KeyHeader = None
) -> RegistrationObject:
    """Sends a code to the e-mail address and one to the phone. A user's address gets another text."""
    email, phone = contacts.email(body.email), contacts.phone(body.phone)
    # A digest of these is kept: never of the password.
    asked = {"name": body.name, "email": email.address, "phone": phone.address, "locale": body.locale}
    reservation = await reserve(context.reader, request, caller, key, REGISTRATION, asked)
    applicant = Applicant(body.name, email, phone, body.locale, body.password)
    with _refusals("registration", reservation.resource_id):
        begun = await context.identity.registrations.begin(caller.account_id, reservation.resource_id, applicant)
    return _registration_object(begun)


@router.get("/registrations/{registration_id}", summary="Retrieve a registration")
async def get_registration(registration_id: str, context: Context, caller: App) -> RegistrationObject:
    with _refusals("registration", registration_id):
        return _registration_object(await context.identity.registrations.find(caller.account_id, registration_id))


@router.post("/registrations/{registration_id}/verify_email", summary="Verify the e-mail address")
async def verify_email(
    registration_id: str, body: CodeGiven, request: Request, context: Context, caller: App
) -> RegistrationObject:
    """The code of the e-mail. Whichever of the two codes comes second makes the user, and opens a session."""
    return await _verify(registration_id, ContactKind.EMAIL, body, request, context, caller)


@router.post("/registrations/{registration_id}/verify_phone", summary="Verify the phone")
async def verify_phone(
    registration_id: str, body: CodeGiven, request: Request, context: Context, caller: App
) -> RegistrationObject:
    """The code of the SMS. Whichever of the two codes comes second makes the user, and opens a session."""
    return await _verify(registration_id, ContactKind.PHONE, body, request, context, caller)


@router.post("/registrations/{registration_id}/resend", summary="Send a code again")
async def resend_code(registration_id: str, body: ResendCode, context: Context, caller: App) -> RegistrationObject:
    """Another code to the same address; the one before is good no more. The attempts are counted on."""
    kind = ContactKind(body.contact)
    with _refusals("registration", registration_id):
        found = await context.identity.registrations.send_again(caller.account_id, registration_id, kind)
    return _registration_object(found)


@router.post("/sessions", status_code=201, summary="Sign in by password")
async def sign_in(body: SignIn, request: Request, context: Context, caller: App) -> SessionObject:
    """With a verified e-mail address or phone. What fails is counted, by user and by network address."""
    with _refusals("session", ""):
        opened = await context.identity.credentials.sign_in(
            caller.account_id,
            body.contact(),
            body.password,
            address=client_address(request),
            device_name=_device_name(request),
        )
    return session_object(opened)


@router.post("/password_resets", status_code=201, summary="Ask for a code that resets a password")
async def ask_reset(body: NewPasswordReset, context: Context, caller: App) -> CodeObject:
    """Goes to the address if it is a verified one of a user. The answer is the same if it is not."""
    with _refusals("code", ""):
        return _code_object(
            await context.identity.credentials.ask_reset(caller.account_id, body.contact(), body.locale)
        )


@router.post("/password_resets/{code_id}/confirm", status_code=204, summary="Reset a password")
async def reset_password(code_id: str, body: PasswordReset, context: Context, caller: App) -> Response:
    """Ends all sessions of the user, and tells them."""
    with _refusals("code", code_id):
        await context.identity.credentials.reset(caller.account_id, code_id, body.code, body.password)
    return Response(status_code=204)


@router.post("/users/{user_id}/password", status_code=204, tags=["Users"], summary="Change a password")
async def change_password(
    user_id: str, body: NewPassword, request: Request, context: Context, caller: Caller
) -> Response:
    """Ends all other sessions of the user, and tells them."""
    await visible_user(context, caller, user_id)
    if caller.session is None:
        raise ApiError("permission_denied", "This needs the user's session.")
    with _refusals("user", user_id, "current_password"):
        await context.identity.credentials.change_password(
            caller.session, body.current_password, body.password, address=client_address(request)
        )
    return Response(status_code=204)


@router.post("/users/{user_id}/contact_changes", status_code=201, tags=["Users"], summary="Change a contact")
async def ask_contact(user_id: str, body: NewContact, context: Context, caller: Caller) -> CodeObject:
    """Sends a code to what is to be the user's e-mail address or phone."""
    user = await visible_user(context, caller, user_id)
    with _refusals("user", user_id):
        return _code_object(
            await context.identity.credentials.ask_contact(caller.account_id, user_id, body.contact(), user["locale"])
        )


@router.post(
    "/users/{user_id}/contact_changes/{code_id}/confirm", status_code=204, tags=["Users"], summary="Confirm a contact"
)
async def change_contact(user_id: str, code_id: str, body: CodeGiven, context: Context, caller: Caller) -> Response:
    """It is the user's from then on, and what they sign in with. They are told everywhere, and once more at the address
    or number that it replaces."""
    await visible_user(context, caller, user_id)
    with _refusals("code", code_id):
        await context.identity.credentials.change_contact(caller.account_id, user_id, code_id, body.code)
    return Response(status_code=204)


async def _verify(
    registration_id: str, kind: ContactKind, body: CodeGiven, request: Request, context: Context, caller: App
) -> RegistrationObject:
    with _refusals("registration", registration_id):
        found, opened = await context.identity.registrations.verify(
            caller.account_id, registration_id, kind, body.code, _device_name(request)
        )
    return _registration_object(found, opened)


@contextmanager
def _refusals(kind: str, identifier: str, wrong_param: str = "password") -> Iterator[None]:
    """What the services refuse, in the API's words."""
    try:
        yield
    except NotFound:
        raise missing(kind, identifier) from None
    except PasswordRefused as refused:
        raise ApiError("password_refused", f"The password {refused.reason}.", "password") from None
    except CodeIncorrect as wrong:
        left = {"attempts_remaining": wrong.attempts_remaining}
        raise ApiError("code_incorrect", "The code is wrong.", "code", extra=left) from None
    except CodeExpired:
        raise ApiError("code_expired", "The code has expired.", "code") from None
    except CodeUsed:
        raise ApiError("code_used", "The code was used.", "code") from None
    except CodeAttemptsExceeded:
        raise ApiError("code_attempts_exceeded", "No attempt is left.", "code") from None
    except ContactTaken:
        raise ApiError("contact_taken", "The contact is another user's by now.") from None
    except TooManyCodes as error:
        wait = error.retry_after_seconds
        raise ApiError("too_many_codes", "The address was sent enough codes.", retry_after_seconds=wait) from None
    except PasswordIncorrect:
        if kind == "session":
            raise ApiError("sign_in_failed", "There is no user with this contact and password.") from None
        raise ApiError("password_incorrect", "The current password is wrong.", wrong_param) from None
    except LockedOut as error:
        wait = error.retry_after_seconds
        raise ApiError("sign_in_locked", "Too many attempts failed.", retry_after_seconds=wait) from None
    except (LocksUnavailable, SessionsUnavailable, Busy):
        raise unavailable("sign-in") from None


def _registration_object(registration: Registration, opened: OpenSession | None = None) -> RegistrationObject:
    return RegistrationObject(
        id=registration.id,
        status="pending" if registration.user_id is None else "completed",
        email=_contact(registration, "email"),
        phone=_contact(registration, "phone"),
        user=registration.user_id,
        session=None if opened is None else session_object(opened),
        created=registration.created_at,
        expires_at=registration.expires_at,
    )


def _contact(registration: Registration, name: ContactName) -> RegistrationContact:
    code = registration.codes[ContactKind(name)]
    if code is None:
        return RegistrationContact(verified=True, code_expires_at=None, attempts_remaining=None, resend_after=None)
    return RegistrationContact(
        verified=False,
        code_expires_at=code.expires_at,
        attempts_remaining=code.attempts_remaining,
        resend_after=code.resend_after,
    )


def _code_object(asked: Asked) -> CodeObject:
    return CodeObject(
        id=asked.id,
        expires_at=asked.expires_at,
        attempts_remaining=asked.attempts_remaining,
        resend_after=asked.resend_after,
    )


def _device_name(request: Request) -> str | None:
    """What the app or the browser calls itself, for the list of sessions."""
    name = request.headers.get("user-agent", "")
    return "".join(character for character in name if character.isprintable())[:200] or None
