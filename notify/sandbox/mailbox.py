"""Fetches the e-mails that moto, the stand-in for SES, has taken. Moto keeps no times: the first look at one counts."""

from __future__ import annotations

import httpx

from notify.sandbox.store import Received, Store


class Mailbox:
    def __init__(self, endpoint: str | None, store: Store) -> None:
        self._endpoint = endpoint
        self._store = store
        self._client = httpx.AsyncClient(timeout=5, trust_env=False)

    async def fetch(self) -> bool:
        """Brings new e-mails into the store; whether moto answered (it may not be up)."""
        if self._endpoint is None:
            return True
        try:
            answer = await self._client.get(f"{self._endpoint}/moto-api/data.json")
            answer.raise_for_status()
        except httpx.HTTPError:
            return False
        mails = answer.json().get("ses", {}).get("Message", [])
        self._store.keep(
            *(
                Received(
                    id=mail["id"],
                    channel="email",
                    sender=mail["source"],
                    recipient=address,
                    title=mail["subject"],
                    body=mail["body"],
                )
                for mail in mails
                for address in mail["destinations"].get("ToAddresses", [])
            )
        )
        return True

    async def close(self) -> None:
        await self._client.aclose()
