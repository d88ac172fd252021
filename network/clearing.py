"""The network's clearing file of a day: fetched once, checked as a whole, and read page by page.

Nothing of a file is given out before all of it was checked: a settlement must not begin on a file whose end is missing.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import itertools
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO, Final

import httpx

from domain.clearing import ClearingFile, ClearingPage, ClearingRecord
from network.errors import ClearingFileInvalid, ClearingNotReady, ClearingUnreachable
from network.ipm import IpmInvalid, Reader, record_of, unblocked

# About three million records.
_MAX_FILE_BYTES: Final = 1024**3
_MAX_PAGE: Final = 10_000
# Files that are kept at hand: a settlement reads one day, and perhaps the one before it.
_KEPT_FILES: Final = 2
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)


class ClearingHouse:
    """The network's clearing service at `url` (`https://…`), opened by a bearer `token`.

    A day's file never changes once the day is closed, so one that was fetched is kept, on disk, for further pages.
    """

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT, follow_redirects=False
        )
        self._files: OrderedDict[date, _CheckedFile] = OrderedDict()
        # One download at a time: two callers of a day want the same file.
        self._fetching = asyncio.Lock()

    async def aclose(self) -> None:
        for checked in self._files.values():
            checked.close()
        self._files.clear()
        await self._client.aclose()

    async def file(self, day: date) -> ClearingFile:
        """The file of `day`, checked: framing, header, trailer, message numbers, counts and sums.

        Raises:
            ClearingNotReady: the network has not closed the day yet; ask again later.
            ClearingUnreachable: the network's service did not answer, or not as it should; ask again.
            ClearingFileInvalid: what it gave is not a file of that day; an operator has to look.
        """
        return (await self._checked(day)).file

    async def page(self, day: date, offset: int, limit: int) -> ClearingPage:
        """At most `limit` records of the day's file (up to 10,000), from `offset` on, in the order of the file.

        Raises:
            ValueError: no such page.
            ClearingNotReady, ClearingUnreachable, ClearingFileInvalid: as `file`.
        """
        if offset < 0 or not 0 < limit <= _MAX_PAGE:
            raise ValueError(f"a page begins at 0 or later and has 1 to {_MAX_PAGE} records")
        checked = await self._checked(day)
        records = await asyncio.to_thread(checked.read, offset, limit)
        end = offset + len(records)
        return ClearingPage(checked.file, records, end if end < checked.file.records else None)

    async def _checked(self, day: date) -> _CheckedFile:
        async with self._fetching:
            checked = self._files.get(day)
            if checked is None:
                checked = await self._fetch(day)
                self._files[day] = checked
                while len(self._files) > _KEPT_FILES:
                    # Whoever still reads from it has it open; the garbage collector closes it after the last reader.
                    self._files.popitem(last=False)
            self._files.move_to_end(day)
            return checked

    async def _fetch(self, day: date) -> _CheckedFile:
        with tempfile.TemporaryFile() as raw:
            digest = await self._download(day, raw)
            raw.seek(0)
            try:
                return await asyncio.to_thread(_check, day, raw, digest)
            except IpmInvalid as error:
                raise ClearingFileInvalid(day, str(error)) from None

    async def _download(self, day: date, raw: BinaryIO) -> str:
        """Writes the file into `raw`; its SHA-256."""
        digest = hashlib.sha256()
        size = 0
        try:
            async with self._client.stream("GET", f"/clearing/{day.isoformat()}") as response:
                await _refuse(day, response)
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > _MAX_FILE_BYTES:
                        raise ClearingFileInvalid(day, "the file is larger than any that could be read")
                    digest.update(chunk)
                    raw.write(chunk)
        except httpx.HTTPError as error:
            raise ClearingUnreachable(f"the clearing service does not answer ({type(error).__name__})") from None
        return digest.hexdigest()


async def _refuse(day: date, response: httpx.Response) -> None:
    if response.status_code == httpx.codes.NOT_FOUND:
        raise ClearingNotReady(day)
    if response.status_code != httpx.codes.OK:
        raise ClearingUnreachable(f"the clearing service answers {response.status_code}")


@dataclass(frozen=True, slots=True)
class _CheckedFile:
    """The raw records in an unnamed file, one after the other, and where each begins; the last entry is the end."""

    file: ClearingFile
    content: BinaryIO
    offsets: array.array[int]

    def read(self, offset: int, limit: int) -> tuple[ClearingRecord, ...]:
        bounds = self.offsets[offset : offset + limit + 1]
        if len(bounds) < 2:
            return ()
        # Without a position of its own, so that two pages can be read at once.
        raw = os.pread(self.content.fileno(), bounds[-1] - bounds[0], bounds[0])
        return tuple(
            record_of(raw[begin - bounds[0] : end - bounds[0]], self.file.day)
            for begin, end in itertools.pairwise(bounds)
        )

    def close(self) -> None:
        self.content.close()


def _check(day: date, raw: BinaryIO, digest: str) -> _CheckedFile:
    reader = Reader(day)
    offsets = array.array("Q", [0])
    with contextlib.ExitStack() as unless_kept:
        content = unless_kept.enter_context(tempfile.TemporaryFile())
        for record in unblocked(raw):
            if reader.take(record) is not None:
                content.write(record)
                offsets.append(offsets[-1] + len(record))
        totals = reader.totals()
        content.flush()
        unless_kept.pop_all()
    return _CheckedFile(ClearingFile(day, reader.file_id, digest, len(offsets) - 1, totals), content, offsets)
