"""A user who is signed in, over HTTP: with an authenticator and a handset that are made of keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.app import App, Someone
from tests.support.authenticator import Authenticator, Handset
from tests.support.platform import Access
from tests.support.shop import Json, new_key

JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Member:
    """A user who is signed in, with an authenticator and a handset of theirs."""

    app: App
    user_id: str
    token: str
    refresh_token: str
    authenticator: Authenticator
    handset: Handset

    async def post(self, path: str, body: Json | None = None, **headers: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": new_key()} | headers
        return await self.app.http.post(path, content=json.dumps(body or {}), headers=JSON | headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.app.get(path, self.token)

    async def delete(self, path: str) -> httpx.Response:
        return await self.app.http.delete(path, headers={"Authorization": f"Bearer {self.token}"})

    async def signed(self, path: str, body: Json, **claims: Any) -> httpx.Response:
        """A request with the handset's proof."""
        proof = self.handset.prove("POST", path, json.dumps(body).encode(), self.token, **claims)
        return await self.post(path, body, DPoP=proof)

    async def options(self) -> Json:
        response = await self.post("/v1/passkeys/registration_options")
        assert response.status_code == 200, response.text
        options: Json = response.json()["public_key"]
        return options

    async def add_passkey(self, name: str = "Phone") -> Json:
        credential = self.authenticator.make(await self.options())
        response = await self.post("/v1/passkeys", {"name": name, "credential": credential})
        assert response.status_code == 201, response.text
        passkey: Json = response.json()
        return passkey

    async def register_device(self) -> httpx.Response:
        asked = (await self.post("/v1/devices/registration_options")).json()
        proof = self.handset.register(asked["challenge"], asked["audience"])
        return await self.post("/v1/devices", {"name": "Phone", "platform": "ios", "proof": proof})


async def signed_up(app: App, platform: Access, **fields: Any) -> Member:
    completed = await app.register(Someone(**fields))
    origin = f"http://localhost:{urlsplit(platform.api).port}"
    session = completed["session"]
    return Member(
        app,
        completed["user"],
        session["token"],
        session["refresh_token"],
        Authenticator(origin=origin),
        Handset(origin=origin),
    )


def step_up_answer(asked: Json, authenticator: Authenticator, **changed: Any) -> Json:
    """What confirms a payment: the challenge of `GET …/step_up`, signed."""
    credential = authenticator.sign(asked["passkey"]["public_key"], **changed)
    return {"passkey": {"challenge": asked["passkey"]["challenge"], "credential": credential}}
