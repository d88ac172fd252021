"""The in-app inbox and the push tokens."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.errors import NotFound
from domain.ids import MESSAGE, USER, new_id
from notify.inbox import list_messages, mark_read, put
from notify.messages import Content, Kind, Outgoing
from notify.push_tokens import Platform, list_live, prune, register
from notify.recipients import load_recipient
from tests.integration.notify.support import new_person


async def _fill(engine: AsyncEngine, user_id: str, count: int) -> list[str]:
    identifiers = [new_id(MESSAGE) for _ in range(count)]
    for identifier in identifiers:
        message = Outgoing(identifier, identifier, user_id, Kind.PAYMENT_AUTHORIZED, Content("Title", "Body"))
        async with engine.begin() as connection:
            await put(connection, message)
            await put(connection, message)
    return identifiers


async def test_messages_are_listed_newest_first_and_page_by_page(engine: AsyncEngine) -> None:
    user_id = new_id(USER)
    newest_first = list(reversed(await _fill(engine, user_id, 5)))
    seen: list[str] = []
    async with engine.connect() as connection:
        page = await list_messages(connection, user_id, limit=2)
        while True:
            seen += [message.id for message in page.messages]
            if not page.has_more:
                break
            page = await list_messages(connection, user_id, limit=2, starting_after=seen[-1])
    assert seen == newest_first


async def test_a_message_is_read_once_and_stays_read(engine: AsyncEngine) -> None:
    user_id = new_id(USER)
    (identifier,) = await _fill(engine, user_id, 1)
    async with engine.begin() as connection:
        first = await mark_read(connection, user_id, identifier)
    async with engine.begin() as connection:
        again = await mark_read(connection, user_id, identifier)
    assert first.read_at is not None
    assert again == first


async def test_another_s_message_is_the_same_as_none(engine: AsyncEngine) -> None:
    (identifier,) = await _fill(engine, new_id(USER), 1)
    stranger = new_id(USER)
    for wanted in (identifier, new_id(MESSAGE)):
        async with engine.begin() as connection:
            with pytest.raises(NotFound):
                await mark_read(connection, stranger, wanted)
            with pytest.raises(NotFound):
                await list_messages(connection, stranger, starting_after=wanted)
    async with engine.connect() as connection:
        assert (await list_messages(connection, stranger)).messages == ()


async def test_a_device_reaches_the_user_who_registered_it_last(engine: AsyncEngine) -> None:
    first, second, token = new_id(USER), new_id(USER), f"device-{new_id(USER)}"
    async with engine.begin() as connection:
        await register(connection, first, token, Platform.IOS)
        await register(connection, second, token, Platform.IOS)
        assert await list_live(connection, first) == ()
        assert await list_live(connection, second) == (token,)
        # News of the device's former life changes nothing.
        assert not await prune(connection, token, first)
        assert await list_live(connection, second) == (token,)


async def test_a_pruned_token_lives_again_when_it_is_registered_again(engine: AsyncEngine) -> None:
    user_id, token = new_id(USER), f"device-{new_id(USER)}"
    async with engine.begin() as connection:
        await register(connection, user_id, token, Platform.WEB)
        assert await prune(connection, token, user_id)
        assert not await prune(connection, token, user_id)
        assert await list_live(connection, user_id) == ()
        await register(connection, user_id, token, Platform.WEB)
        assert await list_live(connection, user_id) == (token,)


async def test_a_recipient_has_the_platform_s_addresses_and_the_live_tokens(engine: AsyncEngine) -> None:
    tokens = (f"device-{new_id(USER)}", f"device-{new_id(USER)}")
    person = await new_person(engine, push_tokens=tokens, locale="de-AT")
    async with engine.begin() as connection:
        await prune(connection, tokens[0], person.user_id)
        recipient = await load_recipient(connection, person.user_id)
        assert await load_recipient(connection, new_id(USER)) is None
    assert recipient is not None
    assert (recipient.email, recipient.phone, recipient.locale) == (person.email, person.phone, "de-AT")
    assert recipient.push_tokens == tokens[1:]
