"""Delivery: once per channel, whatever fails, repeats or runs at the same time."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import USER, new_id
from notify.channels import Channel
from notify.deliveries import claim, release, settle_sent
from notify.errors import DeliveryIncomplete, KeyReused
from notify.inbox import list_messages
from notify.messages import ChannelName, Kind, Notification, Outcome
from notify.push_tokens import list_live
from notify.recipients import load_recipient
from notify.service import Notifier
from store.models.notify import Delivery
from tests.integration.notify.gate import Gate
from tests.integration.notify.support import Person, Sandbox, new_person, notification

PUSH, SMS, EMAIL, IN_APP = ChannelName.PUSH, ChannelName.SMS, ChannelName.EMAIL, ChannelName.IN_APP
_ALL_SENT = dict.fromkeys(ChannelName, Outcome.SENT)


async def _received(engine: AsyncEngine, sandbox: Sandbox, person: Person) -> dict[ChannelName, int]:
    counts = {name: len(await sandbox.messages(address)) for name, address in person.addresses().items()}
    async with engine.connect() as connection:
        return counts | {IN_APP: len((await list_messages(connection, person.user_id)).messages)}


async def _delivery(engine: AsyncEngine, key: str, channel: ChannelName) -> Any:
    async with engine.connect() as connection:
        rows = await connection.execute(select(Delivery).where(Delivery.key == key, Delivery.channel == channel.value))
        return rows.one()


async def test_every_channel_gets_the_message_once_however_often_it_is_delivered(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    person = await new_person(engine)
    told = notification(person)
    assert (await notifier.deliver(told)).outcomes == _ALL_SENT
    for _ in range(2):
        assert (await notifier.deliver(told)).outcomes == dict.fromkeys(ChannelName, Outcome.ALREADY_SENT)
    assert await _received(engine, sandbox, person) == dict.fromkeys(ChannelName, 1)


async def test_ten_callers_at_once_send_once(engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox) -> None:
    person = await new_person(engine)
    told = notification(person)
    results = await asyncio.gather(*(notifier.deliver(told) for _ in range(10)), return_exceptions=True)
    assert all(not isinstance(result, BaseException) or isinstance(result, DeliveryIncomplete) for result in results)
    assert set((await notifier.deliver(told)).outcomes.values()) == {Outcome.ALREADY_SENT}
    assert await _received(engine, sandbox, person) == dict.fromkeys(ChannelName, 1)


@pytest.mark.parametrize(("provider", "channel"), [("twilio", SMS), ("fcm", PUSH)])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_channel_that_fails_for_now_comes_alone_in_the_next_attempt(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox, provider: str, channel: ChannelName, status: int
) -> None:
    person = await new_person(engine)
    told = notification(person)
    await sandbox.fail(provider, status=status, times=2, retry_after=3)
    for _ in range(2):
        with pytest.raises(DeliveryIncomplete) as incomplete:
            await notifier.deliver(told)
        assert incomplete.value.channels == (channel,)
        assert incomplete.value.retry_after_seconds == 3
    assert await _received(engine, sandbox, person) == {**dict.fromkeys(ChannelName, 1), channel: 0}
    outcomes = (await notifier.deliver(told)).outcomes
    assert outcomes == {**dict.fromkeys(ChannelName, Outcome.ALREADY_SENT), channel: Outcome.SENT}
    assert await _received(engine, sandbox, person) == dict.fromkeys(ChannelName, 1)


async def test_a_wait_that_nobody_would_believe_is_cut(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    await sandbox.fail("twilio", status=503, retry_after=86_400)
    with pytest.raises(DeliveryIncomplete) as incomplete:
        await notifier.deliver(notification(await new_person(engine)))
    assert incomplete.value.retry_after_seconds == 300


async def test_three_vendors_that_hang_hold_up_neither_each_other_nor_the_inbox(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox, gate: Gate
) -> None:
    person = await new_person(engine)
    told = notification(person)
    await sandbox.fail("twilio", hang_seconds=10)
    await sandbox.fail("fcm", hang_seconds=10)
    gate.swallow()
    with pytest.raises(DeliveryIncomplete) as incomplete:
        await notifier.deliver(told)
    assert incomplete.value.channels == (EMAIL, PUSH, SMS)
    assert incomplete.value.retry_after_seconds is None
    assert await _received(engine, sandbox, person) == {**dict.fromkeys(ChannelName, 0), IN_APP: 1}
    assert (await notifier.deliver(told)).outcomes == {**_ALL_SENT, IN_APP: Outcome.ALREADY_SENT}
    assert await _received(engine, sandbox, person) == dict.fromkeys(ChannelName, 1)


async def test_an_answer_lost_after_the_vendor_took_the_message_sends_it_twice_as_documented(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    person = await new_person(engine)
    told = notification(person)
    await sandbox.fail("twilio", hang_seconds=10, when="after")
    await sandbox.fail("fcm", status=503, when="after")
    with pytest.raises(DeliveryIncomplete):
        await notifier.deliver(told)
    await notifier.deliver(told)
    assert await _received(engine, sandbox, person) == {PUSH: 2, SMS: 2, EMAIL: 1, IN_APP: 1}
    pushed = await sandbox.messages(person.push_tokens[0])
    assert pushed[0]["data"]["message_id"] == pushed[1]["data"]["message_id"]


async def test_an_invalid_number_is_recorded_and_never_tried_again(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    person = await new_person(engine, phone="+15005550001")
    told = notification(person)
    assert (await notifier.deliver(told)).outcomes == {**_ALL_SENT, SMS: Outcome.REJECTED}
    assert (await notifier.deliver(told)).outcomes[SMS] is Outcome.REJECTED
    recorded = await _delivery(engine, told.key, SMS)
    assert (recorded.state, recorded.reason, recorded.attempts) == ("rejected", "twilio_21211", 1)


async def test_a_dead_token_is_pruned_and_the_other_device_is_reached(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    alive, dead = f"device-{new_id(USER)}", f"unregistered-{new_id(USER)}"
    person = await new_person(engine, push_tokens=(dead, alive))
    assert (await notifier.deliver(notification(person))).outcomes[PUSH] is Outcome.SENT
    async with engine.connect() as connection:
        assert await list_live(connection, person.user_id) == (alive,)
    assert len(await sandbox.messages(alive)) == 1


async def test_a_user_whose_only_token_is_dead_is_rejected_once_and_not_reachable_then(
    engine: AsyncEngine, notifier: Notifier
) -> None:
    person = await new_person(engine, push_tokens=(f"unregistered-{new_id(USER)}",))
    assert (await notifier.deliver(notification(person))).outcomes[PUSH] is Outcome.REJECTED
    assert (await notifier.deliver(notification(person))).outcomes[PUSH] is Outcome.NOT_REACHABLE


async def test_a_device_that_was_reached_is_left_out_when_another_is_tried_again(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    tokens = tuple(f"device-{new_id(USER)}" for _ in range(3))
    told = notification(await new_person(engine, push_tokens=tokens))
    await sandbox.fail("fcm", status=503, times=1)
    with pytest.raises(DeliveryIncomplete) as incomplete:
        await notifier.deliver(told)
    assert incomplete.value.channels == (PUSH,)
    assert (await notifier.deliver(told)).outcomes[PUSH] is Outcome.SENT
    assert [len(await sandbox.messages(token)) for token in tokens] == [1, 1, 1]


async def test_a_user_without_addresses_is_told_in_the_app_alone(engine: AsyncEngine, notifier: Notifier) -> None:
    person = await new_person(engine, email=None, phone=None, push_tokens=())
    told = notification(person)
    expected = {**dict.fromkeys(ChannelName, Outcome.NOT_REACHABLE), IN_APP: Outcome.SENT}
    assert (await notifier.deliver(told)).outcomes == expected
    assert (await notifier.deliver(told)).outcomes == {**expected, IN_APP: Outcome.ALREADY_SENT}


async def test_a_user_whom_no_channel_reaches_is_owed_nothing(
    engine: AsyncEngine, channels: dict[str, Channel]
) -> None:
    person = await new_person(engine, email=None, phone=None, push_tokens=())
    by_push_alone = Notifier(engine, {"push": channels["push"]}, load_recipient)
    assert (await by_push_alone.deliver(notification(person))).outcomes == {PUSH: Outcome.NOT_REACHABLE}


async def test_an_unknown_user_is_not_reachable_anywhere(notifier: Notifier) -> None:
    nobody = Person(new_id(USER), None, None, ())
    assert set((await notifier.deliver(notification(nobody))).outcomes.values()) == {Outcome.NOT_REACHABLE}


async def test_a_code_goes_by_sms_alone_and_the_inbox_says_only_that_it_was_sent(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    person = await new_person(engine, locale="de-DE")
    outcomes = (await notifier.deliver(notification(person, Kind.STEP_UP_CODE, code="493021"))).outcomes
    assert outcomes == {SMS: Outcome.SENT, IN_APP: Outcome.SENT}
    assert await _received(engine, sandbox, person) == {PUSH: 0, SMS: 1, EMAIL: 0, IN_APP: 1}
    assert person.phone is not None
    assert "493021 bestätigt" in (await sandbox.messages(person.phone))[0]["body"]
    async with engine.connect() as connection:
        (notice,) = (await list_messages(connection, person.user_id)).messages
    assert "493021" not in notice.title + notice.body


async def test_the_claim_of_a_process_that_died_is_taken_over_when_its_lease_ends(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    person = await new_person(engine)
    alive, dead = notification(person), notification(person)
    async with engine.begin() as connection:
        await claim(connection, alive, [SMS], timedelta(hours=1))
        await claim(connection, dead, [SMS], timedelta(seconds=-1))
    with pytest.raises(DeliveryIncomplete) as incomplete:
        await notifier.deliver(alive)
    assert incomplete.value.channels == (SMS,)
    assert (await notifier.deliver(dead)).outcomes == _ALL_SENT
    assert len(await sandbox.messages(person.addresses()[SMS])) == 1


async def test_who_lost_the_lease_can_say_sent_but_not_give_the_claim_back(engine: AsyncEngine) -> None:
    told = notification(await new_person(engine))
    async with engine.begin() as connection:
        (late,) = (await claim(connection, told, [SMS], timedelta(seconds=-1))).claims
    async with engine.begin() as connection:
        await claim(connection, told, [SMS], timedelta(hours=1))
        await release(connection, late, "timed_out", frozenset(), None)
    assert (await _delivery(engine, told.key, SMS)).state == "sending"
    async with engine.begin() as connection:
        await settle_sent(connection, late, "SM1")
    recorded = await _delivery(engine, told.key, SMS)
    assert (recorded.state, recorded.provider_message_id, recorded.attempts) == ("sent", "SM1", 2)


async def test_a_key_cannot_be_used_for_another_user_or_another_kind(engine: AsyncEngine, notifier: Notifier) -> None:
    person, other = await new_person(engine), await new_person(engine)
    told = notification(person)
    await notifier.deliver(told)
    for reused in (
        Notification(told.key, other.user_id, told.kind, told.facts),
        Notification(told.key, person.user_id, Kind.PAYMENT_REFUNDED, told.facts),
    ):
        with pytest.raises(KeyReused):
            await notifier.deliver(reused)


async def test_a_channel_that_is_not_configured_is_not_used(engine: AsyncEngine, channels: dict[str, Channel]) -> None:
    person = await new_person(engine)
    only_in_app = Notifier(engine, {"in_app": channels["in_app"]}, load_recipient)
    assert (await only_in_app.deliver(notification(person))).outcomes == {IN_APP: Outcome.SENT}


@pytest.mark.parametrize(
    "wrong",
    [
        "UPDATE notify.deliveries SET state = 'pending' WHERE key = :key",
        "UPDATE notify.deliveries SET user_id = 'usr_other' WHERE key = :key",
        "INSERT INTO notify.deliveries (key, channel, user_id, kind, state, attempts, provider_message_id)"
        " VALUES (:key, 'sms', 'usr_1', 'payment_authorized', 'sent', 1, 'SM2')",
        "INSERT INTO notify.deliveries (key, channel, user_id, kind, state, attempts)"
        " VALUES (:key || 'x', 'fax', 'usr_1', 'payment_authorized', 'pending', 1)",
        "UPDATE notify.inbox SET body = 'something else' WHERE user_id = :user_id",
    ],
)
async def test_the_database_keeps_what_was_sent(engine: AsyncEngine, notifier: Notifier, wrong: str) -> None:
    person = await new_person(engine)
    told = notification(person)
    await notifier.deliver(told)
    with pytest.raises(DBAPIError):
        async with engine.begin() as connection:
            await connection.execute(text(wrong), {"key": told.key, "user_id": person.user_id})


async def test_no_log_line_holds_an_address_a_name_or_a_text(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    person = await new_person(engine)
    await sandbox.fail("twilio", status=503)
    told = notification(person, Kind.STEP_UP_CODE, code="493021")
    with pytest.raises(DeliveryIncomplete):
        await notifier.deliver(told)
    await notifier.deliver(told)
    await notifier.deliver(notification(person))
    assert told.key in caplog.text
    for secret in (*person.addresses().values(), "Lovelace", "493021", "Blue Bottle", "42.00"):
        assert secret not in caplog.text
