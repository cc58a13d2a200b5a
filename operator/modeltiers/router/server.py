"""The client's side of a connection: reads requests strictly and within bounds, and writes replies.

A connection handles one request at a time; what a client sends ahead waits. Slow heads, slow bodies and readers that
take nothing are ended by a sweep. Knows nothing of models, tiers or JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from array import array
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import httptools

from modeltiers.router.replies import Refusal, head
from modeltiers.router.requests import ONCE, Bounds, Known, Request, judge, learn

PIPELINE: Final = 16
"""How many requests a client may send ahead in one read."""
HEADERS: Final = 100
LESSONS: Final = 4
"""How often the head of a connection's requests is learned anew, before it is taken that each is different."""
LINGER: Final = 1.0
"""How long a connection that is to close waits for the client to close first, in seconds."""
NEVER: Final = float("inf")


class Exchange(Protocol):
    """What answers a request; the connection tells it of the client."""

    def gone(self) -> None:
        """Learn that the client has left."""

    def pause(self) -> None:
        """Learn that the client reads slower than it is written to."""

    def resume(self) -> None:
        """Learn that it has caught up."""


Handler = Callable[["Client", Request], Exchange | None]


class Server:
    """What all connections of a port share."""

    def __init__(self, bounds: Bounds, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self.bounds, self.handler, self.loop = bounds, handler, loop
        self.clients: set[Client] = set()
        self.peers: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.closing = False
        """Whether every reply ends its connection, so that clients go elsewhere."""

    def protocol(self) -> Client:
        """Return the protocol for a new connection."""
        return Client(self)

    def sweep(self, now: float) -> None:
        """End connections whose time is up."""
        for client in [one for one in self.clients if now > one.deadline]:
            client.overdue()


class Client(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_ahead",
        "_answering",
        "_begun",
        "_body",
        "_chunked",
        "_close",
        "_head_seen",
        "_in_body",
        "_known",
        "_learned",
        "_lingering",
        "_more",
        "_parser",
        "_queue",
        "_quiet",
        "_request",
        "_request_in_hand",
        "_server",
        "_size",
        "_taken",
        "_then",
        "_transport",
        "_unsent",
        "_waiting",
        "deadline",
        "exchange",
        "peer",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Request] = deque()
        self._waiting: list[bytes] = []
        self._request = self._request_in_hand = Request("")
        self._body = b""
        self._more = bytearray()
        self._known: Known | None = None
        self._learned = 0
        self._size = self._head_seen = self._ahead = self._unsent = self._quiet = self._taken = 0
        self._answering = self._begun = self._in_body = self._close = self._chunked = self._lingering = False
        self._then: Refusal | None = None
        self.exchange: Exchange | None = None
        self.deadline = 0.0
        self.peer = ""

    # -- what the exchange does -----------------------------------------------------------------------------------

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole reply; `lines` are headers as they are sent, each with its line break."""
        transport = self._transport
        if transport is None or not self._answering:
            return
        first = head(status, b"%bcontent-length: %d\r\n" % (lines, len(body)), close=self._closes())
        # One write below a page or so: two would be two packets.
        if self._request_in_hand.method == b"HEAD":
            transport.write(first)
        elif len(body) < 16_384:
            transport.write(first + body)
        else:
            transport.writelines([first, body])
        self._finish()

    def begin(self, status: int, lines: bytes, data: bytes) -> None:
        """Send the head of a stream and the first of its body."""
        if self._transport is None or not self._answering:
            return
        close = self._closes()
        if self._chunked:
            first = head(status, lines + b"transfer-encoding: chunked\r\n", close=close)
            self._transport.write(b"%b%x\r\n%b\r\n" % (first, len(data), data) if data else first)
        else:
            self._transport.write(head(status, lines, close=True) + data)

    def send(self, data: bytes) -> None:
        """Send more of a stream."""
        if self._transport is not None and data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """End a stream."""
        if self._transport is not None and self._answering:
            if self._chunked:
                self._transport.write(b"0\r\n\r\n")
            self._finish()

    def abort(self) -> None:
        """Cut the connection: what was sent is not whole, and the client must not take it for whole."""
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    def _closes(self) -> bool:
        request = self._request_in_hand
        self._chunked = request.version == "1.1"
        if not (self._chunked and request.keep_alive) or self._server.closing:
            self._close = True
        return self._close

    def _finish(self) -> None:
        self.exchange = None
        self._answering = False
        transport = self._transport
        if transport is None:
            return
        if self._close or self._server.closing:
            self._linger()
            return
        self._rest()
        if self._queue or self._waiting or self._then is not None:
            self._server.loop.call_soon(self._go_on)

    def _rest(self) -> None:
        """Set how long the connection may now do nothing; while a reply is still going out, only that counts."""
        if self._unsent:
            return
        bounds = self._server.bounds
        if self._answering:
            seconds = NEVER
        elif self._lingering:
            seconds = LINGER
        elif self._begun:
            seconds = bounds.body_seconds if self._in_body else bounds.head_seconds
        else:
            seconds = bounds.idle_seconds
        self.deadline = self._server.loop.time() + seconds

    def _go_on(self) -> None:
        """Take up what was sent ahead."""
        self._next()
        if self._answering or self._transport is None or self._transport.is_closing():
            return
        if self._waiting:
            data, self._waiting, self._ahead = b"".join(self._waiting), [], 0
            self._feed(data)

    def _linger(self) -> None:
        """Say that nothing more comes and wait a moment: closing at once could destroy the reply on its way."""
        self._lingering = True
        self._waiting.clear()
        self._ahead = 0
        self._rest()
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    # -- what the transport says ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; one too many is refused."""
        self._transport = cast(asyncio.Transport, transport)
        server, peer = self._server, transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        server.clients.add(self)
        server.peers[self.peer] += 1
        self.deadline = server.loop.time() + server.bounds.head_seconds
        bounds = server.bounds
        if len(server.clients) > bounds.connections or server.peers[self.peer] > bounds.connections_per_client:
            self._refuse(Refusal(429, "too many connections; close some or reuse them", retry_after=1), "Connections")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Tell the exchange that nobody waits for it any more."""
        self._transport = None
        self._parser = None  # it holds this object's methods: the two would wait for the garbage collector
        self._queue.clear()
        self._waiting.clear()
        server = self._server
        server.clients.discard(self)
        server.peers[self.peer] -= 1
        if server.peers[self.peer] <= 0:
            del server.peers[self.peer]
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.gone()

    def eof_received(self) -> bool:
        """Take a half-closed connection for a client that has left: no engine shall work for nobody."""
        return False

    def pause_writing(self) -> None:
        """Slow the upstream down; a reader that takes nothing for long is ended by the sweep."""
        self.deadline = self._server.loop.time() + self._server.bounds.write_seconds
        self._unsent = _outstanding(self._transport) if self._transport is not None else 0
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """Let the upstream go on."""
        self._unsent = 0
        self._rest()
        if self.exchange is not None:
            self.exchange.resume()

    def data_received(self, data: bytes) -> None:
        """Parse, unless an answer is still being given: then what was sent ahead waits."""
        if self._lingering:
            self._ahead += len(data)
            if self._ahead > self._server.bounds.body_bytes and self._transport is not None:
                self._transport.pause_reading()  # it has had its chance to stop and listen
            return
        if self._answering or self._queue or self._waiting or self._then is not None:
            # Reading goes on: only so is a client that leaves noticed.
            self._waiting.append(data)
            self._ahead += len(data)
            if self._ahead > self._server.bounds.head_bytes + self._server.bounds.body_bytes:
                self._server.refused["Ahead"] += 1
                self.overdue()
            return
        self._feed(data)

    def overdue(self) -> None:
        """End a connection whose time is up; a client that is slow to ask is told so."""
        if self._transport is None or self._still_taken(self._transport):
            return
        if self._lingering or self._answering or self._unsent:
            self._transport.abort()
        elif not (self._in_body or self._head_seen):
            self._transport.close()
        else:
            self._refuse(Refusal(408, "the request did not come in time"), "Slow")

    def _still_taken(self, transport: asyncio.Transport) -> bool:
        """Whether the client has taken some of its reply since it was last looked at; then it has more time."""
        left = _outstanding(transport)
        if not self._unsent or left >= self._unsent:
            return False
        self._unsent = left
        self.deadline = self._server.loop.time() + self._server.bounds.write_seconds
        return True

    # -- parsing --------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        at_start = not (self._in_body or self._head_seen)
        if at_start and self._known is not None and (request := self._known.again(data, self._server.bounds)):
            self._queue.append(request)
            self._next()
            return
        if not self._in_body:
            self._head_seen += len(data)
        self._quiet += len(data)  # set back to nothing by whatever of it is body
        self._taken += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(Refusal(400, "this server speaks HTTP/1.1 and upgrades to nothing"), "Malformed")
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            refusal = cause if isinstance(cause, Refusal) else Refusal(400, "the request is not valid HTTP/1.1")
            self._then = refusal  # behind what was whole before it
            self._next()
            return
        if not self._in_body and self._head_seen > self._server.bounds.head_bytes:
            self._refuse(self._long_head(), "Malformed")
            return
        if self._in_body and self._is_framing_without_end():
            self._refuse(Refusal(400, "chunks with hardly a body in them"), "Malformed")
            return
        if at_start and self._learned < LESSONS and len(self._queue) == 1 and not (self._in_body or self._head_seen):
            self._learned += 1
            self._known = learn(data, self._queue[0])
        self._next()

    def _is_framing_without_end(self) -> bool:
        """Whether too much came that is no body: a trailer, a chunk's extension, or very many small ones."""
        bounds = self._server.bounds
        return self._quiet > bounds.head_bytes or self._taken - self._size > bounds.head_bytes + bounds.body_bytes

    def _long_head(self) -> Refusal:
        return Refusal(
            431, f"the head is longer than {self._server.bounds.head_bytes} bytes; send fewer or shorter headers"
        )

    def _refuse(self, refusal: Refusal, reason: str) -> None:
        """Answer what cannot be served and close: behind it, nobody knows where the next request begins."""
        self._server.refused[reason] += 1
        self._queue.clear()
        self._answering = self._close = True
        self._request_in_hand = Request(self.peer)
        self._request_in_hand.version = "1.1"
        self.reply(refusal.status, refusal.lines(), refusal.body())

    def _next(self) -> None:
        """Begin the oldest whole request, or say what was wrong behind the last one."""
        if self._answering or self._lingering or self._transport is None:
            return
        if not self._queue:
            refusal, self._then = self._then, None
            if refusal is not None:
                self._refuse(refusal, "Malformed")
            return
        request = self._queue.popleft()
        self.deadline = NEVER
        self._answering = True
        self._request_in_hand = request
        try:
            exchange = self._server.handler(self, request)
        except Refusal as refusal:
            self.reply(refusal.status, refusal.lines(), refusal.body())
            return
        finally:
            request.body = b""  # whoever still needs it has it
        if self._answering:
            self.exchange = exchange

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self._queue) >= PIPELINE:
            raise Refusal(400, f"more than {PIPELINE} requests sent ahead of their answers")
        self._request = Request(self.peer)
        self._size = 0
        self._begun = True
        if not self._queue:
            self.deadline = self._server.loop.time() + self._server.bounds.head_seconds

    def on_url(self, url: bytes) -> None:
        """Add to the target; it is compared as it came, never decoded."""
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of those that decide something there is only one."""
        if self._in_body:
            return  # a trailer
        key, headers = name.lower(), self._request.headers
        if key in headers:
            if key in ONCE:
                raise Refusal(400, f"the header {key.decode('latin-1')} is given twice")
            headers[key] += b", " + value
        else:
            headers[key] = value

    def on_headers_complete(self) -> None:
        """Judge the head before any of the body is kept."""
        request, bounds = self._request, self._server.bounds
        headers = request.headers
        request.method, request.version = self._parser.get_method(), self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        size = len(request.target) + sum(len(key) + len(value) + 4 for key, value in headers.items())
        if size > bounds.head_bytes or len(headers) > HEADERS:
            raise self._long_head()
        self._head_seen, self._quiet, self._taken, self._in_body = 0, 0, 0, True
        self.deadline = self._server.loop.time() + bounds.body_seconds
        judge(request)
        length = headers.get(b"content-length")
        if length is not None and int(length) > bounds.body_bytes:
            raise self._long_body()
        if (expects := headers.get(b"expect")) is not None:
            if expects.lower() != b"100-continue":
                raise Refusal(417, "the only expectation understood is 100-continue")
            if self._transport is not None and not self._answering:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Keep some of the body, up to the bound."""
        self._size += len(data)
        if self._size > self._server.bounds.body_bytes:
            raise self._long_body()
        self._quiet = 0
        if self._body:
            self._more += data
        else:
            self._body = data  # most bodies come in one piece

    def _long_body(self) -> Refusal:
        return Refusal(413, f"the body is longer than {self._server.bounds.body_bytes} bytes; send less at once")

    def on_message_complete(self) -> None:
        """Put the request in line."""
        request = self._request
        request.keep_alive = self._parser.should_keep_alive()  # a trailer may have said otherwise
        request.body = self._body + self._more if self._more else self._body
        self._body, self._more = b"", bytearray()
        self._in_body = self._begun = False
        self._queue.append(request)


def _outstanding(transport: asyncio.Transport) -> int:
    """Return how many bytes the client has not taken yet; the kernel holds some, and says so only when asked."""
    held = array("i", [0])
    with contextlib.suppress(OSError, AttributeError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
    return transport.get_write_buffer_size() + held[0]
