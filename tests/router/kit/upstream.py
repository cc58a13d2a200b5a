"""A tier on a real socket that answers as vLLM does or misbehaves as a test says, and keeps what it was asked, raw.

How it behaves is set by the test, never by what a request holds: a script for all requests, or one for the next. It
runs in a thread of its own, so that a test may block. It reads HTTP leniently, by its own few lines: what it takes down
is what came over the wire. Health questions are answered aside and are not among the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tests.router.kit import vllm

HEALTH: Final = (b"/health", b"/ping")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\r\n]*)?\r\n")


@dataclass
class Socket:
    """One connection that was opened to the tier; times are monotonic seconds."""

    opened: float
    closed: float | None = None
    requests: int = 0
    junk: bytes = b""
    """What came and was no request."""


@dataclass
class Asked:
    """One request as it came."""

    head: bytes
    """The request line and the headers, with the blank line."""
    body: bytes
    """The body without its transfer encoding."""
    at: float
    connection: Socket
    cancelled: float | None = None
    """When the other side closed while it was being answered."""
    answered: float | None = None
    """When its script ended."""

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        return self.head.split(b"\r\n", 1)[0].split(b" ")[1].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Name in lower case and value of each line."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        pairs = [line.partition(":") for line in lines]
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        # Some tests send numbers that no decoder takes.
        return json.loads(self.body, parse_int=lambda digits: int(digits) if len(digits) < 4000 else digits)


class Call:
    """What a script has in hand: the request, and the raw connection to answer on."""

    def __init__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked, self._writer = asked, writer
        self.over = False
        """Whether the connection ends here."""

    async def send(self, data: bytes, *, piece: int = 0, pause: float = 0.0) -> None:
        """Send these bytes, at once or in pieces of so many bytes with a pause after each."""
        if not piece:
            self._writer.write(data)
            await self._writer.drain()
            return
        for at in range(0, len(data), piece):
            self._writer.write(data[at : at + piece])
            await self._writer.drain()
            await asyncio.sleep(pause)

    async def sleep(self, seconds: float) -> None:
        """Say nothing for so long."""
        await asyncio.sleep(seconds)

    def fin(self) -> None:
        """Close in an orderly way."""
        self.over = True
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset."""
        self.over = True
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


@dataclass
class Seen:
    """What a tier took down."""

    requests: list[Asked] = field(default_factory=list)
    probes: int = 0
    sockets: list[Socket] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What went wrong in a script: the test is at fault, not the router."""


class Upstream:
    """One tier. `script` answers every request unless `next` has one for it."""

    def __init__(self, script: Script | None = None, *, host: str = "127.0.0.1") -> None:
        self.host, self.script = host, script or answer("hello there friend")
        self.seen = Seen()
        self.healthy = True
        self.silent = False
        """Accepts and neither reads nor answers, health included."""
        self.keep_alive = 5.0
        """Closes a connection that was idle for so long, as vLLM does."""
        self.port = 0
        self._next: deque[Script] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    # -- what a test does -----------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Asked]:
        """What it was asked, without health."""
        return self.seen.requests

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def next(self, *scripts: Script) -> None:
        """Answer the next requests by these, one each."""
        self._next.extend(scripts)

    def wait(self, holds: Callable[[], object], seconds: float = 5.0) -> None:
        """Wait until something holds; fails when it never does."""
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"never came to hold within {seconds} s; asked: {len(self.requests)}"
            time.sleep(0.005)

    def cancelled(self, place: int = 0, seconds: float = 5.0) -> float:
        """Wait until a request was given up by the other side; returns when."""
        self.wait(lambda: len(self.requests) > place and self.requests[place].cancelled, seconds)
        found = self.requests[place].cancelled
        assert found is not None
        return found

    def drop(self) -> None:
        """Reset every connection."""
        self._do(self._drop())

    def refuse(self) -> None:
        """Stop listening: connections are refused until `listen`. Those that are open are reset."""
        self._do(self._close())

    def listen(self) -> None:
        """Listen again, on the same port."""
        self._do(self._open())

    # -- its thread -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        if kind is None:
            assert not self.seen.faults, self.seen.faults

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, self.host, self.port, limit=2**26, backlog=512, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._drop()

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self) -> None:
        await self._close()
        here = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not here]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record = Socket(time.monotonic())
        self.seen.sockets.append(record)
        self._writers.add(writer)
        try:
            if self.silent:
                await asyncio.sleep(3600)
            await self._serve(record, reader, writer)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass
        except asyncio.IncompleteReadError as error:
            record.junk += error.partial
        except Exception as error:
            self.seen.faults.append(repr(error))
            raise
        finally:
            record.closed = time.monotonic()
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, record: Socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self.keep_alive if record.requests else None):
                head = await reader.readuntil(b"\r\n\r\n")
            asked = Asked(head, await _body(head, reader), time.monotonic(), record)
            record.requests += 1
            if asked.target.encode() in HEALTH:
                self.seen.probes += 1
                status = "200 OK" if self.healthy else "503 Service Unavailable"
                writer.write(response(status, b""))
                await writer.drain()
            else:
                self.requests.append(asked)
                if not await self._answer(asked, reader, writer):
                    return

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Run the script; ends it when the other side leaves. Returns whether the connection goes on."""
        call = Call(asked, writer)
        script = self._next.popleft() if self._next else self.script
        running = asyncio.ensure_future(script(call))
        gone = asyncio.ensure_future(_gone(reader))
        try:
            await asyncio.wait([running, gone], return_when=asyncio.FIRST_COMPLETED)
            if not running.done() or (isinstance(running.exception(), ConnectionError)):
                asked.cancelled = time.monotonic()
                return False
            running.result()
            asked.answered = time.monotonic()
            return not call.over and not gone.done()
        finally:
            for task in (running, gone):
                task.cancel()
            await asyncio.wait([running, gone])


async def _gone(reader: asyncio.StreamReader) -> None:
    """Return when the other side has closed, without taking a byte of what it may have sent ahead."""
    # A reader has no event for its end, and at_eof() is false while bytes are left.
    while not reader._eof and reader.exception() is None:  # type: ignore[attr-defined]  # noqa: ASYNC110  polled for a moment only
        await asyncio.sleep(0.005)


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lower = head.lower()
    if found := re.search(rb"\r\ncontent-length:[ \t]*(\d+)", lower):
        return await reader.readexactly(int(found[1]))
    if b"\r\ntransfer-encoding:" not in lower:
        return b""
    parts = list[bytes]()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = _CHUNK.fullmatch(line)
        length = int(size[1], 16) if size else 0
        if not length:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return b"".join(parts)
        parts.append((await reader.readexactly(length + 2))[:-2])


class Refusing:
    """A port where nobody listens: a connection is refused at once."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Swallowing:
    """A port that takes no connection and refuses none: its queue is full, and what comes gets no answer."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(0)
        self.port = int(self._socket.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._fill = [socket.socket() for _ in range(4)]

    def __enter__(self) -> Self:
        for one in self._fill:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", self.port))
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self._fill, self._socket):
            one.close()


# -- framing ----------------------------------------------------------------------------------------------------------


def response(status: str, body: bytes, *lines: str, kind: str = "application/json") -> bytes:
    """Return a whole reply with a length; `lines` are further headers."""
    head = [f"HTTP/1.1 {status}", "date: Wed, 25 Nov 2026 11:00:00 GMT", "server: uvicorn"]
    head += [f"content-length: {len(body)}", f"content-type: {kind}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def stream_head(*lines: str, kind: str = "text/event-stream; charset=utf-8") -> bytes:
    """Return the head of a chunked stream."""
    head = ["HTTP/1.1 200 OK", "date: Wed, 25 Nov 2026 11:00:00 GMT", "server: uvicorn", f"content-type: {kind}"]
    return "\r\n".join([*head, *lines, "transfer-encoding: chunked", "", ""]).encode("latin-1")


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    """Return one chunk."""
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


LAST: Final = b"0\r\n\r\n"


def chunks(parts: Iterable[bytes], *, last: bool = True) -> bytes:
    """Return a chunked body, one chunk a part."""
    return b"".join(map(chunk, parts)) + (LAST if last else b"")


# -- scripts ----------------------------------------------------------------------------------------------------------


def answer(
    text: str,
    *,
    logprobs: float | None = -0.25,
    usage: bool = True,
    first: float = 0.0,
    between: float = 0.0,
    piece: int = 0,
) -> Script:
    """Answer every endpoint properly, streamed or not, as the request asks.

    `logprobs` None returns none even when asked; `usage` False leaves it out; `first` and `between` are seconds before
    the first byte and between two events; `piece` cuts all that is sent into pieces of so many bytes.
    """

    async def run(call: Call) -> None:
        await call.sleep(first)
        asked = call.asked
        if asked.target == "/v1/models":
            await call.send(response("200 OK", vllm.models(vllm.MODEL)), piece=piece)
            return
        body = asked.json
        if not body.get("stream"):
            await call.send(response("200 OK", _whole(asked.target, text, body, logprobs, usage)), piece=piece)
            return
        await call.send(stream_head(), piece=piece)
        for one in _events(asked.target, text, body, logprobs, usage):
            await call.send(chunk(one), piece=piece)
            await call.sleep(between)
        await call.send(LAST)

    return run


def _top(body: dict[str, Any], logprobs: float | None) -> dict[str, Any]:
    """Return the logprobs that the request asks for, as arguments of `vllm`."""
    wanted = body.get("logprobs") is True
    return {"logprobs": logprobs if wanted else None, "top": int(body.get("top_logprobs") or 0)}


def _whole(target: str, text: str, body: dict[str, Any], logprobs: float | None, usage: bool) -> bytes:
    if target == "/v1/embeddings":
        given = body["input"]
        return vllm.embeddings(1 if isinstance(given, str) else len(given))
    changes: dict[str, Any] = {} if usage else {"usage": ...}
    if target == "/v1/completions":
        return vllm.completion(text, **changes)
    return vllm.chat(text, n=int(body.get("n") or 1), **_top(body, logprobs), **changes)


def _events(target: str, text: str, body: dict[str, Any], logprobs: float | None, usage: bool) -> list[bytes]:
    options = body.get("stream_options") or {}
    wanted = usage and bool(options.get("include_usage"))
    if target == "/v1/completions":
        return vllm.completion_events(text, include_usage=wanted)
    return vllm.chat_events(text, include_usage=wanted, **_top(body, logprobs))


def says(data: bytes, *, then: str = "keep", piece: int = 0, pause: float = 0.0) -> Script:
    """Send these bytes whatever is asked; `then` keep, fin, reset, or hang without a further word."""

    async def run(call: Call) -> None:
        await call.send(data, piece=piece, pause=pause)
        if then == "hang":
            await call.sleep(3600)
        elif then == "fin":
            call.fin()
        elif then == "reset":
            await call.sleep(0.02)  # what was sent must arrive first: a reset destroys it
            call.reset()

    return run


def fails(status: int = 500, *, retry_after: str | None = None, message: str = "broken on purpose") -> Script:
    """Answer with an error of vLLM's."""
    lines = [f"retry-after: {retry_after}"] if retry_after is not None else []
    return says(response(f"{status} Failed", vllm.error(status, message, "InternalServerError"), *lines))


def streams(
    parts: Iterable[bytes], *, then: str = "keep", last: bool = True, piece: int = 0, between: float = 0.0
) -> Script:
    """Send a chunked stream of these events whatever is asked."""
    events = list(parts)

    async def run(call: Call) -> None:
        await call.send(stream_head(), piece=piece)
        for one in events:
            await call.send(chunk(one), piece=piece)
            await call.sleep(between)
        await says(LAST if last else b"", then=then)(call)

    return run


def forever(between: float = 0.02) -> Script:
    """Stream words until the other side leaves."""

    async def run(call: Call) -> None:
        await call.send(stream_head() + chunk(vllm.chat_chunk({"role": "assistant", "content": ""})))
        while True:
            await call.send(chunk(vllm.chat_chunk({"content": " word"})))
            await call.sleep(between)

    return run


async def hang(call: Call) -> None:
    """Take the request and say nothing."""
    await call.sleep(3600)


async def reset(call: Call) -> None:
    """Take the request and reset."""
    call.reset()


async def leave(call: Call) -> None:
    """Take the request and close."""
    call.fin()


def stale(text: str = "hello", after: float = 0.03) -> Script:
    """Answer, say keep-alive, and reset shortly after: the next request meets a connection that is just closing."""

    async def run(call: Call) -> None:
        await call.send(response("200 OK", vllm.chat(text)))
        asyncio.get_running_loop().call_later(after, call.reset)

    return run
