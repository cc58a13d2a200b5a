"""A tier that streams at a given pace: `python -m e2e.bench.router.upstream PORT GAP_MS TOKENS`.

Each event is a write of its own, as an engine does it, and streams are served in a few groups in turn, so that a proxy
sees neither one event at a time nor all of them at once. Answers everything else with an empty JSON object.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast

import uvloop

from e2e.bench.router.bodies import PATH, USAGE_ASKED, event, usage_event

GROUPS: Final = 8
"""Streams that are served in one moment are an eighth of all."""
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
OTHER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
DONE: Final = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a reply without a length."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stream:
    """One answer under way."""

    __slots__ = ("next", "transport", "usage")

    def __init__(self, transport: asyncio.Transport, *, usage: bool) -> None:
        self.transport, self.usage, self.next = transport, usage, 0


class Pace:
    """Serves every stream one event in each round."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gap: float, tokens: int) -> None:
        self._loop, self._gap = loop, gap / GROUPS
        self._groups: list[list[Stream]] = [[] for _ in range(GROUPS)]
        self._turn = self._joined = 0
        self._events = [chunk(event(token, tokens)) for token in range(tokens + 2)]
        self._usage = chunk(usage_event(tokens))
        self._end = chunk(DONE) + b"0\r\n\r\n"
        self._due = loop.time()
        self._tick()

    def add(self, stream: Stream) -> None:
        """Serve one more stream, from its group's next turn on."""
        self._groups[self._joined % GROUPS].append(stream)
        self._joined += 1

    def _tick(self) -> None:
        """Serve a group; when late, the pace is kept and nothing is made up for."""
        group = self._groups[self._turn % GROUPS]
        self._groups[self._turn % GROUPS] = [stream for stream in group if self._write(stream)]
        self._turn += 1
        self._due = max(self._due + self._gap, self._loop.time())
        self._loop.call_at(self._due, self._tick)

    def _write(self, stream: Stream) -> bool:
        transport = stream.transport
        if transport.is_closing():
            return False
        if stream.next < len(self._events):
            transport.write(self._events[stream.next])
            stream.next += 1
            return True
        if stream.usage:
            stream.usage = False
            transport.write(self._usage)
            return True
        transport.write(self._end)
        return False


class Connection(asyncio.Protocol):
    """One connection; the load is trusted to send whole requests with a length."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Begin an answer as soon as the request is whole."""
        self._rest += data
        head, gap, body = self._rest.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return
        self._rest = b""
        if PATH.encode() not in head[:200]:
            self._transport.write(OTHER)
            return
        self._transport.write(HEAD)
        self._pace.add(Stream(self._transport, usage=USAGE_ASKED in body))


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def serve(port: int, gap: float, tokens: int) -> None:
    """Serve until stopped."""
    loop = asyncio.get_running_loop()
    pace = Pace(loop, gap, tokens)
    server = await loop.create_server(lambda: Connection(pace), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000, int(sys.argv[3])))
