"""The vendors' stand-ins: the sandbox, and moto behind a gate that can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from notify.channels import Channel
from notify.channels.fcm import FcmChannel
from notify.channels.in_app import InAppChannel
from notify.channels.ses import SesChannel, verify_sender
from notify.channels.twilio_sms import TwilioSmsChannel
from notify.recipients import load_recipient
from notify.service import Notifier
from tests.integration.notify.gate import Gate
from tests.integration.notify.support import TIMEOUT_SECONDS, Sandbox, SesAccount


@pytest_asyncio.fixture(scope="session")
async def running_sandbox(tmp_path_factory: pytest.TempPathFactory, ses_endpoint: str) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"), ses_endpoint)
    await sandbox.start()
    yield sandbox
    await sandbox.client.aclose()
    await sandbox.stop()


@pytest_asyncio.fixture
async def sandbox(running_sandbox: Sandbox) -> AsyncIterator[Sandbox]:
    """The sandbox, without faults that an earlier test left."""
    await running_sandbox.heal()
    yield running_sandbox


@pytest.fixture
def ses_account(ses_endpoint: str) -> SesAccount:
    """SES's part of the settings, its sender verified."""
    account = SesAccount(
        region="eu-central-1",
        access_key_id="testing",
        secret_access_key="testing",
        sender="durapay <no-reply@durapay.local>",
    )
    verify_sender(**account, endpoint=ses_endpoint)
    return account


@pytest_asyncio.fixture
async def gate(ses_endpoint: str) -> AsyncIterator[Gate]:
    """What stands between the SES channel and moto: open, unless a test closes it."""
    gate = Gate(ses_endpoint)
    await gate.open()
    yield gate
    await gate.close()


@pytest_asyncio.fixture
async def channels(
    engine: AsyncEngine, sandbox: Sandbox, ses_account: SesAccount, gate: Gate
) -> AsyncIterator[dict[str, Channel]]:
    channels: dict[str, Channel] = {
        "push": FcmChannel(
            service_account=sandbox.service_account, endpoint=sandbox.endpoint, timeout_seconds=TIMEOUT_SECONDS
        ),
        "sms": TwilioSmsChannel(
            account_sid=sandbox.account_sid,
            auth_token=sandbox.auth_token,
            sender="+15005550006",
            endpoint=sandbox.endpoint,
            timeout_seconds=TIMEOUT_SECONDS,
        ),
        "email": SesChannel(**ses_account, endpoint=gate.endpoint, timeout_seconds=TIMEOUT_SECONDS),
        "in_app": InAppChannel(engine),
    }
    yield channels
    for channel in channels.values():
        await channel.close()


@pytest.fixture
def notifier(engine: AsyncEngine, channels: dict[str, Channel]) -> Notifier:
    return Notifier(engine, channels, load_recipient)
