"""The relay: what a payment's transaction left behind reaches the payer, whatever fails in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.contact_codes import ContactCodes
from domain.ids import DISPUTE, EVENT, PAYMENT, PAYMENT_METHOD, new_id
from notify.channels import Channel
from notify.inbox import list_messages
from notify.relay import Relay
from notify.service import Notifier
from tests.integration.notify.support import Person, Sandbox, new_person

CODES = ContactCodes(bytes(32))


@pytest.fixture
def relay(engine: AsyncEngine, notifier: Notifier) -> Relay:
    return Relay(engine, notifier, CODES, pause_seconds=0.02)


@pytest_asyncio.fixture(autouse=True)
async def nothing_else_owed(engine: AsyncEngine) -> AsyncIterator[None]:
    """The queue is one for all, and other tests of this process write events too."""
    await _execute(engine, "DELETE FROM notify.owed")
    yield


async def _execute(engine: AsyncEngine, statement: str, **parameters: Any) -> Any:
    async with engine.begin() as connection:
        return await connection.execute(text(statement), parameters)


async def _happened(engine: AsyncEngine, person: Person, event: str, **data: Any) -> str:
    """A payment of 42.00 EUR of the person's own to which `event` has happened; the event's id."""
    payment_id, method_id, event_id = new_id(PAYMENT), new_id(PAYMENT_METHOD), new_id(EVENT)
    async with engine.begin() as connection:
        for statement in (_METHOD, _PAYMENT, _EVENT):
            await connection.execute(
                text(statement),
                {
                    "payment": payment_id,
                    "method": method_id,
                    "user": person.user_id,
                    "event": event_id,
                    "type": f"payment.{event}",
                    "data": json.dumps(data),
                },
            )
    return event_id


_METHOD = """
INSERT INTO platform.payment_methods
    (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
SELECT :method, account_id, id, :method, 'visa', '424242', '4242', 12, 2030, 'active'
FROM platform.users WHERE id = :user
"""
_PAYMENT = """
INSERT INTO platform.payments (
    id, account_id, user_id, payment_method_id, version, status, amount_minor, currency, capture_method, merchant,
    metadata, created_at, updated_at)
SELECT :payment, account_id, id, :method, 1, 'processing', 4200, 'EUR', 'manual',
    jsonb_build_object('name', 'Blue Bottle'), '{}', now(), now()
FROM platform.users WHERE id = :user
"""
_EVENT = """
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:event, :payment, 2, :type, CAST(:data AS jsonb))
"""


async def _owed(engine: AsyncEngine, event_id: str) -> Any:
    found = await _execute(
        engine, "SELECT *, due_at - now() AS wait FROM notify.owed WHERE event_id = :id", id=event_id
    )
    return found.first()


async def _inbox(engine: AsyncEngine, person: Person) -> list[str]:
    async with engine.connect() as connection:
        page = await list_messages(connection, person.user_id)
    return [f"{message.title} {message.body}" for message in page.messages]


@pytest.mark.parametrize(
    ("event", "data", "words"),
    [
        ("authorized", {}, ("42.00 EUR", "Blue Bottle", "4242")),
        ("sold", {}, ("42.00 EUR", "Blue Bottle", "4242")),
        ("declined", {"decline_code": "insufficient_funds"}, ("42.00 EUR", "Blue Bottle")),
        ("never_sent", {"decline_code": "network_unavailable"}, ("42.00 EUR", "Blue Bottle")),
        ("blocked", {}, ("42.00 EUR", "Blue Bottle")),
        ("reversed", {}, ("42.00 EUR", "Blue Bottle")),
        ("refund_succeeded", {"refund_id": "re_1", "amount_minor": 1100}, ("11.00 EUR", "Blue Bottle")),
    ],
)
async def test_what_happened_is_told_once_on_every_channel(
    engine: AsyncEngine, relay: Relay, sandbox: Sandbox, event: str, data: dict[str, Any], words: tuple[str, ...]
) -> None:
    person = await new_person(engine)
    event_id = await _happened(engine, person, event, **data)
    assert await relay.deliver_due() == 1
    assert await _owed(engine, event_id) is None
    assert await relay.deliver_due() == 0
    [message] = await _inbox(engine, person)
    assert all(word in message for word in words)
    for address in person.addresses().values():
        assert len(await sandbox.messages(address)) == 1


@pytest.mark.parametrize("event", ["created", "captured", "doubted", "refund_reserved", "voided", "expired"])
async def test_what_a_payer_need_not_hear_is_not_queued(engine: AsyncEngine, event: str) -> None:
    event_id = await _happened(engine, await new_person(engine), event)
    assert await _owed(engine, event_id) is None


async def test_an_event_that_is_rolled_back_is_never_told(engine: AsyncEngine, relay: Relay) -> None:
    person = await new_person(engine)
    event_id = await _happened(engine, person, "created")
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)"
                " SELECT id || 'x', subject_id, 3, 'payment.authorized', '{}' FROM platform.outbox WHERE id = :id"
            ),
            {"id": event_id},
        )
        await connection.rollback()
    assert await relay.deliver_due() == 0
    assert await _inbox(engine, person) == []


async def test_a_channel_that_fails_is_owed_until_it_works_and_the_others_are_not_repeated(
    engine: AsyncEngine, relay: Relay, sandbox: Sandbox
) -> None:
    person = await new_person(engine)
    event_id = await _happened(engine, person, "authorized")
    await sandbox.fail("twilio", status=503)
    await relay.deliver_due()
    owed = await _owed(engine, event_id)
    assert owed.reason == "sms"
    assert timedelta(0) < owed.wait <= timedelta(minutes=6)
    assert await relay.deliver_due() == 0

    await sandbox.heal()
    await _execute(engine, "UPDATE notify.owed SET due_at = now() WHERE event_id = :id", id=event_id)
    assert await relay.deliver_due() == 1
    assert await _owed(engine, event_id) is None
    for address in person.addresses().values():
        assert len(await sandbox.messages(address)) == 1


async def test_relays_that_run_at_the_same_time_tell_everything_once(
    engine: AsyncEngine, notifier: Notifier, sandbox: Sandbox
) -> None:
    people = [await new_person(engine) for _ in range(5)]
    for person in people:
        await _happened(engine, person, "authorized")
    taken = await asyncio.gather(*(Relay(engine, notifier, CODES, batch=2).deliver_due() for _ in range(4)))
    assert sum(taken) == 5
    assert [len(await _inbox(engine, person)) for person in people] == [1] * 5


async def test_what_a_dead_relay_had_taken_is_due_again_after_its_lease(
    engine: AsyncEngine, relay: Relay, sandbox: Sandbox
) -> None:
    person = await new_person(engine)
    event_id = await _happened(engine, person, "authorized")
    # It sent everything, and died before it could say so.
    await _execute(
        engine,
        "UPDATE notify.owed SET due_at = now() + interval '45 seconds', attempts = 1 WHERE event_id = :id",
        id=event_id,
    )
    assert await relay.deliver_due() == 0
    await _execute(engine, "UPDATE notify.owed SET due_at = now() WHERE event_id = :id", id=event_id)
    assert await relay.deliver_due() == 1
    assert len(await _inbox(engine, person)) == 1


async def test_what_could_not_be_told_for_a_day_is_given_up_visibly(
    engine: AsyncEngine, relay: Relay, sandbox: Sandbox
) -> None:
    event_id = await _happened(engine, await new_person(engine), "authorized")
    await _execute(
        engine, "UPDATE notify.owed SET owed_since = now() - interval '25 hours' WHERE event_id = :id", id=event_id
    )
    await sandbox.fail("fcm", status=503)
    await relay.deliver_due()
    owed = await _owed(engine, event_id)
    assert owed.given_up_at is not None
    assert owed.reason == "push"
    assert await relay.deliver_due() == 0


async def test_an_event_that_cannot_be_told_is_given_up_and_holds_nothing_up(
    engine: AsyncEngine, relay: Relay, sandbox: Sandbox
) -> None:
    broken = await new_person(engine)
    event_id = await _happened(engine, broken, "authorized")
    await _execute(
        engine,
        "UPDATE platform.payments SET merchant = jsonb_build_object('name', '4242 4242 4242 4242')"
        " WHERE id = (SELECT subject_id FROM platform.outbox WHERE id = :id)",
        id=event_id,
    )
    fine = await new_person(engine)
    await _happened(engine, fine, "authorized")
    assert await relay.deliver_due() == 2
    assert (await _owed(engine, event_id)).reason == "CardNumberRefused"
    assert len(await _inbox(engine, fine)) == 1


async def test_a_running_relay_tells_by_itself_and_outlives_a_lost_database_session(
    engine: AsyncEngine, channels: dict[str, Channel], relay: Relay, sandbox: Sandbox
) -> None:
    async with relay.running():
        await _execute(
            engine,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        person = await _after_reconnecting(engine)
        async with asyncio.timeout(10):
            while not await _inbox(engine, person):  # noqa: ASYNC110 - it polls a database
                await asyncio.sleep(0.02)


async def _after_reconnecting(engine: AsyncEngine) -> Person:
    """The pool's own connections were cut too: it finds that out with the first use of each."""
    await engine.dispose()
    person = await new_person(engine)
    await _happened(engine, person, "authorized")
    return person


@pytest.mark.parametrize(
    ("event", "data", "title"),
    [
        ("created", {"status": "needs_response"}, "Dispute with Blue Bottle opened"),
        ("escalated", {"status": "needs_response"}, "Dispute with Blue Bottle opened"),
        ("closed", {"status": "lost"}, "Dispute with Blue Bottle decided for you"),
        ("closed", {"status": "won"}, "Dispute with Blue Bottle decided"),
    ],
)
async def test_a_payer_hears_of_a_chargeback_and_how_it_ended(
    engine: AsyncEngine, relay: Relay, sandbox: Sandbox, event: str, data: dict[str, str], title: str
) -> None:
    person = await new_person(engine)
    dispute_id, event_id = await _disputed(engine, person, event, **data)
    assert await relay.deliver_due() == 1
    assert await _owed(engine, event_id) is None
    async with engine.connect() as connection:
        [message] = (await list_messages(connection, person.user_id)).messages
    assert message.title == title
    assert "42.00 EUR" in message.body
    assert dispute_id.startswith("dp_")


async def test_an_inquiry_and_steps_of_a_case_are_not_told(engine: AsyncEngine) -> None:
    person = await new_person(engine)
    for event, kind in (("created", "inquiry"), ("closed", "inquiry"), ("submitted", "chargeback")):
        _, event_id = await _disputed(engine, person, event, kind=kind)
        assert await _owed(engine, event_id) is None


async def _disputed(engine: AsyncEngine, person: Person, event: str, **data: str) -> tuple[str, str]:
    """A dispute of a payment of the person's own to which `event` has happened; its id and the event's."""
    # An event that nobody is told of, for a payment to be there.
    first = await _happened(engine, person, "captured")
    payment_id = (await _execute(engine, "SELECT subject_id FROM platform.outbox WHERE id = :id", id=first)).scalar()
    dispute_id, event_id = new_id(DISPUTE), new_id(EVENT)
    facts = {"kind": "chargeback", "payment_id": payment_id, "amount_minor": 4200, "currency": "EUR", **data}
    await _execute(engine, _EVENT, event=event_id, payment=dispute_id, type=f"dispute.{event}", data=json.dumps(facts))
    return dispute_id, event_id
