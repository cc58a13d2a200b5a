"""The soak's clients: they ask and wait, read slowly, write slowly, leave, or ask nonsense. Each judges its answer.

An answer is true when every word of it names one tier and this request, in order and whole; or it is an error that says
so. Everything else is wrong, and told.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import Counter
from random import Random
from typing import Any, Final, cast

import httptools

from e2e.soak.router_tier import EVENTS, LONG, words

KINDS: Final = {
    "plain": 700,
    "stream": 200,
    "leaves": 40,
    "slow reader": 5,
    "slow writer": 15,
    "no JSON": 20,
    "nobody": 20,
}
ERRORS: Final = (429, 500, 502, 503, 504)
PATIENCE: Final = 20.0
"""A client that waits longer than this, in seconds, was forgotten."""


class Reply:
    """One reply as it came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()


class Connection(asyncio.Protocol):
    """One connection to the router, for one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._start()

    def _start(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._reply = Reply()
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._whole: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Tell whoever waits."""
        self.closed = True
        for waits in (self._begun, self._whole):
            if not waits.done():
                waits.set_exception(ConnectionResetError("closed before the reply was whole"))
                waits.exception()  # it is no matter when nobody waits

    def data_received(self, data: bytes) -> None:
        """Parse."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._whole.done():
                self._whole.set_exception(ValueError(f"no HTTP: {error} in {data[:200]!r}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._reply.headers[name] = value

    def on_headers_complete(self) -> None:
        """Keep the status."""
        self._reply.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Keep some of the body."""
        self._reply.body += data
        if not self._begun.done():
            self._begun.set_result(None)

    def on_message_complete(self) -> None:
        """Give the reply to whoever waits."""
        if not self._whole.done():
            self._whole.set_result(self._reply)

    async def ask(self, request: bytes) -> Reply:
        """Send a request and wait for its reply."""
        self.send(request)
        return await self.reply()

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._start()
        self.transport.write(request)

    async def reply(self) -> Reply:
        """Wait for the reply."""
        async with asyncio.timeout(PATIENCE):
            return await self._whole

    async def begun(self) -> None:
        """Wait for the first of the body."""
        async with asyncio.timeout(PATIENCE):
            await self._begun

    def leave(self, *, reset: bool) -> None:
        """Leave, in order or not."""
        if reset:
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


class Clients:
    """All of them: what they asked, how it ended, and what was wrong."""

    def __init__(self, port: int, models: list[str], seed: int) -> None:
        self._port, self._models = port, models
        self._dice = Random(seed)  # noqa: S311 - repeatable, not secret
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seconds: list[float] = []
        """How long plain answers took."""
        self.left: dict[str, float] = {}
        """When somebody left, by request."""
        self.stop = False
        self._next = 0.0
        self._count = 0

    async def run(self, workers: int, rate: float | None) -> None:
        """Ask until told to stop; at this rate, or as fast as answers come."""
        self._next = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(rate))

    async def _work(self, rate: float | None) -> None:
        connection: Connection | None = None
        while not self.stop:
            if rate is not None:
                # Who is late catches up, but not for more than a second.
                self._next = max(self._next + 1 / rate, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, self._next - time.monotonic()))
            if connection is None or connection.closed:
                connection = await self._connect()
            connection = await self._one(connection)
        if connection is not None:
            connection.leave(reset=False)

    async def _connect(self) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        return made

    async def _one(self, connection: Connection) -> Connection | None:
        """Ask once; returns the connection if it may be used again."""
        kind = self._dice.choices(list(KINDS), list(KINDS.values()))[0]
        self._count += 1
        name = f"r{self._count}"
        try:
            asked: Connection | None = await getattr(self, "_" + kind.replace(" ", "_").lower())(connection, name)
            return asked
        except ConnectionResetError as error:
            self._wrong(name, kind, f"{error}")
        except TimeoutError:
            self._wrong(name, kind, f"no whole reply within {PATIENCE} s")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self._wrong(name, kind, f"{type(error).__name__} {error}")
        connection.leave(reset=True)
        return None

    def _wrong(self, name: str, kind: str, why: str) -> None:
        self.wrong.append(f"{kind} {name}: {why}")

    def _request(self, name: str, **fields: Any) -> bytes:
        model = self._dice.choice(self._models)
        said = {"model": model, "messages": [{"role": "user", "content": f"request {name}"}], **fields}
        return self._raw(name, json.dumps(said).encode())

    def _raw(self, name: str, body: bytes) -> bytes:
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (name.encode(), len(body), body)
        )

    # -- kinds ------------------------------------------------------------------------------------------------------

    async def _plain(self, connection: Connection, name: str) -> Connection:
        began = time.monotonic()
        self._judge(name, "plain", await connection.ask(self._request(name)))
        self.seconds.append(time.monotonic() - began)
        return connection

    async def _stream(self, connection: Connection, name: str) -> Connection:
        self._judge(name, "stream", await connection.ask(self._request(name, stream=True)))
        return connection

    async def _slow_writer(self, connection: Connection, name: str) -> Connection:
        request = self._request(name)
        connection.send(request[:1])
        for begin, end in ((1, 20), (20, 150), (150, len(request))):
            await asyncio.sleep(self._dice.random() * 0.2)
            if connection.closed:
                break
            connection.transport.write(request[begin:end])
        self._judge(name, "slow writer", await connection.reply())
        return connection

    async def _slow_reader(self, connection: Connection, name: str) -> Connection:
        connection.send(self._request(name, stream=True, max_tokens=LONG))
        for _ in range(5):
            connection.transport.pause_reading()
            await asyncio.sleep(0.2)
            if connection.closed:
                break
            connection.transport.resume_reading()
            await asyncio.sleep(0.05)
        self._judge(name, "slow reader", await connection.reply(), count=LONG)
        return connection

    async def _leaves(self, connection: Connection, name: str) -> None:
        connection.send(self._request(name, stream=True))
        if self._dice.random() < 0.7:
            await connection.begun()
        self.left[name] = time.monotonic()
        connection.leave(reset=self._dice.random() < 0.5)
        self.outcomes["leaves"] += 1

    async def _no_json(self, connection: Connection, name: str) -> Connection:
        self._refused(name, await connection.ask(self._raw(name, b'{"model":')), 400)
        return connection

    async def _nobody(self, connection: Connection, name: str) -> Connection:
        self._refused(name, await connection.ask(self._request(name, model="nobody")), 404)
        return connection

    # -- truth ------------------------------------------------------------------------------------------------------

    def _refused(self, name: str, reply: Reply, status: int) -> None:
        self.outcomes[f"refused {reply.status}"] += 1
        if reply.status != status or not _is_error(json.loads(reply.body)):
            self._wrong(name, "refused", f"{reply.status} {bytes(reply.body[:300])!r}")

    def _judge(self, name: str, kind: str, reply: Reply, count: int | None = None) -> None:
        """Compare an answer with what only a true one says."""
        streams = reply.headers.get(b"content-type", b"").startswith(b"text/event-stream")
        if reply.status in ERRORS:
            said = json.loads(reply.body)
            code = said["error"]["code"] if _is_error(said) else "of another shape"
            self.outcomes[f"{kind}: {reply.status} {code}"] += 1
            if not _is_error(said):
                self._wrong(name, kind, f"an error of another shape: {bytes(reply.body[:300])!r}")
            return
        if reply.status != 200 or reply.headers.get(b"x-request-id") != name.encode():
            self._wrong(name, kind, f"{reply.status} {reply.headers} {bytes(reply.body[:300])!r}")
            return
        tier = reply.headers[b"x-modeltiers-tier"].decode()
        said, whole = _streamed(bytes(reply.body)) if streams else _said(bytes(reply.body))
        place = len(said.split())
        total = count or (EVENTS if streams else 3)
        expected = words(tier, name, total)
        if said != "".join(expected[:place]) or (whole and place != total):
            self._wrong(name, kind, f"by {tier}: {said[:300]!r} whole: {whole}, {place} of {total}")
        self.outcomes[f"{kind}: {'whole' if whole else 'broken, and said so'}"] += 1


def _is_error(said: Any) -> bool:
    return set(said) == {"error"} and set(said["error"]) == {"message", "type", "param", "code"}


def _said(body: bytes) -> tuple[str, bool]:
    choice = json.loads(body)["choices"][0]
    if choice.get("logprobs") is not None:
        raise ValueError("logprobs that nobody asked for")
    return str(choice["message"]["content"]), True


def _streamed(body: bytes) -> tuple[str, bool]:
    """Return the text of a stream and whether it says that it is whole; raises ValueError when it ends otherwise."""
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n")]
    if events.pop() != b"":
        raise ValueError(f"half an event: {body[-300:]!r}")
    text, last = "", events.pop()
    for event in events:
        said = json.loads(event)
        if "error" in said:
            raise ValueError(f"an error in the middle: {body[-300:]!r}")
        for choice in said["choices"]:
            text += choice["delta"].get("content") or ""
            if choice.get("logprobs") is not None:
                raise ValueError("logprobs that nobody asked for")
        if not said["choices"]:
            raise ValueError("usage that nobody asked for")
    if last != b"[DONE]" and not _is_error(json.loads(last)):
        raise ValueError(f"ended by neither [DONE] nor an error: {last[:300]!r}")
    return text, last == b"[DONE]"
