"""Each vendor's SDK, as pinned, on its stand-in: it goes where it is pointed, and every answer is understood."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from notify.channels import Channel
from notify.channels.fcm import FcmChannel
from notify.channels.ses import SesChannel
from notify.channels.twilio_sms import TwilioSmsChannel
from notify.errors import PermanentRefusal, RecipientGone, TemporaryFailure
from notify.sandbox.credentials import service_account
from tests.integration.notify.gate import Gate
from tests.integration.notify.support import Sandbox, SesAccount, outgoing

_THROTTLED = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>-</Message></Error></ErrorResponse>"
)


@pytest.fixture
def asked_hosts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all hosts that this process looks up."""
    hosts: set[str] = set()
    lookup = socket.getaddrinfo

    def recorded(host: Any, *args: Any, **kwargs: Any) -> Any:
        hosts.add(str(host))
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    return hosts


@pytest.mark.parametrize(
    ("name", "address", "received_as"),
    [
        ("sms", "+4915100000001", "sms"),
        ("push", "device-of-a-channel-test", "push"),
        ("email", "channel-test@example.com", "email"),
    ],
)
async def test_the_sdk_goes_to_the_endpoint_it_is_given_and_nowhere_else(
    channels: dict[str, Channel], sandbox: Sandbox, asked_hosts: set[str], name: str, address: str, received_as: str
) -> None:
    message = outgoing("Greetings", "Grüße & <tags>", "<p>Grüße</p>")
    provider_message_id = await channels[name].send(message, address)
    received = (await sandbox.messages(address))[0]
    assert received["id"] == provider_message_id
    assert received["channel"] == received_as
    assert received["body"] == ("<p>Grüße</p>" if name == "email" else "Grüße & <tags>")
    assert received["title"] == ("" if name == "sms" else "Greetings")
    assert asked_hosts <= {"127.0.0.1"}


async def test_a_push_message_carries_an_id_by_which_a_repetition_replaces_it(
    channels: dict[str, Channel], sandbox: Sandbox
) -> None:
    message = outgoing()
    for _ in range(2):
        await channels["push"].send(message, "device-of-a-repetition")
    received = await sandbox.messages("device-of-a-repetition")
    assert [entry["data"]["message_id"] for entry in received] == [message.message_id] * 2


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("+15005550001", "twilio_21211"),
        ("not-a-number", "twilio_21211"),
        ("+15005550002", "twilio_21612"),
        ("+15005550003", "twilio_21408"),
        ("+15005550004", "twilio_21610"),
        ("+15005550009", "twilio_21614"),
    ],
)
async def test_a_number_that_twilio_refuses_is_refused_for_good(
    channels: dict[str, Channel], number: str, code: str
) -> None:
    with pytest.raises(PermanentRefusal) as refused:
        await channels["sms"].send(outgoing(), number)
    assert refused.value.code == code


async def test_a_bad_login_or_sender_of_ours_never_counts_against_the_recipient(sandbox: Sandbox) -> None:
    wrong_login, wrong_sender = ("wrong", "+15005550006"), (sandbox.auth_token, "+15005550001")
    for (auth_token, sender), code in ((wrong_login, "twilio_20003"), (wrong_sender, "twilio_21212")):
        channel = TwilioSmsChannel(
            account_sid=sandbox.account_sid, auth_token=auth_token, sender=sender, endpoint=sandbox.endpoint
        )
        with pytest.raises(TemporaryFailure) as failed:
            await channel.send(outgoing(), "+4915100000002")
        assert failed.value.code == code
        await channel.close()


@pytest.mark.parametrize("token", ["unregistered-device", "invalid-device"])
async def test_a_token_that_fcm_calls_dead_is_gone(channels: dict[str, Channel], token: str) -> None:
    with pytest.raises(RecipientGone):
        await channels["push"].send(outgoing(), token)


async def test_fcm_is_not_reached_with_another_s_key(sandbox: Sandbox) -> None:
    channel = FcmChannel(service_account=service_account(sandbox.endpoint), endpoint=sandbox.endpoint)
    with pytest.raises(TemporaryFailure) as failed:
        await channel.send(outgoing(), "device-of-a-stranger")
    assert failed.value.code == "fcm_credentials"
    await channel.close()
    assert await sandbox.messages("device-of-a-stranger") == []


@pytest.mark.parametrize(("name", "provider"), [("sms", "twilio"), ("push", "fcm")])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_one_bad_answer_is_one_temporary_failure_with_the_wait_that_the_vendor_asked_for(
    channels: dict[str, Channel], sandbox: Sandbox, name: str, provider: str, status: int
) -> None:
    await sandbox.fail(provider, status=status, times=1, retry_after=7)
    address = "+4915100000003" if name == "sms" else f"device-{name}-{status}"
    with pytest.raises(TemporaryFailure) as failed:
        await channels[name].send(outgoing(), address)
    assert failed.value.retry_after_seconds == 7
    # Had the SDK tried again by itself, the first send would have succeeded, unseen and uncounted.
    assert await channels[name].send(outgoing(), address)


@pytest.mark.parametrize(("name", "provider"), [("sms", "twilio"), ("push", "fcm")])
async def test_a_vendor_that_hangs_is_left_in_time(
    channels: dict[str, Channel], sandbox: Sandbox, name: str, provider: str
) -> None:
    await sandbox.fail(provider, hang_seconds=10)
    with pytest.raises(TemporaryFailure) as failed:
        await channels[name].send(outgoing(), "+4915100000004")
    assert failed.value.code == "timed_out"


async def test_ses_throttling_an_outage_and_silence_are_temporary(channels: dict[str, Channel], gate: Gate) -> None:
    codes = []
    closings: list[Callable[[], None]] = [
        lambda: gate.answer(400, _THROTTLED),
        lambda: gate.answer(503),
        gate.swallow,
    ]
    for close_once in closings:
        close_once()
        with pytest.raises(TemporaryFailure) as failed:
            await channels["email"].send(outgoing(), "ses-outage@example.com")
        codes.append(failed.value.code)
    assert codes == ["ses_Throttling", "ses_503", "timed_out"]
    assert await channels["email"].send(outgoing(), "ses-outage@example.com")


async def test_ses_out_of_reach_is_temporary(ses_account: SesAccount, gate: Gate) -> None:
    channel = SesChannel(**ses_account, endpoint=gate.endpoint)
    await gate.close()
    with pytest.raises(TemporaryFailure) as failed:
        await channel.send(outgoing(), "unreachable@example.com")
    assert failed.value.code == "unreachable"
    await channel.close()


async def test_a_sender_that_ses_has_not_verified_never_counts_against_the_recipient(
    ses_account: SesAccount, ses_endpoint: str
) -> None:
    stranger: SesAccount = {**ses_account, "sender": "stranger@elsewhere.example"}
    channel = SesChannel(**stranger, endpoint=ses_endpoint)
    with pytest.raises(TemporaryFailure) as failed:
        await channel.send(outgoing(), "somebody@example.com")
    assert failed.value.code == "ses_MessageRejected"
    await channel.close()


async def test_an_address_that_is_none_is_refused_for_good_by_ses(channels: dict[str, Channel]) -> None:
    with pytest.raises(PermanentRefusal):
        await channels["email"].send(outgoing(), "no-domain@")
