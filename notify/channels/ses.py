"""E-mail by Amazon SES through `boto3`.

SendEmail has no idempotency token: when an answer is lost after SES took the message, the retry sends a second one.
Both carry the same `message_id` as a message tag, by which SES's event stream shows them as one.
"""

from __future__ import annotations

from email.utils import parseaddr

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError
from mypy_boto3_ses import SESClient

from notify.channels.blocking import BlockingCalls
from notify.errors import PermanentRefusal, TemporaryFailure
from notify.messages import Content, Outgoing, Recipient

_UTF8 = "UTF-8"


class SesChannel:
    """`sender` is an address or `Name <address>` whose identity SES has verified. `endpoint` replaces AWS's."""

    def __init__(
        self,
        *,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        sender: str,
        endpoint: str | None = None,
        timeout_seconds: float = 10.0,
        threads: int = 4,
    ) -> None:
        self._client = _client(region, access_key_id, secret_access_key, endpoint, timeout_seconds, threads)
        self._sender = sender
        self._calls = BlockingCalls("ses", threads=threads, deadline_seconds=2 * timeout_seconds)

    def addresses(self, recipient: Recipient) -> tuple[str, ...]:
        return (recipient.email,) if recipient.email else ()

    async def send(self, message: Outgoing, address: str) -> str:
        return await self._calls.run(lambda: self._send(address, message.message_id, message.content))

    def _send(self, to: str, message_id: str, content: Content) -> str:
        body = {"Text": {"Data": content.body, "Charset": _UTF8}}
        if content.html is not None:
            body["Html"] = {"Data": content.html, "Charset": _UTF8}
        try:
            answer = self._client.send_email(
                Source=self._sender,
                Destination={"ToAddresses": [to]},
                Message={"Subject": {"Data": content.title, "Charset": _UTF8}, "Body": body},  # type: ignore[typeddict-item]
                Tags=[{"Name": "message_id", "Value": message_id}],
            )
        except ClientError as error:
            raise _translated(error) from None
        except (ConnectTimeoutError, ReadTimeoutError):
            raise TemporaryFailure("timed_out") from None
        except BotoCoreError:
            raise TemporaryFailure("unreachable") from None
        return answer["MessageId"]

    async def close(self) -> None:
        self._client.close()
        self._calls.close()


def verify_sender(
    *,
    region: str,
    access_key_id: str,
    secret_access_key: str,
    sender: str,
    endpoint: str | None = None,
    timeout_seconds: float = 10.0,
) -> None:
    """Asks SES to verify the identity of `sender`. A stand-in for SES does at once; AWS mails a link to the address.

    For setting a stack up, not for serving: it blocks. Doing it again does no harm.

    Raises:
        botocore.exceptions.ClientError: SES refused.
        botocore.exceptions.BotoCoreError: SES could not be reached.
    """
    client = _client(region, access_key_id, secret_access_key, endpoint, timeout_seconds, threads=1)
    client.verify_email_identity(EmailAddress=parseaddr(sender)[1])
    client.close()


def _client(
    region: str, access_key_id: str, secret_access_key: str, endpoint: str | None, timeout_seconds: float, threads: int
) -> SESClient:
    return boto3.client(
        "ses",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(
            connect_timeout=timeout_seconds,
            read_timeout=timeout_seconds,
            # The caller's retry is durable; the SDK's would repeat a timed-out send unseen.
            retries={"total_max_attempts": 1},
            max_pool_connections=threads,
        ),
    )


def _translated(error: ClientError) -> PermanentRefusal | TemporaryFailure:
    """Only a malformed address is the recipient's fault.

    `MessageRejected` and the rest mean an unverified sender, a paused or throttled account, or an outage: SES's own
    troubles or ours, after which the message is still owed.
    """
    code = error.response["Error"]["Code"]
    if code == "InvalidParameterValue":
        return PermanentRefusal(f"ses_{code}")
    return TemporaryFailure(f"ses_{code}")
