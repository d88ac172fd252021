"""Push messages by Firebase Cloud Messaging (HTTP v1) through `firebase-admin`.

FCM has no idempotency key. A message that is sent twice carries the same Android tag and APNs collapse id, so that the
second replaces the first on the device, and the same `message_id`, by which an app can tell them apart.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import firebase_admin
from firebase_admin import exceptions, messaging
from google.auth.exceptions import GoogleAuthError
from google.oauth2.service_account import Credentials
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from notify.channels.blocking import BlockingCalls, retry_after_seconds
from notify.errors import PermanentRefusal, RecipientGone, TemporaryFailure
from notify.messages import Outgoing, Recipient

_FCM = "https://fcm.googleapis.com/"
# All that sending needs; the SDK's own choice would open the project's databases and files as well.
_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class FcmChannel:
    """`service_account` is the vendor's JSON, as a file or parsed; the token endpoint is the `token_uri` in it.

    `endpoint` (scheme and host) replaces `https://fcm.googleapis.com`.
    """

    def __init__(
        self,
        *,
        service_account: Path | Mapping[str, str],
        endpoint: str | None = None,
        timeout_seconds: float = 10.0,
        threads: int = 4,
    ) -> None:
        account = json.loads(service_account.read_text()) if isinstance(service_account, Path) else service_account
        kind = _LocalCredentials if endpoint else Credentials
        # Apps are registered by name in the process; a name of its own lets several channels live side by side.
        self._app = firebase_admin.initialize_app(
            kind.from_service_account_info(account, scopes=[_SCOPE]),  # type: ignore[no-untyped-call]
            {"httpTimeout": timeout_seconds, "projectId": account["project_id"]},
            name=f"durapay-{secrets.token_hex(4)}",
        )
        # The SDK's own session retries a 503 four times and sleeps as long as `Retry-After` says, in our thread. The
        # caller's retry is durable and better informed, so the message endpoint gets a session adapter without any.
        service = messaging._get_messaging_service(self._app)
        service._client.session.mount(_FCM, _MessageAdapter(endpoint))
        # Fetching an access token may come before the message: two timeouts, and the SDK's short retries between.
        self._calls = BlockingCalls("fcm", threads=threads, deadline_seconds=2 * timeout_seconds + 5)

    def addresses(self, recipient: Recipient) -> tuple[str, ...]:
        return recipient.push_tokens

    async def send(self, message: Outgoing, address: str) -> str:
        return await self._calls.run(lambda: self._send(_push_message(message, address)))

    def _send(self, message: Any) -> str:
        try:
            name: str = messaging.send(message, app=self._app)
        except exceptions.FirebaseError as error:
            raise _translated(error) from None
        except GoogleAuthError:
            raise TemporaryFailure("fcm_credentials") from None
        return name

    async def close(self) -> None:
        """Ends the SDK's app; its own clean-up starts an event loop, so it runs in a thread."""
        await self._calls.run(lambda: firebase_admin.delete_app(self._app))
        self._calls.close()


def _push_message(message: Outgoing, token: str) -> Any:
    content = message.content
    push = messaging.Message(
        notification=messaging.Notification(title=content.title, body=content.body),
        data={"message_id": message.message_id, "kind": message.kind.value},
        android=messaging.AndroidConfig(notification=messaging.AndroidNotification(tag=message.message_id)),
        apns=messaging.APNSConfig(headers={"apns-collapse-id": message.message_id}),
    )
    # The constructor's parameter is deprecated for installation ids; apps that register tokens have no such id.
    push.token = token
    return push


def _translated(error: exceptions.FirebaseError) -> PermanentRefusal | TemporaryFailure:
    match error:
        case messaging.UnregisteredError() | messaging.SenderIdMismatchError():
            return RecipientGone(f"fcm_{error.code}")
        case exceptions.InvalidArgumentError() if _blames_token(error):
            return RecipientGone("fcm_INVALID_TOKEN")
        case exceptions.InvalidArgumentError():
            return PermanentRefusal(f"fcm_{error.code}")
        case exceptions.DeadlineExceededError():
            return TemporaryFailure("timed_out")
    # Throttled, out of order, or a login that is ours to mend: the message stays owed.
    headers = error.http_response.headers if error.http_response is not None else {}
    return TemporaryFailure(f"fcm_{error.code}", retry_after_seconds(headers.get("Retry-After")))


def _blames_token(error: exceptions.FirebaseError) -> bool:
    """Whether the request was invalid because of its token. Any other field of it is our own mistake."""
    if error.http_response is None:
        return False
    details = error.http_response.json().get("error", {}).get("details", [])
    return any(
        violation.get("field") == "message.token"
        for detail in details
        if detail.get("@type") == _BAD_REQUEST
        for violation in detail.get("fieldViolations", [])
    )


class _LocalCredentials(Credentials):
    """A service account that Google does not know: its access tokens go to the sandbox and nowhere else.

    Google's library would ask `iamcredentials.googleapis.com`, with the token, where the account may be used from.
    """

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False


class _MessageAdapter(HTTPAdapter):
    """Sends what is meant for FCM to `endpoint`, if there is one, and never retries."""

    def __init__(self, endpoint: str | None) -> None:
        super().__init__(max_retries=0)
        self._base = urlsplit(endpoint) if endpoint else None

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if self._base is not None:
            url = urlsplit(str(request.url))
            request.url = urlunsplit(url._replace(scheme=self._base.scheme, netloc=self._base.netloc))
        return super().send(request, *args, **kwargs)
