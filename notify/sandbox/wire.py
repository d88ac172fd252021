"""What the two vendors' endpoints share: bounded bodies, and a call that a fault may befall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from notify.sandbox.faults import Fault, Faults, GaveUp, Provider, When, hang

MAX_BODY_BYTES = 64 * 1024


class BodyTooLarge(Exception):
    """More than `MAX_BODY_BYTES`."""


async def body(request: Request) -> bytes:
    """
    Raises:
        BodyTooLarge: it is.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise BodyTooLarge
    return bytes(content)


async def form(request: Request) -> dict[str, str]:
    """The fields of an `application/x-www-form-urlencoded` body; of a repeated one the last."""
    return dict(parse_qsl((await body(request)).decode("utf-8", "replace"), keep_blank_values=True))


async def answer(
    request: Request,
    faults: Faults,
    provider: Provider,
    handle: Callable[[], Response],
    fail: Callable[[Fault], Response],
) -> Response:
    """`handle`'s answer, in a thread of its own, unless a fault was ordered for this call."""
    fault = faults.take(provider)
    if fault is None:
        return await asyncio.to_thread(handle)
    try:
        if fault.when is When.BEFORE:
            await hang(request, fault)
            return fail(fault) if fault.status else await asyncio.to_thread(handle)
        response = await asyncio.to_thread(handle)
        await hang(request, fault)
        return fail(fault) if fault.status else response
    except GaveUp:
        return Response(status_code=499)
