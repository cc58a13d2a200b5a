"""The load of streams: opens some at once, reads each to its end, and says which were whole and unchanged.

Looks at every byte of every stream: a figure over answers that are not right is worth nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, cast

import httptools

from e2e.bench.router.bodies import event, head, request
from e2e.bench.router.upstream import DONE

CONNECTING: Final = 64
"""How many connections are opened at once, so that no queue of new ones runs over."""


@dataclass
class Outcome:
    """What came of a number of streams."""

    events: int = 0
    errors: int = 0


class _Reader(asyncio.Protocol):
    """Reads one stream and compares it with what the upstream sends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sent: bytes, wanted: bytes) -> None:
        self.done: asyncio.Future[bool] = loop.create_future()
        self.begun: asyncio.Future[None] = loop.create_future()
        self._sent, self._wanted = sent, wanted
        self._parser = httptools.HttpResponseParser(self)
        self._at = 0
        self._right = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self.transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        """Parse; what is no HTTP is an error."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._right = False
            self.transport.abort()

    def on_body(self, data: bytes) -> None:
        """Compare."""
        if not self.begun.done():
            self.begun.set_result(None)
        self._right = self._right and self._wanted.startswith(data, self._at)
        self._at += len(data)

    def on_message_complete(self) -> None:
        """Judge the whole."""
        whole = self._parser.get_status_code() == 200 and self._right and self._at == len(self._wanted)
        self._finish(whole)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """An end before the end is an error."""
        self._finish(False)

    def _finish(self, whole: bool) -> None:
        if not self.done.done():
            self.done.set_result(whole)
        if not self.begun.done():
            self.begun.set_result(None)


class Load:
    """A number of streams through one port."""

    def __init__(self, port: int, count: int, tokens: int) -> None:
        self._port, self._count = port, count
        body = request(1024, stream=True)
        self._sent = head(len(body), f"127.0.0.1:{port}") + body
        self._wanted = b"".join(event(token, tokens) for token in range(tokens + 2)) + DONE
        self._tokens = tokens
        self._readers: list[_Reader] = []

    async def begin(self) -> None:
        """Open all streams and wait for the first byte of each."""
        loop = asyncio.get_running_loop()
        for first in range(0, self._count, CONNECTING):
            group = range(first, min(self._count, first + CONNECTING))
            opened = [loop.create_connection(self._reader, "127.0.0.1", self._port) for _ in group]
            self._readers += [reader for _, reader in await asyncio.gather(*opened)]
        await asyncio.gather(*(reader.begun for reader in self._readers))

    def _reader(self) -> _Reader:
        return _Reader(asyncio.get_running_loop(), self._sent, self._wanted)

    async def end(self, seconds: float) -> Outcome:
        """Wait for the end of all; what has not ended by then is an error."""
        done = [reader.done for reader in self._readers]
        await asyncio.wait(done, timeout=seconds)
        whole = sum(one.done() and one.result() for one in done)
        self.leave()
        return Outcome(events=whole * (self._tokens + 3), errors=len(done) - whole)

    def leave(self) -> None:
        """Close every connection."""
        for reader in self._readers:
            reader.transport.abort()
