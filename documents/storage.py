"""The bucket: objects are encrypted by S3, checked by their digests, and downloaded through links that expire."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_s3 import S3Client

from documents.errors import DocumentMissing, StorageUnavailable

T = TypeVar("T")

_TIMEOUT_SECONDS = 5.0


class Secret(Protocol):
    def get_secret_value(self) -> str: ...


class BucketSettings(Protocol):
    """What a program reads from its environment."""

    @property
    def bucket(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def access_key_id(self) -> str: ...
    @property
    def secret_access_key(self) -> Secret: ...
    @property
    def endpoint(self) -> str | None: ...
    @property
    def link_endpoint(self) -> str | None: ...
    @property
    def kms_key_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where documents are kept. `endpoint` replaces AWS's; `link_endpoint` is how S3 is reached from outside.

    Objects are encrypted with the key `kms_key_id` of AWS KMS, or without one by S3's own keys (SSE-S3).
    """

    name: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    endpoint: str | None = None
    link_endpoint: str | None = None
    kms_key_id: str | None = None

    @classmethod
    def of(cls, settings: BucketSettings) -> Bucket:
        return cls(
            name=settings.bucket,
            region=settings.region,
            access_key_id=settings.access_key_id,
            secret_access_key=settings.secret_access_key.get_secret_value(),
            endpoint=settings.endpoint,
            link_endpoint=settings.link_endpoint,
            kms_key_id=settings.kms_key_id,
        )


class DocumentStorage:
    """boto3 blocks, so its calls run in threads of their own: at most `threads` at once.

    Every call raises StorageUnavailable when S3 cannot be reached, is too slow (connecting, sending and reading have
    `timeout_seconds` each), or refuses.
    """

    def __init__(self, bucket: Bucket, *, timeout_seconds: float = _TIMEOUT_SECONDS, threads: int = 4) -> None:
        self._bucket = bucket
        self._client = _client(bucket, bucket.endpoint, timeout_seconds, threads)
        self._signer = _client(bucket, bucket.link_endpoint or bucket.endpoint, timeout_seconds, threads)
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="s3")
        self._deadline_seconds = 3 * timeout_seconds

    async def create_bucket(self) -> None:
        """Makes the bucket, closed to the public and encrypting by default. Doing it again changes nothing."""
        await self._call(self._create_bucket)

    async def put(self, key: str, content: bytes, content_type: str) -> None:
        """Keeps `content` under `key`. S3 refuses what does not arrive with its digest, and encrypts it."""
        await self._call(
            lambda: self._client.put_object(
                Bucket=self._bucket.name,
                Key=key,
                Body=content,
                ContentType=content_type,
                ChecksumAlgorithm="SHA256",
                **self._encryption(),
            )
        )

    async def read(self, key: str) -> bytes:
        """What is kept under `key`.

        Raises:
            DocumentMissing: nothing is.
        """
        try:
            return await self._call(lambda: self._client.get_object(Bucket=self._bucket.name, Key=key)["Body"].read())
        except StorageUnavailable as error:
            if error.reason == "NoSuchKey":
                raise DocumentMissing(key) from None
            raise

    async def delete(self, key: str) -> None:
        """Removes what is kept under `key`, if anything is."""
        await self._call(lambda: self._client.delete_object(Bucket=self._bucket.name, Key=key))

    def link(self, key: str, *, name: str, content_type: str, lifetime: timedelta) -> str:
        """An address at which whoever has it may download the object, under `name`, until `lifetime` is over."""
        return self._signer.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._bucket.name,
                "Key": key,
                "ResponseContentType": content_type,
                # RFC 6266: never opened within the browser, whatever is in it.
                "ResponseContentDisposition": f"attachment; filename*=UTF-8''{urllib.parse.quote(name, safe='')}",
            },
            ExpiresIn=int(lifetime.total_seconds()),
        )

    async def close(self) -> None:
        self._client.close()
        self._signer.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _create_bucket(self) -> None:
        name, region = self._bucket.name, self._bucket.region
        # S3 wants no constraint for the first of its regions, and one for any other.
        where: dict[str, Any] = {}
        if region != "us-east-1":
            where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._client.create_bucket(Bucket=name, **where)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise
        self._client.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        default: Any = {"SSEAlgorithm": "AES256"}
        if self._bucket.kms_key_id is not None:
            default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self._bucket.kms_key_id}
        self._client.put_bucket_encryption(
            Bucket=name,
            ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default}]},
        )

    def _encryption(self) -> Any:
        if self._bucket.kms_key_id is None:
            return {"ServerSideEncryption": "AES256"}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._bucket.kms_key_id}

    async def _call(self, call: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except ClientError as error:
            raise StorageUnavailable(error.response["Error"]["Code"]) from None
        except BotoCoreError as error:
            raise StorageUnavailable(type(error).__name__) from None
        except TimeoutError:
            raise StorageUnavailable("timed_out") from None


def _client(bucket: Bucket, endpoint: str | None, timeout_seconds: float, threads: int) -> S3Client:
    return boto3.client(
        "s3",
        region_name=bucket.region,
        endpoint_url=endpoint,
        aws_access_key_id=bucket.access_key_id,
        aws_secret_access_key=bucket.secret_access_key,
        config=Config(
            signature_version="s3v4",
            # A bucket's own host name resolves at AWS alone.
            s3={"addressing_style": "path" if endpoint else "virtual"},
            connect_timeout=timeout_seconds,
            read_timeout=timeout_seconds,
            # The callers' retries are durable, or a person's.
            retries={"total_max_attempts": 1},
            max_pool_connections=threads,
        ),
    )
