"""Sensitive authentication data on its minutes-long way through Redis, the only place that ever holds any.

PCI DSS 3.3.1 forbids keeping it after the authorization, even encrypted. A security code waits here, encrypted by the
HSM, for the first payment with its card and is gone with the first reading, and so does a billing address, which nobody
needs for longer either; a finished credential's box waits for the
network worker, which alone can open it.
"""

from __future__ import annotations

import base64
import secrets

from redis.asyncio import Redis

from vault.hsm.provider import Encrypted

CVC_SECONDS = 15 * 60
BOX_SECONDS = 5 * 60
_HANDLE_BYTES = 16


class Transit:
    """The values in Redis. None of them is in clear."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put_cvc(self, token_id: str, key_version: int, cvc: Encrypted) -> None:
        parts = (str(key_version), _encode(cvc.iv), _encode(cvc.ciphertext))
        await self._redis.set(_cvc_key(token_id), ".".join(parts), ex=CVC_SECONDS)

    async def take_cvc(self, token_id: str) -> tuple[int, Encrypted] | None:
        """The key version and ciphertext of a waiting code, which is gone with this call."""
        value = await self._redis.getdel(_cvc_key(token_id))
        if value is None:
            return None
        text = value.decode() if isinstance(value, bytes) else str(value)
        version, iv, ciphertext = text.split(".")
        return int(version), Encrypted(base64.b64decode(iv), base64.b64decode(ciphertext))

    async def drop_cvc(self, token_id: str) -> None:
        await self._redis.delete(_cvc_key(token_id))

    async def put_box(self, box: str) -> str:
        """Leaves `box` for the network worker; the handle, which is the whole Redis key, is all that is needed."""
        handle = f"authentication:{secrets.token_urlsafe(_HANDLE_BYTES)}"
        await self._redis.set(handle, box, ex=BOX_SECONDS)
        return handle


def _cvc_key(token_id: str) -> str:
    return f"vault:cvc:{token_id}"


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
