"""One tier's addresses: connections that are kept and reused, which address is next, and which is left alone.

A connection speaks HTTP/1.1 to an engine or to another router and hands what comes to a sink. Names are resolved again
and again, since one name stands for many pods that come and go. Knows nothing of policies, of JSON or of clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NewType, Protocol, cast

import httptools

from modeltiers.domain.routing.table import Tier

HEADERS: Final = 100
HEAD_BYTES: Final = 65_536
"""The most that a reply's head may have."""
EWMA: Final = 0.1
"""The weight of the newest outcome in an address's error rate."""
OUTLIER_RATE: Final = 0.5
OUTLIER_SAMPLES: Final = 20
SETTLE: Final = 1.0
"""How long, in seconds, what is behind the last event of a stream may take: the end of its framing."""


Failure = NewType("Failure", str)
"""Why an attempt brought no answer; the names are those of `fallback.on` in the table."""
CONNECT: Final = Failure("Connect")
TIMEOUT: Final = Failure("Timeout")
BROKEN: Final = Failure("Broken")


class Head:
    """Status and headers of a reply; header names in lower case."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers

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
        self._bytes += len(data)  # set back to nothing by whatever of it is body
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._dirty = True
            if not self._complete:
                self._fail(BROKEN)
                return
        if self._complete:
            self._finish(keep=not self._dirty and self._keeps and (self._length or self._chunked))
        elif self._bytes > HEAD_BYTES:
            self._fail(BROKEN)  # a head, a trailer or a chunk's extension without end
        elif self._head_done and self.sink is not NOBODY:
            self.deadline = self.address.loop.time() + self.address.tier.timeouts.idle_ms / 1000

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
        if self.sink is not None:
            self.sink.upstream_head(Head(status, self._headers))

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


class Address:
    """One address of a tier: its idle connections, what is in flight, and whether it is left alone for now."""

    __slots__ = (
        "_idle",
        "cooling_until",
        "error_rate",
        "failures",
        "healthy",
        "host",
        "in_flight",
        "loop",
        "open_until",
        "opened",
        "pool",
        "port",
        "samples",
        "tier",
        "unhealthy",
    )

    def __init__(self, pool: Pool, host: str, port: int) -> None:
        self.pool, self.host, self.port = pool, host, port
        self.tier, self.loop = pool.tier, pool.loop
        self._idle: deque[Connection] = deque()
        self.in_flight = self.failures = self.opened = self.samples = self.unhealthy = 0
        self.open_until = self.cooling_until = self.error_rate = 0.0
        self.healthy = True

    def usable(self, now: float) -> bool:
        """Whether a request may go there: healthy, not cooling, breaker closed or ready for one probe, room left."""
        return self.in_flight < self.tier.concurrency and self.well(now)

    def well(self, now: float) -> bool:
        """Whether nothing but its load could keep a request away."""
        if not self.healthy or now < self.cooling_until:
            return False
        return not self.opened or (now >= self.open_until and not self.in_flight)

    def state(self, now: float) -> str:
        """Return in one word why requests go there or not."""
        if not self.healthy:
            return "Unhealthy"
        if self.opened:
            return "Open" if now < self.open_until else "HalfOpen"
        return "Cooling" if now < self.cooling_until else "Closed"

    def take(self) -> Connection | None:
        """Return an idle connection that the server will not have closed yet, or nothing."""
        oldest = self.loop.time() - self.tier.keep_alive_ms / 1000
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    def release(self, connection: Connection, *, keep: bool) -> None:
        """Take a connection back after its request."""
        self.in_flight -= 1
        self.pool.active.discard(connection)
        if keep and not connection.closing and self in self.pool:
            connection.idle_since = self.loop.time()
            self._idle.append(connection)
        else:
            connection.close()

    def lost(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def tidy(self, now: float) -> None:
        """Close connections that have been idle for as long as they may."""
        oldest = now - self.tier.keep_alive_ms / 1000
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.popleft().close()

    def clear(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def succeeded(self) -> None:
        """Count an answer."""
        self.failures = self.opened = 0
        self.samples += 1
        self.error_rate *= 1 - EWMA

    def failed(self) -> None:
        """Count a failure; enough of them, or more than its neighbours have, open the breaker."""
        self.failures += 1
        self.samples += 1
        self.error_rate += EWMA * (1 - self.error_rate)
        if self.failures >= self.tier.breaker.failures or self.opened or self.pool.is_outlier(self):
            self.opened = min(self.opened + 1, 10)
            # Many routers watch the same address: they shall not all try it again at the same moment.
            jitter = random.uniform(0.9, 1.1)  # noqa: S311  no secret
            self.open_until = self.loop.time() + jitter * self.tier.breaker.open_ms / 1000 * 2 ** (self.opened - 1)

    def cool(self, seconds: float) -> None:
        """Leave it alone for as long as it asked for."""
        self.cooling_until = max(self.cooling_until, self.loop.time() + seconds)


class Pool:
    """The addresses of one tier."""

    def __init__(self, tier: Tier, loop: asyncio.AbstractEventLoop) -> None:
        assert tier.address is not None
        self.tier, self.loop = tier, loop
        host, _, port = tier.address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._addresses: dict[str, Address] = {}
        self.active: set[Connection] = set()
        self.resolve_failures = 0
        if _is_literal(self._host):
            self._addresses[self._host] = Address(self, self._host, self._port)
        self._literal = bool(self._addresses)

    def __contains__(self, address: Address) -> bool:
        return self._addresses.get(address.host) is address

    @property
    def addresses(self) -> list[Address]:
        """What the name stands for now."""
        return list(self._addresses.values())

    @property
    def problem(self) -> str | None:
        """What keeps all requests away, in a word; for /status."""
        return None

    def usable(self, now: float) -> bool:
        """Whether any address takes a request now."""
        for address in self._addresses.values():  # noqa: SIM110  a generator costs as much as the question
            if address.usable(now):
                return True
        return False

    def saturated(self, now: float) -> bool:
        """Whether there are addresses that would take a request, had they not as many as they may."""
        full = [address for address in self._addresses.values() if address.well(now)]
        return bool(full) and all(address.in_flight >= self.tier.concurrency for address in full)

    def others(self, than: Address) -> bool:
        """Whether another address takes a request now."""
        now = self.loop.time()
        return any(address is not than and address.usable(now) for address in self._addresses.values())

    def attempt(self, request: list[bytes], sink: Sink) -> Attempt:
        """Return a request to this tier, not yet sent."""
        return Attempt(self, request, sink)

    def pick(self, avoid: Address | None = None) -> Address | None:
        """Return the usable address with the least in flight; one that just failed only if there is no other."""
        now, best = self.loop.time(), None
        for address in self._addresses.values():
            if address.usable(now) and address is not avoid and (best is None or address.in_flight < best.in_flight):
                best = address
        if best is None and avoid is not None and avoid in self and avoid.usable(now):
            return avoid
        return best

    def is_outlier(self, address: Address) -> bool:
        """Whether an address fails far more often than its neighbours; never so for more than half of them."""
        if address.samples < OUTLIER_SAMPLES or address.error_rate < OUTLIER_RATE:
            return False
        others = [other for other in self._addresses.values() if other is not address]
        if not others or 2 * (1 + sum(bool(other.opened) for other in others)) > len(others) + 1:
            return False
        return sum(other.error_rate for other in others) / len(others) < OUTLIER_RATE / 2

    async def connect(self, address: Address) -> Connection:
        """Open a connection; raises OSError or TimeoutError."""
        async with asyncio.timeout(self.tier.timeouts.connect_ms / 1000):
            _, made = await self.loop.create_connection(lambda: Connection(address), address.host, address.port)
        return made

    async def resolve(self) -> None:
        """Look the name up again: new addresses join, gone ones get nothing more. A failure keeps what was known."""
        if self._literal:
            return
        try:
            found = await self.loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a name that no resolver takes is a UnicodeError
            self.resolve_failures += 1
            return
        hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
        for host in hosts.keys() - self._addresses.keys():
            self._addresses[host] = Address(self, host, self._port)
        for host in self._addresses.keys() - hosts.keys():
            self._addresses.pop(host).clear()

    def sweep(self, now: float) -> None:
        """End attempts whose time is up, and idle connections before the server would."""
        for connection in [one for one in self.active if now > one.deadline or now > one.total_deadline]:
            connection.overdue()
        for address in self._addresses.values():
            address.tidy(now)

    def close(self) -> None:
        """Let nothing new in; what is in flight ends by itself."""
        for address in self._addresses.values():
            address.clear()
        self._addresses = {}


class Attempt:
    """One request to one tier: finds an address and a connection, and sends, at once when one is idle."""

    __slots__ = (
        "_address",
        "_connection",
        "_pool",
        "_request",
        "_sink",
        "_task",
        "reused",
    )

    def __init__(self, pool: Pool, request: list[bytes], sink: Sink) -> None:
        self._pool, self._request, self._sink = pool, request, sink
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._address: Address | None = None
        self.reused = False

    @property
    def address(self) -> Address | None:
        """Where it went."""
        return self._address

    def start(self, avoid: Address | None = None, *, fresh: bool = False) -> bool:
        """Send the request; False when no address takes one now. `fresh` takes no idle connection."""
        address = self._pool.pick(avoid)
        if address is None:
            return False
        self._address = address
        address.in_flight += 1
        connection = None if fresh else address.take()
        if connection is None:
            self._task = self._pool.loop.create_task(self._connect(address))
        else:
            self.reused = True
            self._send(connection)
        return True

    async def _connect(self, address: Address) -> None:
        try:
            connection = await self._pool.connect(address)
        except (OSError, TimeoutError):
            address.in_flight -= 1
            address.failed()
            self._task = None
            self._sink.upstream_failed(CONNECT)
            return
        self._task = None
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self._pool.active.add(connection)
        connection.send(self._request, self._sink)

    def abort(self) -> None:
        """End it now, whatever it does."""
        if self._task is not None:
            self._task.cancel()  # one that has not begun never will: what it counted is uncounted here
            self._task = None
            if self._address is not None:
                self._address.in_flight -= 1
        connection, self._connection = self._connection, None
        if connection is not None and connection.sink is self._sink:  # else it serves another request by now
            connection.address.release(connection, keep=False)
            connection.abort()

    def forget(self) -> None:
        """Let go of whoever waited for the reply, once it has come or was ended."""
        if self._connection is not None and self._connection.sink is self._sink:
            self._connection.settle()
        self._sink, self._request, self._connection = NOBODY, [], None

    def pause(self) -> None:
        """Read no more for now."""
        if self._connection is not None and self._connection.sink is self._sink:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        if self._connection is not None and self._connection.sink is self._sink:
            self._connection.resume()


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


class Collected:
    """A sink that waits for a whole reply, within a bound: for health, and for what is relayed from the engine."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.done: asyncio.Future[tuple[Head, bytes]] = loop.create_future()
        self._most = most
        self._parts: list[bytes] = []
        self._head: Head | None = None
        self._size = 0

    def upstream_head(self, head: Head) -> None:
        """Keep the head."""
        self._head = head

    def upstream_data(self, data: bytes) -> None:
        """Keep some of the body."""
        self._size += len(data)
        if self._size <= self._most:
            self._parts.append(data)

    def upstream_end(self) -> None:
        """Give the reply, or say that it was too long."""
        if self.done.done():
            return
        if self._head is None or self._size > self._most:
            self.done.set_exception(ConnectionError(BROKEN))
        else:
            self.done.set_result((self._head, b"".join(self._parts)))

    def upstream_failed(self, failure: Failure) -> None:
        """Say why there is none."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(failure))


async def fetch(
    address: Address, path: str, seconds: float, most: int = 16 * 2**20, *, body: bytes | None = None
) -> tuple[Head, bytes]:
    """GET from one address, or POST a JSON body, past breaker and queue; raises OSError or TimeoutError."""
    sink = Collected(address.loop, most)
    async with asyncio.timeout(seconds):
        connection = await address.pool.connect(address)
        connection.once = True
        try:
            address.in_flight += 1
            address.pool.active.add(connection)
            head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: {address.host}:{address.port}\r\n"
            if body is not None:
                head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            connection.send([head.encode(), b"connection: close\r\n\r\n", body or b""], sink)
            return await sink.done
        finally:
            if connection.sink is sink:
                address.release(connection, keep=False)
                connection.abort()


async def check_health(pool: Pool, said: Callable[[Address, bool], None]) -> None:
    """Ask every address of a tier once; `said` is told of each that changes."""
    health = pool.tier.health

    async def ask(address: Address) -> None:
        try:
            head, _ = await fetch(address, health.path, health.timeout_ms / 1000, 65_536)
            well = head.status < 500
        except (OSError, TimeoutError):
            well = False
        address.unhealthy = 0 if well else address.unhealthy + 1
        if address.healthy != (now := address.unhealthy < health.unhealthy_after):
            address.healthy = now
            said(address, now)

    await asyncio.gather(*map(ask, pool.addresses))
