"""A card's user is told that it expires, from the event that the day's reminders left."""

from __future__ import annotations

from datetime import date

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.contact_codes import ContactCodes
from domain.ids import PAYMENT_METHOD, new_id
from notify.inbox import list_messages
from notify.relay import Relay
from notify.service import Notifier
from store.payment_methods import remind_of_expiry
from tests.integration.notify.support import new_person


async def test_the_user_is_told_once_at_each_distance_and_sees_no_number(
    engine: AsyncEngine, notifier: Notifier
) -> None:
    person = await new_person(engine)
    relay = Relay(engine, notifier, ContactCodes(bytes(32)))
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM notify.owed"))
        await connection.execute(_CARD, {"id": new_id(PAYMENT_METHOD), "user": person.user_id})
    for today in (date(2029, 2, 5), date(2029, 2, 6), date(2029, 2, 25)):
        async with engine.begin() as connection:
            await remind_of_expiry(connection, today)
        await relay.deliver_due()
    async with engine.connect() as connection:
        messages = (await list_messages(connection, person.user_id, 10)).messages
        owed = await connection.scalar(text("SELECT count(*) FROM notify.owed"))
    assert [message.kind for message in messages] == ["card_expiring", "card_expiring"]
    assert all("02/2029" in message.body and "4242" in message.title for message in messages)
    assert owed == 0


_CARD = text("""
INSERT INTO platform.payment_methods
    (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
SELECT :id, account_id, id, :id, 'visa', '424242', '4242', 2, 2029, 'active' FROM platform.users WHERE id = :user
""")
