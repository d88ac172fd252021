"""A gate in front of an HTTP server: it lets connections through, answers in the server's stead, or keeps silent."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

_HEADERS_END = b"\r\n\r\n"


class Gate:
    def __init__(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self._answers: list[bytes | None] = []
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def answer(self, status: int, body: str = "") -> None:
        """The next connection gets this answer."""
        head = f"HTTP/1.1 {status} Gate\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
        self._answers.append(f"{head}\r\n\r\n{body}".encode())

    def swallow(self) -> None:
        """The next connection is never answered, nor let through."""
        self._answers.append(None)

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            if self._answers:
                answer = self._answers.pop(0)
                await reader.readuntil(_HEADERS_END)
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                # The caller hangs up: after the answer, or when it has waited long enough for none.
                await reader.read()
            else:
                await self._let_through(reader, writer)
        writer.close()

    async def _let_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(self._host, self._port)
        try:
            await asyncio.gather(_pipe(reader, behind_writer), _pipe(behind_reader, writer))
        finally:
            behind_writer.close()


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(65536):
        target.write(chunk)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()
