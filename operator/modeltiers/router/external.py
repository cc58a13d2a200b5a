"""A tier outside the cluster: an OpenAI-compatible API behind a URL, with TLS, a proxy, a key and a guarded address.

Stands in for a pool of connections to an engine, so that whoever reads a reply need not know the difference. What is
connected to is judged by `addresses`. Through a proxy the proxy resolves the name, and judging what it names is its
matter; only an address that is written in the URL is judged here.

The key is sent to the API alone and is in no message of this module. Knows nothing of policies and of JSON.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modeltiers.domain.routing.table import Tier
from modeltiers.router.addresses import Guard, base_fault, where
from modeltiers.router.connection import BROKEN, CONNECT, HEAD_BYTES, TIMEOUT, Connection, Failure, Head, Sink
from modeltiers.router.secrets import Secret, Trust
from modeltiers.router.upstream import Address, Attempt, Pool

if TYPE_CHECKING:
    import aiohttp

BODY_BYTES: Final = 256 * 2**20
"""The most that one reply may have; what is kept of it is the reader's matter."""
PIECE: Final = 65_536
_NEVER_SENT: Final = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers of a client that no list of a table lets pass: its key for us, and what frames a message."""


class ExternalPool(Pool):
    """One external API, as a pool with one address."""

    def __init__(self, tier: Tier, loop: asyncio.AbstractEventLoop) -> None:
        assert tier.external is not None
        self.tier, self.loop, self.external = tier, loop, tier.external
        self.active = set()
        self.resolve_failures = 0
        self.attempts: set[ExternalAttempt] = set()
        self.guard = Guard(private=self.external.private)
        self._secret = Secret(_path(self.external.api_key_file))
        self._trust = Trust(_path(self.external.ca_bundle_file))
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._closing: asyncio.Task[None] | None = None
        self._closed = self._loaded = False
        self._addresses = {}
        self._base = self.external.base_url.rstrip("/")
        self._fault = base_fault(self.external)
        if self._fault is None:
            host, port = where(self.external.base_url)
            self._addresses[host] = Address(self, host, port)

    @property
    def problem(self) -> str | None:
        """Why nothing can be sent there, in one word; None when nothing is known against it."""
        if self._fault is not None:
            return "BaseURLInvalid"
        self._secret.read()
        return self._secret.problem or self._trust.problem or self.guard.problem

    @property
    def keyless(self) -> bool:
        """Whether a key is needed and not there."""
        self._secret.read()
        return self._secret.problem is not None

    def usable(self, now: float) -> bool:
        """Whether it takes a request now."""
        return self._secret.problem is None and super().usable(now)

    async def connect(self, address: Address) -> Connection:
        """Refuse: nothing goes to an API past the guard, and its health is asked by nothing but requests."""
        raise PermissionError(errno.EACCES, f"{address.host} is an external API; only attempts go there")

    async def resolve(self) -> None:
        """Read key and certificates again where they changed; names are resolved with every new connection."""
        self._secret.read()
        await self.loop.run_in_executor(None, self._trust.load)
        self._loaded = True

    async def context(self) -> ssl.SSLContext | None:
        """Return the certificates in force, read on first use."""
        if not self._loaded:
            await self.resolve()
        return self._trust.context

    def attempt(self, request: list[bytes], sink: Sink) -> ExternalAttempt:
        """Return an attempt for a request in the form that engines get it: its head, a blank line, its body."""
        return ExternalAttempt(self, request, sink)

    def outgoing(self, request: list[bytes]) -> tuple[str, dict[str, str], bytes]:
        """Return URL, headers and body of a request: the headers afresh, and of the client's only those allowed."""
        head, _, body = (request[0] if len(request) > 1 else b"".join(request)).partition(b"\r\n\r\n")
        body = body if len(request) == 1 else b"".join(request[1:])
        first, *lines = head.split(b"\r\n")
        path = first.split(b" ")[1].removeprefix(b"/v1").decode("latin-1")
        allowed = {name.encode() for name in self.external.headers} | {b"content-type"}
        headers = {"accept-encoding": "identity", "content-length": str(len(body))}
        for line in lines:
            name, _, value = line.partition(b":")
            name = name.strip().lower()
            if name in allowed and name not in _NEVER_SENT and not name.startswith((b"proxy-", b"x-modeltiers-")):
                headers[name.decode("latin-1")] = value.strip().decode("utf-8", "surrogateescape")
        key = self._secret.read()
        if key is not None:
            headers["authorization"] = f"Bearer {key.decode()}"
        return self._base + path, headers, body

    def session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """Return the kept client; `fresh` reuses no connection."""
        found = self._sessions.get(fresh)
        if found is None:
            found = self._sessions[fresh] = self._session(fresh=fresh)
        return found

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        import aiohttp  # a router without external tiers starts without it

        connector = aiohttp.TCPConnector(
            limit=0,
            force_close=fresh,
            keepalive_timeout=None if fresh else self.tier.keep_alive_ms / 1000,
            # The proxy is the administrator's own and may well be private.
            socket_factory=None if self.external.proxy else self.guard,
            resolver=aiohttp.ThreadedResolver(),
        )
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_connected)
        trace.on_connection_reuseconn.append(_reused)
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[trace],
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            skip_auto_headers=("user-agent", "accept", "content-type"),
            auto_decompress=False,
            trust_env=False,
        )

    def sweep(self, now: float) -> None:
        """End attempts whose time is up."""
        for attempt in [one for one in self.attempts if now > one.deadline or now > one.total_deadline]:
            attempt.overdue()

    def ended(self, attempt: ExternalAttempt) -> None:
        """Forget an attempt; the last one of a closed pool closes the client."""
        self.attempts.discard(attempt)
        if self._closed and not self.attempts and self._closing is None:
            self._closing = self.loop.create_task(self._close_sessions())

    def close(self) -> None:
        """Let nothing new in; what is in flight ends by itself."""
        self._addresses = {}
        self._closed = True
        if not self.attempts and self._closing is None:
            self._closing = self.loop.create_task(self._close_sessions())

    async def _close_sessions(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def wait_closed(self) -> None:
        """Wait for the client's end after `close`; ends what is still in flight."""
        for attempt in list(self.attempts):
            attempt.abort()
        if self._closing is not None:
            await self._closing


async def _connected(_: Any, context: Any, __: Any) -> None:
    context.trace_request_ctx.connected()


async def _reused(_: Any, context: Any, __: Any) -> None:
    context.trace_request_ctx.reused = True
    context.trace_request_ctx.connected()


class ExternalAttempt(Attempt):
    """One request to an external API; it runs as a task of its own."""

    __slots__ = ("_flowing", "_phase", "_reply", "deadline", "external", "over", "total_deadline")

    def __init__(self, pool: ExternalPool, request: list[bytes], sink: Sink) -> None:
        super().__init__(pool, request, sink)
        self.external = pool
        self.deadline = self.total_deadline = 0.0
        self.over = False
        self._phase: Failure = CONNECT
        """What it failed at when it fails now: CONNECT before there is a connection, BROKEN after."""
        self._reply: aiohttp.ClientResponse | None = None
        self._flowing: asyncio.Event | None = None
        """Set while the sink takes more; none while it was never paused."""

    def start(self, avoid: Address | None = None, *, fresh: bool = False) -> bool:
        """Send the request; False when the API takes none now. `fresh` takes no idle connection."""
        address = self.external.pick(avoid)
        if address is None:
            return False
        self._address = address
        address.in_flight += 1
        now, limits = address.loop.time(), self.external.tier.timeouts
        self.deadline = now + limits.connect_ms / 1000
        self.total_deadline = now + limits.total_ms / 1000
        self.external.attempts.add(self)
        self._task = address.loop.create_task(self._run(fresh))
        return True

    def connected(self) -> None:
        """Notice that the request goes out on a connection; from here the first byte's time runs."""
        assert self._address is not None
        self._phase = BROKEN
        self.deadline = self._address.loop.time() + self.external.tier.timeouts.first_byte_ms / 1000

    async def _run(self, fresh: bool) -> None:
        failure: Failure | None = BROKEN
        try:
            failure = await self._converse(fresh)
        finally:
            if not self.over:
                self._settle(failed=failure is not None or self._status() >= 500)
                if failure is None:
                    self._sink.upstream_end()
                else:
                    self._cut()
                    self._sink.upstream_failed(failure)

    def _status(self) -> int:
        return self._reply.status if self._reply is not None else 0

    async def _converse(self, fresh: bool) -> Failure | None:
        """Ask and hand over the reply; returns what went wrong, if anything."""
        pool = self.external
        context = await pool.context()
        if context is None or pool.keyless:
            return CONNECT
        reply = self._reply = await self._post(pool, context, fresh)
        if reply is None:
            return self._phase
        if sum(len(name) + len(value) for name, value in reply.raw_headers) > HEAD_BYTES:
            return BROKEN
        self._touch()
        self._sink.upstream_head(Head(reply.status, [(name.lower(), value) for name, value in reply.raw_headers]))
        return await self._body(reply)

    async def _post(self, pool: ExternalPool, context: ssl.SSLContext, fresh: bool) -> aiohttp.ClientResponse | None:
        """Send the request; returns the reply with its head, or nothing when none came."""
        import yarl  # aiohttp brings it

        url, headers, body = pool.outgoing(self._request)
        try:
            return await pool.session(fresh=fresh).post(
                yarl.URL(url, encoded=True),
                data=body if len(body) <= PIECE else _pieces(body),
                headers=headers,
                allow_redirects=False,
                ssl=context,
                proxy=pool.external.proxy,
                trace_request_ctx=self,
            )
        except _wrong():
            return None

    async def _body(self, reply: aiohttp.ClientResponse) -> Failure | None:
        size = 0
        while not self.over:
            try:
                data = await reply.content.readany()
            except _wrong():
                return BROKEN
            if self._flowing is not None:
                await self._flowing.wait()
            if not data or self._ended():
                return None
            size += len(data)
            if size > BODY_BYTES:
                return BROKEN
            self._touch()
            self._sink.upstream_data(data)
        return None

    def _ended(self) -> bool:
        return self.over

    def _touch(self) -> None:
        """Let the time between two reads run anew."""
        if self._flowing is None or self._flowing.is_set():
            self.deadline = self.external.loop.time() + self.external.tier.timeouts.idle_ms / 1000

    # -- ends -------------------------------------------------------------------------------------------------------

    def _settle(self, *, failed: bool | None) -> None:
        """Count the end, once; None says nothing of the API."""
        self.over = True
        address = self._address
        assert address is not None
        address.in_flight -= 1
        if failed is not None:
            address.failed() if failed else address.succeeded()
        self.external.ended(self)

    def _cut(self) -> None:
        """Close the connection now, so that the API stops working for it."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
        reply = self._reply
        if reply is None:
            return
        connection = reply.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()  # a close would wait for the other side's farewell
        reply.close()

    def abort(self) -> None:
        """End it now, whatever it does; nothing more reaches the sink."""
        if self._address is None or self.over:
            return
        self._settle(failed=None)
        self._cut()

    def overdue(self) -> None:
        """End the attempt because its time is up."""
        if self.over:
            return
        self._settle(failed=True)
        self._cut()
        self._sink.upstream_failed(CONNECT if self._phase == CONNECT else TIMEOUT)

    def forget(self) -> None:
        """Let go of whoever waited for the reply, and of the reply."""
        super().forget()
        self._reply = None

    def pause(self) -> None:
        """Read no more for now; the idle time does not run meanwhile."""
        if self._flowing is None:
            self._flowing = asyncio.Event()
        self._flowing.clear()
        self.deadline = self.total_deadline

    def resume(self) -> None:
        """Read on."""
        if self._flowing is not None:
            self._flowing.set()
            self._touch()


def _wrong() -> tuple[type[Exception], ...]:
    """Return what goes wrong on the way to an API and back.

    RuntimeError: a socket was closed under uvloop. ValueError: aiohttp will not send or read it.
    """
    import aiohttp  # loaded by now

    return aiohttp.ClientError, OSError, TimeoutError, ValueError, RuntimeError


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Yield a long body in pieces, so that others get their turn while it goes out."""
    for begin in range(0, len(body), PIECE):
        yield body[begin : begin + PIECE]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
