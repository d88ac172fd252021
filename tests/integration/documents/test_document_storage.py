"""What is kept on S3 is encrypted, whole, closed to the public, and downloaded by a link that ends."""

from __future__ import annotations

import secrets
import urllib.parse
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import boto3
import httpx
import pytest
import pytest_asyncio

from documents.errors import DocumentMissing, StorageUnavailable
from documents.storage import Bucket, DocumentStorage
from embedded.processes import free_port
from tests.unit.documents.files import PDF


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    return Bucket(f"documents-{secrets.token_hex(4)}", "eu-central-1", "testing", "testing", endpoint=s3_endpoint)


@pytest_asyncio.fixture
async def storage(bucket: Bucket) -> AsyncIterator[DocumentStorage]:
    storage = DocumentStorage(bucket)
    await storage.create_bucket()
    yield storage
    await storage.close()


@pytest.fixture
def s3(bucket: Bucket) -> Any:
    """A client of S3 beside the storage's own."""
    return boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        region_name=bucket.region,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


async def test_what_is_put_is_read_as_it_was(storage: DocumentStorage) -> None:
    await storage.put("disputes/dp_1/file_1", PDF, "application/pdf")
    assert await storage.read("disputes/dp_1/file_1") == PDF


async def test_every_object_is_encrypted_by_s3_and_has_a_checksum(
    storage: DocumentStorage, bucket: Bucket, s3: Any
) -> None:
    await storage.put("key", PDF, "application/pdf")
    head = s3.head_object(Bucket=bucket.name, Key="key", ChecksumMode="ENABLED")
    assert (head["ServerSideEncryption"], head["ContentType"]) == ("AES256", "application/pdf")
    assert head["ChecksumSHA256"]


async def test_with_a_key_of_kms_that_key_encrypts(bucket: Bucket, s3: Any) -> None:
    with_kms = DocumentStorage(
        Bucket(bucket.name, bucket.region, "testing", "testing", endpoint=bucket.endpoint, kms_key_id="alias/documents")
    )
    await with_kms.create_bucket()
    await with_kms.put("key", PDF, "application/pdf")
    await with_kms.close()
    head = s3.head_object(Bucket=bucket.name, Key="key")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/documents")


async def test_the_bucket_is_closed_to_the_public_and_encrypts_by_default(
    storage: DocumentStorage, bucket: Bucket, s3: Any
) -> None:
    await storage.create_bucket()
    access = s3.get_public_access_block(Bucket=bucket.name)["PublicAccessBlockConfiguration"]
    assert set(access.values()) == {True}
    (rule,) = s3.get_bucket_encryption(Bucket=bucket.name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


async def test_what_was_never_put_or_is_deleted_is_missing(storage: DocumentStorage) -> None:
    with pytest.raises(DocumentMissing):
        await storage.read("nothing")
    await storage.put("key", PDF, "application/pdf")
    await storage.delete("key")
    await storage.delete("key")
    with pytest.raises(DocumentMissing):
        await storage.read("key")


async def test_a_link_downloads_the_file_under_its_name_and_as_nothing_else(storage: DocumentStorage) -> None:
    await storage.put("key", PDF, "application/pdf")
    link = storage.link("key", name='Quittung "ä".pdf', content_type="application/pdf", lifetime=timedelta(minutes=5))
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(link)
    assert answer.content == PDF
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''Quittung%20%22%C3%A4%22.pdf"


async def test_a_link_is_signed_for_its_lifetime_and_leads_where_s3_is_reached_from_outside(bucket: Bucket) -> None:
    outside = Bucket(
        bucket.name,
        bucket.region,
        "testing",
        "not-in-the-link",
        endpoint=bucket.endpoint,
        link_endpoint="https://files.example",
    )
    storage = DocumentStorage(outside)
    link = storage.link("key", name="a.pdf", content_type="application/pdf", lifetime=timedelta(minutes=5))
    await storage.close()
    parts = urllib.parse.urlsplit(link)
    query = dict(urllib.parse.parse_qsl(parts.query))
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "files.example", f"/{bucket.name}/key")
    assert (query["X-Amz-Algorithm"], query["X-Amz-Expires"]) == ("AWS4-HMAC-SHA256", "300")
    assert len(query["X-Amz-Signature"]) == 64
    assert "not-in-the-link" not in link


async def test_a_storage_that_does_not_answer_is_unavailable(bucket: Bucket) -> None:
    nowhere = Bucket(bucket.name, bucket.region, "testing", "testing", endpoint=f"http://127.0.0.1:{free_port()}")
    storage = DocumentStorage(nowhere)
    with pytest.raises(StorageUnavailable) as fault:
        await storage.put("key", PDF, "application/pdf")
    assert fault.value.reason == "EndpointConnectionError"
    await storage.close()


async def test_a_bucket_that_is_not_there_is_a_fault_and_no_missing_document(bucket: Bucket) -> None:
    storage = DocumentStorage(bucket)
    for call in (storage.read("key"), storage.put("key", PDF, "application/pdf")):
        with pytest.raises(StorageUnavailable) as fault:
            await call
        assert fault.value.reason == "NoSuchBucket"
    await storage.close()


def test_the_secret_is_not_shown(bucket: Bucket) -> None:
    shown = repr(Bucket("b", "r", "id", "hush"))
    assert "hush" not in shown
