"""The sandbox itself: what it keeps, what it shows, and who may command it."""

from __future__ import annotations

import pytest

from notify.channels import Channel
from tests.integration.notify.support import Sandbox, outgoing


async def test_messages_and_logins_survive_a_restart(channels: dict[str, Channel], sandbox: Sandbox) -> None:
    await channels["push"].send(outgoing(body="before"), "device-of-a-restart")
    await channels["sms"].send(outgoing(body="before"), "+4915100000010")
    await sandbox.stop()
    await sandbox.start()
    await channels["push"].send(outgoing(body="after"), "device-of-a-restart")
    assert [entry["body"] for entry in await sandbox.messages("device-of-a-restart")] == ["after", "before"]
    assert [entry["body"] for entry in await sandbox.messages("+4915100000010")] == ["before"]


async def test_the_page_shows_messages_and_escapes_what_is_in_them(
    channels: dict[str, Channel], sandbox: Sandbox
) -> None:
    await channels["sms"].send(outgoing(body="<script>alert(1)</script>"), "+4915100000011")
    await channels["email"].send(outgoing("A subject", "text", '"><script>alert(2)</script>'), "page@example.com")
    for address in ("+4915100000011", "page@example.com"):
        answer = await sandbox.client.get("/", params={"to": address, "channel": ""})
        assert answer.status_code == 200
        assert address in answer.text
        assert "<script>alert" not in answer.text
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert (await sandbox.client.get("/page.js")).status_code == 200


async def test_the_page_says_which_faults_are_ordered(sandbox: Sandbox) -> None:
    await sandbox.fail("twilio", status=503, times=2, retry_after=1)
    assert "The next 2 calls to twilio" in (await sandbox.client.get("/")).text


async def test_deleted_messages_stay_deleted_e_mails_too(channels: dict[str, Channel], sandbox: Sandbox) -> None:
    await channels["sms"].send(outgoing(), "+4915100000012")
    await channels["email"].send(outgoing(), "deleted@example.com")
    assert await sandbox.messages("deleted@example.com")
    (await sandbox.client.delete("/messages", headers=sandbox.authorization)).raise_for_status()
    assert await sandbox.messages("+4915100000012") == []
    assert await sandbox.messages("deleted@example.com") == []


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/messages"), ("POST", "/faults"), ("GET", "/faults"), ("DELETE", "/faults")]
)
async def test_only_the_control_token_commands(sandbox: Sandbox, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {sandbox.control_token}"}):
        answer = await sandbox.client.request(method, path, json={"provider": "fcm"}, headers=headers)
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "fault",
    [
        {"provider": "ses"},
        {"provider": "fcm", "status": 200},
        {"provider": "fcm", "hang_seconds": 31},
        {"provider": "fcm", "times": 0},
        {"provider": "fcm", "surprise": 1},
    ],
)
async def test_a_fault_out_of_bounds_is_refused(sandbox: Sandbox, fault: dict[str, object]) -> None:
    answer = await sandbox.client.post("/faults", json=fault, headers=sandbox.authorization)
    assert answer.status_code == 422


async def test_a_large_body_is_refused_before_anything_else(sandbox: Sandbox) -> None:
    answer = await sandbox.client.post("/token", content=b"a" * 70_000)
    assert answer.status_code == 413


async def test_messages_need_the_vendor_s_login(sandbox: Sandbox) -> None:
    twilio = await sandbox.client.post(f"/2010-04-01/Accounts/{sandbox.account_sid}/Messages.json", data={"To": "+1"})
    assert (twilio.status_code, twilio.json()["code"]) == (401, 20003)
    fcm = await sandbox.client.post("/v1/projects/durapay-sandbox/messages:send", json={"message": {"token": "t"}})
    assert (fcm.status_code, fcm.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    token = await sandbox.client.post("/token", data={"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"})
    assert (token.status_code, token.json()["error"]) == (400, "invalid_grant")
