"""One connection to an address of a tier: sends a request, reads its reply strictly, and hands what comes to a sink.

It speaks HTTP/1.1 to an engine or to another router, and is used for one request after another. Which address is asked,
and what the reply means, is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NewType, Protocol, cast

import httptools

if TYPE_CHECKING:
    from modeltiers.router.upstream import Address

HEADERS: Final = 100
HEAD_BYTES: Final = 65_536
"""The most that a reply's head may have."""
SETTLE: Final = 1.0
"""How long, in seconds, what is behind the last event of a stream may take: the end of its framing."""
Failure = NewType("Failure", str)
"""Why an attempt brought no answer; the names are those of `fallback.on` in the table."""
CONNECT: Final = Failure("Connect")
TIMEOUT: Final = Failure("Timeout")
BROKEN: Final = Failure("Broken")


class Head:
    """Status and headers of a reply; header names in lower case."""

    __slots__ = ("form", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        self.form: str | None = None
        """What whoever reads the reply has made of the headers: one head may stand for many replies."""

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Sink(Protocol):
    """Who gets a reply."""

    def upstream_head(self, head: Head) -> None:
        """Take the head, once."""

    def upstream_data(self, data: bytes) -> None:
        """Take some of the body, without its transfer encoding."""

    def upstream_end(self) -> None:
        """Learn that the reply is whole."""

    def upstream_failed(self, failure: Failure) -> None:
        """Learn that no more will come."""


class Nobody:
    """A sink for what nobody waits for any more."""

    def upstream_head(self, head: Head) -> None:
        """Take nothing."""

    def upstream_data(self, data: bytes) -> None:
        """Take nothing."""

    def upstream_end(self) -> None:
        """Take nothing."""

    def upstream_failed(self, failure: Failure) -> None:
        """Take nothing."""


NOBODY: Final = Nobody()


class Connection(asyncio.Protocol):
    """One connection to an address, used for one request after another."""

    __slots__ = (
        "_bytes",
        "_chunked",
        "_complete",
        "_dirty",
        "_head",
        "_head_done",
        "_headers",
        "_keeps",
        "_length",
        "_parser",
        "_status",
        "_transport",
        "address",
        "deadline",
        "idle_since",
        "once",
        "sink",
        "total_deadline",
        "used",
    )

    def __init__(self, address: Address) -> None:
        self.address = address
        self.sink: Sink | None = None
        self.deadline = self.total_deadline = self.idle_since = 0.0
        self.used = 0
        self.once = False
        """Whether it serves one request only, and is no idle connection's after it."""
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reset()

    def _reset(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_done = False
        self._bytes = 0
        self._length = self._chunked = self._complete = self._dirty = self._keeps = False

    # -- what the exchange does -----------------------------------------------------------------------------------

    def send(self, request: Iterable[bytes], sink: Sink) -> None:
        """Send a request; what comes back goes to the sink."""
        transport = self._transport
        assert transport is not None
        now = self.address.loop.time()
        limits = self.address.tier.timeouts
        self.sink = sink
        self.used += 1
        self.deadline = now + limits.first_byte_ms / 1000
        self.total_deadline = now + limits.total_ms / 1000
        self._reset()
        transport.writelines(request)

    def abort(self) -> None:
        """End the attempt and the connection, so that the engine stops working for it."""
        self.sink = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now; the idle time does not run meanwhile."""
        self.deadline = self.total_deadline
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self.deadline = self.address.loop.time() + self.address.tier.timeouts.idle_ms / 1000
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def closing(self) -> bool:
        """Whether it can take no further request."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """End an idle connection."""
        if self._transport is not None:
            self._transport.close()

    def settle(self) -> None:
        """Read only what is left of a reply whose end was seen, for a moment: then the connection serves on."""
        self.resume()
        self.sink = NOBODY
        self.deadline = min(self.deadline, self.address.loop.time() + SETTLE)

    def overdue(self) -> None:
        """End the attempt because its time is up."""
        if self.sink is NOBODY:
            self.sink = None
            self.address.release(self, keep=False)
        else:
            self._fail(TIMEOUT)

    # -- what the transport says ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; its callbacks below do the work."""
        if self.sink is None:
            self.close()  # nobody asked: an answer without a question would be taken for the next one
            return
        fresh = not (self._bytes or self._head_done)
        if fresh and (known := self.address.familiar) is not None and (body := known.body(data)) is not None:
            self._take(known.head, body)
            return
        self._bytes += len(data)  # set back to nothing by whatever of it is body
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._dirty = True
            if not self._complete:
                self._fail(BROKEN)
                return
        if self._complete:
            if fresh and self._status == 200 and not self._dirty and self._keeps and self._length:
                self.address.learn(data, self._head)
            self._finish(keep=not self._dirty and self._keeps and (self._length or self._chunked))
        elif self._bytes > HEAD_BYTES:
            self._fail(BROKEN)  # a head, a trailer or a chunk's extension without end
        elif self._head_done and self.sink is not NOBODY:
            self.deadline = self.address.loop.time() + self.address.tier.timeouts.idle_ms / 1000

    def _take(self, head: Head, body: bytes) -> None:
        """Hand over a whole reply that needs no parser."""
        self._status, self._head_done = head.status, True
        if (sink := self.sink) is not None:
            sink.upstream_head(head)
        if self.sink is not None:
            self.sink.upstream_data(body)
        self._finish(keep=True)

    def eof_received(self) -> None:
        """Take the end of the connection for the end of a reply that says no length."""
        if self.sink is not None and self._head_done and not (self._length or self._chunked):
            self._finish(keep=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Forget the connection; a reply that was coming is broken."""
        self._transport = None
        self.address.lost(self)
        if self.sink is not None:
            self._fail(BROKEN)
        self._parser = None  # it holds this object's methods: the two would wait for the garbage collector

    # -- what the parser says -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice what comes behind a whole reply: nobody asked for it."""
        self._dirty = self._dirty or self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers too come here and are dropped."""
        if self._head_done:
            return
        if len(self._headers) >= HEADERS:
            raise ValueError("too many headers")  # the parser makes a parser error of it
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand over the head, unless it only announces the real one, or nobody asked for it."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
            return
        size, codings, length = 0, 0, False
        for name, value in self._headers:
            size += len(name) + len(value)
            if name == b"content-length":
                length = True
            elif name == b"transfer-encoding":
                codings += 1 if value.lower() == b"chunked" else 2
        if status > 599 or codings > 1:
            raise ValueError("a status or a transfer encoding that is none")
        if size > HEAD_BYTES:
            raise ValueError("head too long")
        self._chunked, self._length = codings == 1, length
        self._bytes = 0
        self._head_done = True
        self._status = status
        self._head = Head(status, self._headers)
        if self.sink is not None:
            self.sink.upstream_head(self._head)

    def on_body(self, data: bytes) -> None:
        """Hand over some of the body."""
        self._bytes = 0
        if self.sink is not None and not self._complete:
            self.sink.upstream_data(data)

    def on_message_complete(self) -> None:
        """Notice the end; it is handed over when all that came with it has been looked at."""
        self._complete = self._complete or self._head_done
        self._keeps = self._parser.should_keep_alive()  # behind the end of the reply the parser has forgotten

    # -- ends -------------------------------------------------------------------------------------------------------

    def _finish(self, *, keep: bool) -> None:
        sink, self.sink = self.sink, None
        if sink is None:
            return
        self.address.release(self, keep=keep and not self.once)
        self.address.succeeded() if self._status < 500 else self.address.failed()
        sink.upstream_end()

    def _fail(self, failure: Failure) -> None:
        sink, self.sink = self.sink, None
        if self._transport is not None:
            self._transport.abort()
        if sink is None:
            return
        self.address.release(self, keep=False)
        # A connection that ended while it was idle, before the request was read, says nothing of the address.
        if not (self.used > 1 and failure == BROKEN and not self._bytes and not self._head_done):
            self.address.failed()
        sink.upstream_failed(failure)
