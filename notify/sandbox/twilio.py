"""Twilio's Messages resource (https://www.twilio.com/docs/messaging/api/message-resource), as far as sending goes."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from datetime import datetime
from email.utils import format_datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from notify.sandbox.faults import Fault, Faults, Provider
from notify.sandbox.store import Received, Store
from notify.sandbox.wire import answer, form

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_LONGEST_BODY = 1600

# The numbers of Twilio's own test credentials (https://www.twilio.com/docs/iam/test-credentials).
_REFUSED_NUMBERS = {
    "+15005550001": (21211, "Invalid 'To' Phone Number"),
    "+15005550002": (21612, "The 'To' phone number is not currently reachable via SMS"),
    "+15005550003": (21408, "Permission to send an SMS has not been enabled for the region of the 'To' number"),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient"),
    "+15005550009": (21614, "'To' number is not a valid mobile number"),
}
_INVALID_SENDER = "+15005550001"


def router(store: Store, faults: Faults, account_sid: str, auth_token: str) -> APIRouter:
    routes = APIRouter()

    @routes.post("/2010-04-01/Accounts/{sid}/Messages.json")
    async def create_message(request: Request, sid: str) -> Response:
        fields = await form(request)
        if not _logged_in(request, account_sid, auth_token):
            return _error(401, 20003, "Authenticate")
        if sid != account_sid:
            return _error(404, 20404, "The requested resource was not found")
        return await answer(request, faults, Provider.TWILIO, lambda: _create(store, sid, fields), _failure)

    return routes


def _logged_in(request: Request, account_sid: str, auth_token: str) -> bool:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, f"{account_sid}:{auth_token}".encode())


def _create(store: Store, account_sid: str, fields: dict[str, str]) -> Response:
    to, sender, text = fields.get("To", ""), fields.get("From", ""), fields.get("Body", "")
    refusal = _refusal(to, sender, text)
    if refusal is not None:
        return _error(400, *refusal)
    received = Received(
        id=f"SM{secrets.token_hex(16)}", channel="sms", sender=sender, recipient=to, title="", body=text
    )
    store.keep(received)
    return JSONResponse(_resource(account_sid, received), status_code=201)


def _refusal(to: str, sender: str, text: str) -> tuple[int, str] | None:
    if not to:
        return 21604, "A 'To' phone number is required."
    if not sender:
        return 21603, "A 'From' phone number is required."
    if not text:
        return 21602, "Message body is required."
    if len(text) > _LONGEST_BODY:
        return 21617, "The concatenated message body exceeds the 1600 character limit"
    if sender == _INVALID_SENDER:
        return 21212, "Invalid 'From' Phone Number"
    if not _E164.fullmatch(to):
        return _REFUSED_NUMBERS["+15005550001"]
    return _REFUSED_NUMBERS.get(to)


def _resource(account_sid: str, message: Received) -> dict[str, object]:
    created = format_datetime(datetime.fromisoformat(message.received_at))
    return {
        "sid": message.id,
        "account_sid": account_sid,
        "api_version": "2010-04-01",
        "body": message.body,
        "date_created": created,
        "date_sent": None,
        "date_updated": created,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": message.sender,
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "1",
        "price": None,
        "price_unit": "USD",
        "status": "queued",
        "subresource_uris": {},
        "to": message.recipient,
        "uri": f"/2010-04-01/Accounts/{account_sid}/Messages/{message.id}.json",
    }


def _failure(fault: Fault) -> Response:
    status = fault.status or 500
    codes = {429: (20429, "Too Many Requests"), 503: (20503, "Service is temporarily unavailable")}
    code, message = codes.get(status, (20500, "An internal server error has occurred"))
    return _error(status, code, message, fault.headers())


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    content = {"code": code, "message": message, "more_info": more_info, "status": status}
    return JSONResponse(content, status_code=status, headers=headers)
