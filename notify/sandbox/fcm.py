"""FCM's HTTP v1 `messages:send` and the OAuth token endpoint before it.

The token endpoint takes a JWT that the service account signed (RFC 7523) and verifies it with the account's public key.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from notify.sandbox.faults import Fault, Faults, Provider
from notify.sandbox.store import Received, Store
from notify.sandbox.wire import answer, body, form

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPES = frozenset(
    {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
)
# Google's library asks for a token in this name wherever it sends the request to.
_GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_TOKEN_SECONDS = 3599
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class ServiceAccount:
    """The public half of a service account file."""

    def __init__(self, content: dict[str, str]) -> None:
        private_key = load_pem_private_key(content["private_key"].encode(), password=None)
        self.public_key = private_key.public_key()
        self.key_id = content["private_key_id"]
        self.project_id = content["project_id"]
        self.client_email = content["client_email"]
        self.audiences = (content["token_uri"], _GOOGLE_TOKEN_URI)

    def verify(self, assertion: str) -> None:
        """
        Raises:
            jwt.InvalidTokenError: the account did not sign it, or not for sending messages.
        """
        if jwt.get_unverified_header(assertion).get("kid") != self.key_id:
            raise jwt.InvalidKeyError("unknown key")
        claims = jwt.decode(
            assertion,
            self.public_key,  # type: ignore[arg-type]
            algorithms=["RS256"],
            audience=self.audiences,
            issuer=self.client_email,
            options={"require": ["exp", "iat", "iss", "aud", "scope"]},
        )
        if not _SCOPES & set(str(claims["scope"]).split()):
            raise jwt.InvalidTokenError("no scope for messages")


def router(store: Store, faults: Faults, account: ServiceAccount) -> APIRouter:
    routes = APIRouter()

    @routes.post("/token")
    async def grant_token(request: Request) -> Response:
        fields = await form(request)
        if fields.get("grant_type") != _JWT_BEARER:
            return _oauth_error("unsupported_grant_type", f"only {_JWT_BEARER}")
        try:
            account.verify(fields.get("assertion", ""))
        except jwt.InvalidTokenError as error:
            return _oauth_error("invalid_grant", f"Invalid JWT: {error}")
        access_token = secrets.token_urlsafe(32)
        store.grant(access_token, time.time() + _TOKEN_SECONDS)
        return JSONResponse({"access_token": access_token, "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"})

    @routes.post("/v1/projects/{project}/messages:send")
    async def send_message(request: Request, project: str) -> Response:
        content = await body(request)
        scheme, _, access_token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not store.granted(access_token, time.time()):
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if project != account.project_id:
            return _error(403, "PERMISSION_DENIED", "Permission denied on the project.")
        return await answer(request, faults, Provider.FCM, lambda: _send(store, project, content), _failure)

    return routes


def _send(store: Store, project: str, content: bytes) -> Response:
    try:
        order: dict[str, Any] = json.loads(content)
        message = order["message"]
        token: str = message["token"]
        notification = message.get("notification", {})
        title, text, data = notification.get("title", ""), notification.get("body", ""), message.get("data", {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "INVALID_ARGUMENT")
    if token.startswith("unregistered"):
        return _error(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
    if not token or token.startswith("invalid"):
        return _invalid_token()
    name = f"projects/{project}/messages/{secrets.token_hex(8)}"
    if not order.get("validate_only"):
        store.keep(
            Received(id=name, channel="push", sender=project, recipient=token, title=title, body=text, data=data)
        )
    return JSONResponse({"name": name})


def _failure(fault: Fault) -> Response:
    status = fault.status or 500
    names = {
        429: ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        500: ("INTERNAL", "INTERNAL"),
        503: ("UNAVAILABLE", "UNAVAILABLE"),
    }
    name, fcm_code = names.get(status, ("UNKNOWN", "UNSPECIFIED_ERROR"))
    return _error(status, name, "The service is failing on request.", fcm_code, fault.headers())


def _invalid_token() -> Response:
    details = [
        {"@type": _FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
        {"@type": _BAD_REQUEST, "fieldViolations": [{"field": "message.token", "description": "Invalid registration"}]},
    ]
    message = "The registration token is not a valid FCM registration token"
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}
    return JSONResponse({"error": error}, status_code=400)


def _error(
    status: int, name: str, message: str, fcm_code: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    details = [{"@type": _FCM_ERROR, "errorCode": fcm_code}] if fcm_code else []
    error = {"code": status, "message": message, "status": name, "details": details}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def _oauth_error(code: str, description: str) -> Response:
    return JSONResponse({"error": code, "error_description": description}, status_code=400)
