"""The ways to reach a person. Each adapter is one module over one vendor's SDK; all raise the same three errors."""

from __future__ import annotations

from typing import Protocol

from notify.messages import Outgoing, Recipient


class Channel(Protocol):
    def addresses(self, recipient: Recipient) -> tuple[str, ...]:
        """Where this channel reaches the recipient; empty when it does not."""
        ...

    async def send(self, message: Outgoing, address: str) -> str:
        """Hands `message` to the provider once and returns the provider's id of it. It never retries by itself.

        Raises:
            TemporaryFailure: not now.
            PermanentRefusal: never to this address.
            RecipientGone: never, and the address is to be forgotten.
        """
        ...

    async def close(self) -> None: ...
