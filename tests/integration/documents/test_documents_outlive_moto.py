"""The embedded S3 keeps in memory; what it was asked to keep is asked again when it comes back."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from documents.errors import DocumentMissing
from documents.storage import Bucket, DocumentStorage
from embedded.servers import Moto
from tests.unit.documents.files import PDF, png


def _storage(moto: Moto) -> DocumentStorage:
    return DocumentStorage(Bucket("kept", "eu-central-1", "testing", "testing", endpoint=moto.endpoint))


async def test_documents_are_there_again_after_a_restart(tmp_path: Path) -> None:
    for number in range(3):
        moto = Moto(log=tmp_path / "moto.log", data=tmp_path / "aws")
        await moto.start()
        storage = _storage(moto)
        try:
            await storage.create_bucket()
            if number == 0:
                await storage.put("disputes/dp_1/file_1", PDF, "application/pdf")
                await storage.put("disputes/dp_1/file_2", png(), "image/png")
                await storage.delete("disputes/dp_1/file_2")
            assert await storage.read("disputes/dp_1/file_1") == PDF
            with pytest.raises(DocumentMissing):
                await storage.read("disputes/dp_1/file_2")
        finally:
            await storage.close()
            await moto.stop()
    assert stat.S_IMODE((tmp_path / "aws" / "requests.jsonl").stat().st_mode) == 0o600
    assert not [line for line in await _kept_at_the_next_start(tmp_path) if '"GET"' in line and "/kept/" in line]


async def _kept_at_the_next_start(folder: Path) -> list[str]:
    """What is left of the record when moto starts: reading leaves nothing behind."""
    moto = Moto(log=folder / "moto.log", data=folder / "aws")
    await moto.start()
    await moto.stop()
    return (folder / "aws" / "requests.jsonl").read_text().splitlines()
