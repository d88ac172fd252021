"""Opens the boxes that the vault sealed for this worker, and fetches the data that may live for minutes only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from network.errors import CredentialExpired, CredentialStoreUnavailable, CredentialUnusable
from network.messages import Authentication, Card
from sealing import AUTHENTICATION_PURPOSE, PAN_PURPOSE, PROVISIONING_PURPOSE, SealBroken, Unsealer

_log = logging.getLogger(__name__)

_OPTIONAL_KEYS: Final = ("cvv", "address_line1", "postal_code")
_AUTHENTICATION_KEYS: Final = tuple(field.name for field in fields(Authentication) if field.name not in _OPTIONAL_KEYS)


class Credentials:
    """`redis` holds the boxes with sensitive authentication data under the handles that commands carry."""

    def __init__(self, redis: Redis, unsealer: Unsealer) -> None:
        self._redis = redis
        self._unsealer = unsealer

    def card(self, sealed_pan: str) -> Card:
        """The device number in a box of a payment.

        Raises:
            CredentialUnusable: the box cannot be opened here.
        """
        content = self._open(PAN_PURPOSE, sealed_pan)
        return Card(_value(content, "dpan"), _value(content, "exp"), _value(content, "psn"))

    def provisioning(self, sealed_token: str) -> tuple[Card, str]:
        """The device number in a provisioning box, and the card number for which it stands.

        Raises:
            CredentialUnusable: the box cannot be opened here.
        """
        content = self._open(PROVISIONING_PURPOSE, sealed_token)
        card = Card(_value(content, "dpan"), _value(content, "exp"), content.get("psn", "00"))
        return card, _value(content, "pan")

    async def authentication(self, handle: str) -> Authentication:
        """The sensitive authentication data under `handle`. It stays there until `forget`: a repeat needs it too.

        Raises:
            CredentialExpired: it is gone.
            CredentialUnusable: its box cannot be opened here.
            CredentialStoreUnavailable: Redis does not answer.
        """
        try:
            box = await self._redis.get(handle)
        except RedisError as error:
            raise CredentialStoreUnavailable(f"the credential store does not answer ({type(error).__name__})") from None
        if box is None:
            raise CredentialExpired("the sensitive authentication data is gone")
        content = self._open(AUTHENTICATION_PURPOSE, box if isinstance(box, str) else box.decode())
        values = {key: _value(content, key) for key in _AUTHENTICATION_KEYS}
        return Authentication(**values, **{key: content[key] for key in _OPTIONAL_KEYS if key in content})

    async def forget(self, handle: str) -> None:
        """Deletes the data once the authorization is decided (PCI DSS 3.3.1). It expires by itself in any case."""
        try:
            await self._redis.delete(handle)
        except RedisError as error:
            _log.warning("authentication data could not be deleted and is left to expire: %s", type(error).__name__)

    def _open(self, purpose: str, box: str) -> dict[str, str]:
        try:
            return self._unsealer.open(purpose, box)
        except SealBroken as error:
            raise CredentialUnusable(str(error)) from None


def _value(content: Mapping[str, str], key: str) -> str:
    try:
        return content[key]
    except KeyError:
        raise CredentialUnusable(f"the box lacks {key}") from None
