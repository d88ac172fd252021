"""What must be there before the first payment: `python -m embedded.provision database|token|search-attributes|bucket`.

`database` brings the schema to the newest version. `token` makes the HSM token and its keys (the key ceremony) and
prints the keys' check values. `search-attributes` registers what workflows are found by; the dev server knows them from
its start, a cluster must be told. `bucket` makes the bucket of documents, closed to the public. All of them change
nothing the second time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client

from config.settings import DatabaseSettings, DocumentSettings, HsmSettings, TemporalSettings
from documents.storage import Bucket, DocumentStorage
from embedded.softhsm import create_token
from store.migrate import migrate
from temporal import search_attributes
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.keys import create_keys


def database() -> None:
    migrate(DatabaseSettings().url.get_secret_value())


def token() -> None:
    """Needs SOFTHSM2_CONF (its folder becomes the token's), DURAPAY_CEREMONY_SO_PIN and DURAPAY_CEREMONY_IMK_AC: the
    double-length 3DES master key, in hex, that the card issuer's host holds too."""
    settings = HsmSettings()
    pin = settings.pin.get_secret_value()
    folder = Path(os.environ["SOFTHSM2_CONF"]).parent
    create_token(folder, label=settings.token_label, pin=pin, so_pin=os.environ["DURAPAY_CEREMONY_SO_PIN"])
    provider = Pkcs11Provider(settings.module, settings.token_label, pin, sessions=1)
    for label, check_value in create_keys(provider, bytes.fromhex(os.environ["DURAPAY_CEREMONY_IMK_AC"])).items():
        print(f"{label} {check_value}")
    provider.close()


def register_search_attributes() -> None:
    asyncio.run(_register(TemporalSettings()))


async def _register(settings: TemporalSettings) -> None:
    client = await Client.connect(settings.address, namespace=settings.namespace)
    present = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=settings.namespace)
    )
    missing = {
        name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
        for name, kind in search_attributes.ALL.items()
        if name not in present.custom_attributes
    }
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=settings.namespace, search_attributes=missing)
        )
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    await asyncio.sleep(0.5)


def bucket() -> None:
    asyncio.run(_create_bucket(DocumentSettings()))


async def _create_bucket(settings: DocumentSettings) -> None:
    storage = DocumentStorage(Bucket.of(settings))
    await storage.create_bucket()
    await storage.close()


_STEPS = {
    "database": database,
    "token": token,
    "search-attributes": register_search_attributes,
    "bucket": bucket,
}

if __name__ == "__main__":
    _STEPS[sys.argv[1]]()
