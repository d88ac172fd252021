"""In-app notices: a row in PostgreSQL. Its id follows from the notification's key, so it is there exactly once."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from notify.errors import TemporaryFailure
from notify.inbox import put
from notify.messages import Outgoing, Recipient


class InAppChannel:
    def __init__(self, engine: AsyncEngine) -> None:
        # One statement is a transaction of its own.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def addresses(self, recipient: Recipient) -> tuple[str, ...]:
        return (recipient.user_id,)

    async def send(self, message: Outgoing, address: str) -> str:
        try:
            async with self._engine.connect() as connection:
                await put(connection, message)
        except OperationalError:
            raise TemporaryFailure("database") from None
        return message.message_id

    async def close(self) -> None:
        """The engine is the caller's."""
