"""The bank's file service over HTTPS: hand a file over, ask for it by its id, and read what came back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from bank.errors import BankDoesNotSay, BankFileInvalid, BankUnreachable

_MAX_RETURN_FILE_BYTES: Final = 16 * 1024**2


class FileStatus(StrEnum):
    ACCEPTED = "accepted"
    POSTED = "posted"
    REFUSED = "refused"


class FileReport(BaseModel):
    """What the bank says of a file. `reason` is a word, for a refusal."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    file_id: str
    sha256: str
    status: FileStatus
    posted_on: date | None = None
    reason: str | None = None


class Lost(StrEnum):
    """A file that may have reached the bank: no valid answer came."""

    ANSWER = "answer"


class _ReturnFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sequence: int
    day: date
    sha256: str


class _ReturnFiles(BaseModel):
    data: list[_ReturnFile]


@dataclass(frozen=True, slots=True)
class ReturnFile:
    """A file of returned entries, checked against its digest. `settled_on` is the banking day of its entries."""

    sequence: int
    settled_on: date
    sha256: bytes
    text: str


class BankClient:
    """The bank at `url` (`https://…`), opened by a bearer `token`. `timeout_seconds` bounds each step of a call."""

    def __init__(self, url: str, token: str, timeout_seconds: float = 10.0) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, 5.0)),
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, file_id: str, text: str) -> FileReport | Lost:
        """Hands a file over, once: the bank takes it, has it already, or refuses it; or nobody knows.

        Raises:
            BankUnreachable: no byte was sent.
        """
        headers = {"Content-Type": "text/plain", "File-Digest": hashlib.sha256(text.encode()).hexdigest()}
        try:
            response = await self._client.put(f"/files/{file_id}", content=text.encode(), headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise BankUnreachable(f"the bank cannot be reached ({type(error).__name__})") from None
        except httpx.HTTPError:
            return Lost.ANSWER
        if response.status_code not in (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.UNPROCESSABLE_ENTITY):
            return Lost.ANSWER
        return _report(response) or Lost.ANSWER

    async def find(self, file_id: str) -> FileReport | None:
        """What the bank says of a file; None if it says that it has none under this id.

        Raises:
            BankDoesNotSay: it did not answer, or not as it should.
        """
        response = await self._get(f"/files/{file_id}")
        if response.status_code == httpx.codes.NOT_FOUND and _says_unknown(response):
            return None
        report = _report(response) if response.status_code == httpx.codes.OK else None
        if report is None:
            raise BankDoesNotSay(f"the bank answers {response.status_code}")
        return report

    async def returns(self, after: int) -> list[ReturnFile]:
        """The files of returned entries behind the `after`th, in their order.

        Raises:
            BankDoesNotSay: the bank did not answer, or not as it should.
            BankFileInvalid: a file is not the one that its digest names.
        """
        response = await self._get("/returns", after=after)
        try:
            listed = _ReturnFiles.model_validate_json(_content(response)).data
        except ValidationError:
            raise BankFileInvalid("the bank's list of returns cannot be read") from None
        return [await self._return_file(each) for each in listed]

    async def _return_file(self, listed: _ReturnFile) -> ReturnFile:
        content = _content(await self._get(f"/returns/{listed.sequence}"))
        digest = hashlib.sha256(content)
        if len(content) > _MAX_RETURN_FILE_BYTES or digest.hexdigest() != listed.sha256:
            raise BankFileInvalid(f"file {listed.sequence} of returns is not the one that its digest names")
        return ReturnFile(listed.sequence, listed.day, digest.digest(), content.decode("ascii", errors="replace"))

    async def _get(self, path: str, **query: int) -> httpx.Response:
        try:
            return await self._client.get(path, params=query)
        except httpx.HTTPError as error:
            raise BankDoesNotSay(f"the bank does not answer ({type(error).__name__})") from None


def _report(response: httpx.Response) -> FileReport | None:
    try:
        return FileReport.model_validate_json(response.content)
    except ValidationError:
        return None


def _says_unknown(response: httpx.Response) -> bool:
    """A proxy's 404 is no word of the bank's."""
    return response.headers.get("content-type", "").startswith("application/json") and b"file_unknown" in (
        response.content
    )


def _content(response: httpx.Response) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise BankDoesNotSay(f"the bank answers {response.status_code}")
    return response.content
