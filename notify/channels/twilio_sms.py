"""SMS by Twilio's SDK.

The Messages resource has no idempotency key: when an answer is lost after Twilio took the message, the retry sends a
second one. The SDK is used as it is; only the host of its requests can be replaced.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from requests.exceptions import RequestException, Timeout
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from notify.channels.blocking import BlockingCalls, retry_after_seconds
from notify.errors import PermanentRefusal, TemporaryFailure
from notify.messages import Outgoing, Recipient

# 400s that are about us and not about the recipient (https://www.twilio.com/docs/api/errors): the sender's number, an
# empty or too long text. An operator can mend these, so the message stays owed. Twilio refines its codes now and then,
# so every other 400 counts as the recipient's.
_OUR_FAULT = frozenset({21212, 21601, 21602, 21603, 21605, 21606, 21617, 21618, 21659, 21660, 21661, 21703})


class TwilioSmsChannel:
    """`endpoint` (scheme and host) replaces `https://api.twilio.com`; `sender` is a number of ours."""

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str,
        sender: str,
        endpoint: str | None = None,
        timeout_seconds: float = 10.0,
        threads: int = 4,
    ) -> None:
        http_client = _HttpClient(endpoint, timeout_seconds)
        # Looked up here: the SDK imports its API at the first use, which takes longer than a message may.
        self._messages = Client(account_sid, auth_token, http_client=http_client).messages
        self._sender = sender
        self._calls = BlockingCalls("twilio", threads=threads, deadline_seconds=2 * timeout_seconds)

    def addresses(self, recipient: Recipient) -> tuple[str, ...]:
        return (recipient.phone,) if recipient.phone else ()

    async def send(self, message: Outgoing, address: str) -> str:
        return await self._calls.run(lambda: self._send(address, message.content.body))

    def _send(self, to: str, body: str) -> str:
        try:
            created = self._messages.create(to=to, from_=self._sender, body=body)
        except TwilioRestException as error:
            raise _translated(error) from None
        except Timeout:
            raise TemporaryFailure("timed_out") from None
        except RequestException:
            raise TemporaryFailure("unreachable") from None
        sid: str = created.sid
        return sid

    async def close(self) -> None:
        self._calls.close()


def _translated(error: TwilioRestException) -> PermanentRefusal | TemporaryFailure:
    # A refused login or a missing account is ours to mend, never a reason to write the recipient off.
    if error.status == 400 and error.code not in _OUR_FAULT:
        return PermanentRefusal(f"twilio_{error.code}")
    return TemporaryFailure(f"twilio_{error.code or error.status}")


class _HttpClient(TwilioHttpClient):  # type: ignore[misc]
    """Replaces the host, and reads `Retry-After`, which the SDK's exceptions drop."""

    def __init__(self, endpoint: str | None, timeout_seconds: float) -> None:
        super().__init__(timeout=timeout_seconds)
        self._base = urlsplit(endpoint) if endpoint else None

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        if self._base is not None:
            url = urlunsplit(urlsplit(url)._replace(scheme=self._base.scheme, netloc=self._base.netloc))
        response = super().request(method, url, *args, **kwargs)
        if response.status_code == 429 or response.status_code >= 500:
            delay = retry_after_seconds((response.headers or {}).get("Retry-After"))
            raise TemporaryFailure(f"twilio_http_{response.status_code}", delay)
        return response
