"""The evidence of a dispute as it is kept: a file under its dispute's and its own id, and a manifest of each answer."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy.ext.asyncio import AsyncEngine

from documents.errors import DocumentAltered, DocumentMissing
from documents.recognition import recognised
from documents.storage import DocumentStorage
from domain.errors import NotFound
from domain.evidence import EvidenceFile, FilePurpose, FrozenEvidence
from store.dispute_queries import find_dispute
from store.engine import reading
from store.queries import Row


def file_key(dispute_id: str, file_id: str) -> str:
    """Where a file is kept. Nothing that its sender says is part of it."""
    return f"disputes/{dispute_id}/{file_id}"


def manifest_key(dispute_id: str, submission: int) -> str:
    return f"disputes/{dispute_id}/manifest-{submission}.json"


class EvidenceArchive:
    """`engine` is read only: the dispute's workflow alone says what evidence there is."""

    def __init__(self, engine: AsyncEngine, storage: DocumentStorage) -> None:
        self._engine = reading(engine)
        self._storage = storage

    async def freeze(self, dispute_id: str, submission: int) -> FrozenEvidence:
        """Makes sure that every file is there and whole, and keeps a manifest of all that is said and shown.

        The manifest that was kept first stands: asked again, whatever came since, the answer is the same.

        Raises:
            NotFound: there is no such dispute.
            DocumentMissing, DocumentAltered: a file is not what was handed in.
            StorageUnavailable
        """
        key = manifest_key(dispute_id, submission)
        try:
            manifest = await self._storage.read(key)
        except DocumentMissing:
            manifest = await self._compose(dispute_id, submission)
            await self._storage.put(key, manifest, "application/json")
        return FrozenEvidence(hashlib.sha256(manifest).hexdigest(), len(json.loads(manifest)["files"]))

    async def _compose(self, dispute_id: str, submission: int) -> bytes:
        async with self._engine.connect() as connection:
            dispute = await find_dispute(connection, dispute_id)
        if dispute is None:
            raise NotFound("dispute", dispute_id)
        for file in dispute["files"]:
            await self._require(file_key(dispute_id, file["id"]), file["sha256"])
        return _manifest(dispute, submission)

    async def _require(self, key: str, sha256: str) -> None:
        if hashlib.sha256(await self._storage.read(key)).hexdigest() != sha256:
            raise DocumentAltered(key)


def described(file_id: str, purpose: FilePurpose, name: str, content: bytes) -> EvidenceFile:
    """What is recorded of a file that is handed in.

    Raises:
        documents.errors.DocumentRefused: it is not one that is taken.
    """
    content_type = recognised(content)
    return EvidenceFile(file_id, purpose, name, content_type, len(content), hashlib.sha256(content).hexdigest())


def _manifest(dispute: Row, submission: int) -> bytes:
    """Canonical JSON: the same evidence always has the same digest."""
    document = {
        "dispute": dispute["id"],
        "chargeback": dispute["chargeback_id"],
        "payment": dispute["payment_id"],
        "submission": submission,
        "kind": dispute["kind"],
        "reason_code": dispute["reason_code"],
        "amount_minor": dispute["amount_minor"],
        "currency": dispute["currency"],
        "texts": dispute["texts"],
        "files": [
            {name: file[name] for name in ("id", "purpose", "name", "content_type", "size_bytes", "sha256")}
            for file in dispute["files"]
        ],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
