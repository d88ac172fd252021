"""A user is told how the verification of a bank account goes, and never an amount."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bank import store
from domain.contact_codes import ContactCodes
from domain.ids import MICRO_DEPOSIT, PAYMENT_METHOD, new_id
from domain.micro_deposits import MicroDepositChange, MicroDepositEvent, MicroDepositStatus, next_status
from notify.inbox import list_messages
from notify.relay import Relay
from notify.service import Notifier
from tests.integration.notify.support import Person, new_person
from tests.support.world import NOW

_E = MicroDepositEvent
_SENT, _POSTED = (_E.INITIATED, _E.ORIGINATED), (_E.INITIATED, _E.ORIGINATED, _E.POSTED)


async def _verification(engine: AsyncEngine, person: Person, cycles: int = 1) -> str:
    """A verification that was begun, with the file that its deposits are in."""
    method, deposit = new_id(PAYMENT_METHOD), new_id(MICRO_DEPOSIT)
    values = {"method": method, "deposit": deposit, "user": person.user_id, "cycles": cycles}
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM notify.owed"))
        for statement in _BEGUN:
            wanted = {name: value for name, value in values.items() if f":{name}" in statement}
            await connection.execute(text(statement), wanted)
    return deposit


async def _live(engine: AsyncEngine, deposit: str, *events: MicroDepositEvent) -> None:
    status = MicroDepositStatus.NEW
    async with engine.begin() as connection:
        for version, event in enumerate(events, 1):
            status = next_status(status, event)
            if event is _E.CONFIRMED:
                await connection.execute(_NAMED, {"id": deposit})
            await store.record(connection, MicroDepositChange(deposit, version, event, status, NOW, "R10"))


async def _told(engine: AsyncEngine, notifier: Notifier, person: Person) -> dict[str, tuple[str, str]]:
    """By kind, title and text of each message in the app. (They are sent side by side.)"""
    relay = Relay(engine, notifier, ContactCodes(bytes(32)))
    while await relay.deliver_due():
        pass
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM notify.owed")) == 0
        messages = (await list_messages(connection, person.user_id, 10)).messages
    told = {message.kind: (message.title, message.body) for message in messages}
    assert len(told) == len(messages), "something was told twice"
    return told


@pytest.mark.parametrize(
    ("events", "cycles", "kind", "says"),
    [
        ((*_POSTED, _E.CONFIRMED), 1, "bank_account_verified", "named the amounts"),
        ((*_POSTED, _E.ATTEMPTS_EXCEEDED), 1, "bank_account_not_verified", "wrong three times"),
        ((*_POSTED, _E.ATTEMPTS_EXCEEDED), 3, "bank_account_not_verified", "it is locked"),
        ((*_POSTED, _E.EXPIRED), 1, "bank_account_not_verified", "within ten days"),
        ((*_SENT, _E.RETURNED), 1, "bank_account_not_verified", "gave a deposit back"),
    ],
)
async def test_the_user_is_told_that_deposits_are_sent_and_what_came_of_them(
    engine: AsyncEngine,
    notifier: Notifier,
    events: tuple[MicroDepositEvent, ...],
    cycles: int,
    kind: str,
    says: str,
) -> None:
    person = await new_person(engine)
    deposit = await _verification(engine, person, cycles)
    await _live(engine, deposit, *events)
    told = await _told(engine, notifier, person)
    assert set(told) == {"deposits_sent", kind}
    assert "2026-11-24" in told["deposits_sent"][1]
    title, body = told[kind]
    assert "6789" in title
    assert says in body


async def test_who_loses_a_verified_account_by_a_return_is_told_so(engine: AsyncEngine, notifier: Notifier) -> None:
    person = await new_person(engine)
    deposit = await _verification(engine, person)
    await _live(engine, deposit, *_POSTED, _E.CONFIRMED, _E.RETURNED)
    told = await _told(engine, notifier, person)
    assert set(told) == {"deposits_sent", "bank_account_verified", "bank_account_revoked"}


async def test_a_file_that_the_bank_refused_is_told_as_nothing_sent(engine: AsyncEngine, notifier: Notifier) -> None:
    person = await new_person(engine)
    deposit = await _verification(engine, person)
    await _live(engine, deposit, _E.INITIATED, _E.REFUSED)
    [(kind, (_, body))] = (await _told(engine, notifier, person)).items()
    assert (kind, "nothing was sent" in body) == ("bank_account_not_verified", True)


async def test_who_removed_the_account_hears_nothing_more_of_it(engine: AsyncEngine, notifier: Notifier) -> None:
    person = await new_person(engine)
    deposit = await _verification(engine, person)
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE platform.payment_methods SET status = 'removed' WHERE user_id = :user"),
            {"user": person.user_id},
        )
    await _live(engine, deposit, *_POSTED, _E.EXPIRED)
    assert await _told(engine, notifier, person) == {}


_BEGUN = (
    "INSERT INTO platform.payment_methods"
    " (id, account_id, user_id, type, bank_account_id, routing_number, account_type, last4, status)"
    " SELECT :method, account_id, id, 'us_bank_account', :method, '021000021', 'checking', '6789', 'pending'"
    " FROM platform.users WHERE id = :user",
    "INSERT INTO bank.limits (reference, cycles) VALUES (:method, :cycles)",
    "INSERT INTO bank.micro_deposits"
    " (id, account_id, user_id, payment_method_id, bank_account_id, reference, status, requested_at)"
    " SELECT :deposit, account_id, user_id, id, id, id, 'new', now()"
    " FROM platform.payment_methods WHERE id = :method",
    "INSERT INTO bank.amounts (micro_deposit_id, first_minor, second_minor) VALUES (:deposit, 32, 45)",
    "INSERT INTO bank.files (file_id, effect_key, micro_deposit_id, sha256, created_on, modifier, effective_on,"
    " receiver_name) SELECT :deposit, :deposit, :deposit, sha256('file'),"
    " coalesce(max(created_on), '2026-11-23') + interval '1 minute', 'A', '2026-11-24', 'ADA' FROM bank.files",
)
_NAMED = text("""
INSERT INTO bank.confirmations (effect_key, micro_deposit_id, number, correct) VALUES (:id, :id, 1, true)
""")
