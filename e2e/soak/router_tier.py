"""A tier for the soak, fast and faithless: answers name the tier and the request, and now and then it misbehaves.

It reads only what the router writes, so it reads little: a head, a length, a body. What it does wrong is drawn for each
request, from a seed; how often is fixed here.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from random import Random
from typing import Any, Final, cast

_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
_ID: Final = re.compile(rb"\r\nx-request-id: ([!-~]+)\r\n")
HEALTHY: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
EVENTS: Final = 12
"""Words in a streamed answer."""
LONG: Final = 2_000
"""Words in one that a slow reader takes."""
FAULTS: Final = {"good": 940, "500": 10, "503": 10, "dies": 15, "breaks": 15, "says it failed": 5, "hangs": 5}


def words(tier: str, name: str, count: int) -> list[str]:
    """Return an answer: who gave it, to which request, and which word of how many each is."""
    return [f"{tier}:{name}:{place}/{count} " for place in range(count)]


class Tier:
    """One tier, on a port that stays its own while it dies and comes back."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.dice = Random(f"{name} {seed}")  # noqa: S311 - repeatable, not secret
        self.port = 0
        self.calls: set[Call] = set()
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.cancelled: dict[str, float] = {}
        """When the router left an answer that was still being given, by request."""
        self.calm = False
        """Misbehaves no more."""
        self._server: asyncio.Server | None = None

    async def rise(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Call(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Refuse connections and reset those that are open."""
        if self._server is not None:
            self._server.close()
        for call in list(self.calls):
            call.cut()

    def draw(self) -> str:
        """Return how it treats a request."""
        if self.calm:
            return "good"
        return self.dice.choices(list(FAULTS), list(FAULTS.values()))[0]


class Call(asyncio.Protocol):
    """One connection of the router's."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._name = ""
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._transport = cast(asyncio.Transport, transport)
        self._tier.calls.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Stop answering, and note when that was."""
        self._tier.calls.discard(self)
        self._room.set()
        if self._task is not None and not self._task.done():
            self._tier.cancelled[self._name] = time.monotonic()
            self._task.cancel()

    def pause_writing(self) -> None:
        """Wait for the router to take what was written."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._room.set()

    def cut(self) -> None:
        """Reset."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is whole."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head, found = self._buffer[:end], _LENGTH.search(self._buffer, 0, end)
        length = int(found[1]) if found else 0
        if len(self._buffer) < end + length:
            return
        body, self._buffer = self._buffer[end : end + length], self._buffer[end + length :]
        if head.startswith(b"GET "):
            self._transport.write(HEALTHY)
        elif self._task is not None and not self._task.done():
            self._tier.wrong.append(f"{self._tier.name} was asked again before it had answered: {head!r}")
        else:
            self._answer(head, json.loads(body))

    def _answer(self, head: bytes, body: dict[str, Any]) -> None:
        found = _ID.search(head)
        self._name = found[1].decode() if found else ""
        if body["messages"][-1]["content"] != f"request {self._name}":
            self._tier.wrong.append(f"{self._tier.name} got the body of another request: {head!r} {body}")
        fate = self._tier.draw()
        self._tier.did[fate] += 1
        sure = self._tier.dice.random() < 0.7
        work = self._stream(body, fate, sure=sure) if body.get("stream") else self._whole(body, fate, sure=sure)
        self._task = asyncio.get_running_loop().create_task(work)

    async def _whole(self, body: dict[str, Any], fate: str, *, sure: bool) -> None:
        said = words(self._tier.name, self._name, 3)
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(said)}, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(word, sure=sure) for word in said]}
        answer = {"id": self._name, "object": "chat.completion", "choices": [choice], "usage": _usage(3)}
        if fate in ("500", "503", "says it failed"):
            answer = {"error": {"message": "on purpose", "type": "InternalServerError", "param": None, "code": 500}}
        status = fate if fate.isdigit() else "200"
        content = json.dumps(answer).encode()
        reply = b"HTTP/1.1 %b X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            status.encode(),
            len(content),
            content,
        )
        if fate == "hangs":
            await asyncio.sleep(30)
        elif fate == "dies":
            self.cut()
        elif fate == "breaks":
            self._transport.write(reply[:-20])
            await asyncio.sleep(0.01)
            self.cut()
        else:
            self._transport.write(reply)

    async def _stream(self, body: dict[str, Any], fate: str, *, sure: bool) -> None:
        if fate.isdigit():
            await self._whole(body, fate, sure=sure)
            return
        if fate == "dies":
            self.cut()
            return
        long = body.get("max_tokens") == LONG
        said = words(self._tier.name, self._name, LONG if long else EVENTS)
        stop = self._tier.dice.randrange(len(said)) if fate in ("breaks", "says it failed", "hangs") else -1
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._transport.write(head)
        for place, word in enumerate(said):
            if place == stop:
                await self._spoil(fate)
                return
            last = place == len(said) - 1
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": "stop" if last else None}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [_logprob(word, sure=sure)]}
            self._event({"id": self._name, "object": "chat.completion.chunk", "choices": [choice]})
            await self._room.wait()
            await asyncio.sleep(0 if long else 0.002)
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({"id": self._name, "choices": [], "usage": _usage(len(said))})
        self._transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async def _spoil(self, fate: str) -> None:
        if fate == "hangs":
            await asyncio.sleep(30)
        elif fate == "says it failed":
            self._event({"error": {"message": "on purpose", "code": 500}})
            self._transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            self.cut()

    def _event(self, said: dict[str, Any]) -> None:
        event = b"data: %b\n\n" % json.dumps(said).encode()
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))


def _logprob(word: str, *, sure: bool) -> dict[str, Any]:
    value = -0.01 if sure else -4.0
    return {"token": word, "logprob": value, "bytes": None, "top_logprobs": [{"token": "x", "logprob": value - 1}]}


def _usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}
