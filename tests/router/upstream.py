"""A tier on a real socket that answers as vLLM does, or misbehaves as a test says; it keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


class Asked:
    """One request as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head, self.body = head, body
        self.target = head.split(b" ", 2)[1].decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[["Upstream", Asked, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """What a test sees of the tier."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.left = asyncio.Event()
        """Set when the other side closed while it was being answered."""
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
                )
                asked = Asked(head, await reader.readexactly(int(length.partition(b":")[2])))
                if asked.target == "/health":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                self.asked.append(asked)
                answer = asyncio.ensure_future(self.behaviour(self, asked, writer))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    self.left.set()
                    answer.cancel()
                    return
                answer.result()
                if writer.is_closing() or gone.done():
                    return
                gone.cancel()
                await asyncio.wait([gone])
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def upstream(behaviour: Behaviour) -> AsyncIterator[Upstream]:
    """Run a tier on a free port."""
    made = Upstream(behaviour)
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0, limit=2**24)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def reply(status: str, body: bytes, *headers: str) -> bytes:
    """A whole reply."""
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json.dumps({"id": "x", "choices": [choice], "usage": USAGE, "unknown": 1.10}).encode()


def says(text: str) -> Behaviour:
    """A tier that answers properly, stream or not."""

    async def behave(_: Upstream, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not asked.json.get("stream"):
            writer.write(reply("200 OK", completion(text)))
        else:
            writer.write(STREAM)
            for event in events(text, usage=bool(asked.json.get("stream_options"))):
                writer.write(chunk(event))
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return behave


def answers(data: bytes, *, close: bool = False) -> Behaviour:
    """A tier that sends these bytes whatever it is asked."""

    async def behave(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return behave


async def never(_: Upstream, __: Asked, ___: asyncio.StreamWriter) -> None:
    """A tier that takes the request and says nothing."""
    await asyncio.sleep(30)


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(text: str, *, usage: bool) -> list[bytes]:
    """The events of an answer as vLLM sends them."""
    deltas: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    deltas += [{"choices": [{"delta": {"content": word}, "finish_reason": None}]} for word in text.split()]
    deltas += [{"choices": [], "usage": USAGE}] if usage else []
    return [b"data: %b\n\n" % json.dumps(one).encode() for one in deltas] + [b"data: [DONE]\n\n"]
