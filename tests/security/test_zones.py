"""Trust zones as the kernel shows them: which running process was given which secret."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.state import make_secret
from sealing import PAN_PURPOSE, SealBroken, Unsealer
from tests.support.platform import Access
from tests.support.shop import Shop

# Secret → the processes that may know it.
OWNERS = {
    "hsm_pin": {"vault worker", "API"},
    "unsealing_private_key": {"network worker"},
    "identity_secret": {"API"},
    "contact_codes_secret": {"API", "notify worker"},
    "step_up_secret": {"payments worker", "notify worker"},
    "codec_key": {
        "payments worker",
        "vault worker",
        "network worker",
        "notify worker",
        "settlement worker",
        "onboarding worker",
        "bank worker",
        "API",
        "codec server",
    },
    "imk_ac": {"network simulator"},
    "hsm_so_pin": set(),
    "twilio_auth_token": {"notify worker", "notification sandbox"},
    "ses_secret_access_key": {"notify worker"},
    "documents_secret_access_key": {"payments worker", "onboarding worker", "API"},
    "simulator_control_token": {"network simulator"},
    "clearing_token": {"network simulator", "settlement worker"},
    "bank_private_key": {"bank worker"},
    "bank_token": {"bank worker", "bank simulator"},
    "bank_control_token": {"bank simulator"},
}


@pytest.fixture(scope="module")
def environments(platform: Access) -> dict[str, bytes]:
    running = json.loads((Path(platform.state) / "running.json").read_text())
    return {name: Path(f"/proc/{pid}/environ").read_bytes() for name, pid in running["processes"].items()}


@pytest.mark.parametrize("secret", OWNERS)
def test_a_secret_is_in_the_environment_of_its_owners_alone(
    platform: Access, environments: dict[str, bytes], secret: str
) -> None:
    value = platform.secret(secret).strip().encode()
    knowing = {name for name, environment in environments.items() if value in environment}
    assert knowing == OWNERS[secret]


def test_no_process_was_given_its_secrets_as_arguments(platform: Access) -> None:
    running = json.loads((Path(platform.state) / "running.json").read_text())
    for pid in running["processes"].values():
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert not any(platform.secret(secret).encode() in arguments for secret in OWNERS)


async def test_a_sealed_credential_opens_with_the_network_workers_key_alone(
    platform: Access, shop: Shop, database: AsyncEngine
) -> None:
    payment = await shop.authorized((await shop.wallet()).card_id)
    statement = text("SELECT sealed_pan FROM network.messages WHERE payment_id = :id AND sealed_pan IS NOT NULL")
    async with database.connect() as connection:
        sealed = str(await connection.scalar(statement, {"id": payment["id"]}))
    own = base64.b64decode(platform.secret("unsealing_private_key"))
    assert len(Unsealer([own]).open(PAN_PURPOSE, sealed)["dpan"]) == 16
    for name in ("another key", "codec_key", "step_up_secret"):
        key = make_secret("unsealing_private_key") if name == "another key" else platform.secret(name)
        with pytest.raises(SealBroken):
            Unsealer([base64.b64decode(key)]).open(PAN_PURPOSE, sealed)
