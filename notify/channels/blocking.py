"""Runs a vendor's blocking SDK beside the event loop: a bounded pool of threads, and a deadline for each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from notify.errors import TemporaryFailure

T = TypeVar("T")


class BlockingCalls:
    """At most `threads` calls at once; none is waited for longer than `deadline_seconds`, queueing included.

    A thread cannot be stopped: the SDK's own timeouts, which must be shorter, end the call behind a missed deadline.
    A call that is still waiting for a thread at its deadline is never made.
    """

    def __init__(self, name: str, *, threads: int, deadline_seconds: float) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._deadline_seconds = deadline_seconds

    async def run(self, call: Callable[[], T]) -> T:
        """
        Raises:
            TemporaryFailure: `timed_out`.
        """
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except TimeoutError:
            raise TemporaryFailure("timed_out") from None

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def retry_after_seconds(header: str | None) -> float | None:
    """The seconds of a `Retry-After` header (RFC 9110, 10.2.3). A date, its other form, is left out: clocks differ."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
