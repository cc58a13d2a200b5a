"""A tier outside the cluster: an OpenAI-compatible API behind a URL, with TLS, a proxy, a key and a guarded address.

Stands in for a pool of connections to an engine, so that whoever reads a reply need not know the difference. The
address is judged where the socket is made, on what is connected to: no name, no spelling of a number and no answer of
a name server leads past it. Through a proxy the proxy resolves the name, and judging what it names is its matter; only
an address that is written in the URL is judged here.

The key is sent to the API alone and is in no message of this module. Knows nothing of policies and of JSON.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from modeltiers.domain.routing.table import External, Tier
from modeltiers.router.upstream import (
    BROKEN,
    CONNECT,
    HEAD_BYTES,
    TIMEOUT,
    Address,
    Attempt,
    Connection,
    Failure,
    Head,
    Pool,
    Sink,
)

if TYPE_CHECKING:
    import aiohttp

BODY_BYTES: Final = 256 * 2**20
"""The most that one reply may have; what is kept of it is the reader's matter."""
KEY_BYTES: Final = 8_192
PIECE: Final = 65_536
_BASE: Final = re.compile(
    r"(https?)://"
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?)"
    r"(?::([0-9]{1,5}))?"
    r"((?:/[A-Za-z0-9_~:+-][A-Za-z0-9._~:+-]*)*)/?",
    re.ASCII,
)
_NUMBER: Final = re.compile("[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_KEY: Final = re.compile(rb"[!-~]+")
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
Reach = Literal["Public", "Private", "Never"]


def _networks(*found: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, found))


# The standard library's own lists differ from one patch release to the next.
_PRIVATE: Final = _networks("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128")
_PRIVATE6: Final = _networks("fc00::/7")
_METADATA: Final = _networks("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", "fd20:ce::254/128")
"""Where clouds answer with credentials, outside the link-local range."""
_NEVER: Final = _networks(
    *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
    *("192.88.99.0/24", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
    # Teredo and other protocols', documentation, 6to4, AS112.
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
)
_GLOBAL: Final = _networks("2000::/3")
_EMBEDDED: Final = _networks("::ffff:0:0/96", "64:ff9b::/96")
"""IPv6 forms whose last four bytes are the IPv4 address that is reached."""


def reach(address: str) -> Reach:
    """Return whom an address leads to; what is no address leads nowhere that we want to be."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "Never"
    if found.version == 6 and _within(found, _EMBEDDED):
        found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if _within(found, _METADATA) or _within(found, _NEVER):
        return "Never"
    if _within(found, _PRIVATE) or _within(found, _PRIVATE6):
        return "Private"
    return "Public" if found.version == 4 or _within(found, _GLOBAL) else "Never"


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: tuple[Any, ...]) -> bool:
    return any(address in network for network in networks)


def base_fault(external: External) -> str | None:
    """Return what is wrong with a base URL, with the way out; None when nothing is.

    Only plain URLs are taken: what two parsers could read differently is wrong. A name is judged when it is resolved.
    """
    found = _BASE.fullmatch(external.base_url)
    if found is None:
        return "give a plain URL as https://api.example.com/v1: no user, query, escapes or dots that climb"
    host, port = found[2].strip("[]"), found[3]
    if port is not None and not 0 < int(port) < 65_536:
        return "the port lies between 1 and 65535"
    if not _is_address(host) and (":" in host or _NUMBER.fullmatch(host.rpartition(".")[2])):
        return f"{host} is no address as it is usually written; write it out, or give a name"
    if _is_address(host) and not _may(reach(host), private=external.private):
        return f"{host} is not a public address; say private: true for one of your own network"
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _may(found: Reach, *, private: bool) -> bool:
    return found == "Public" or (private and found == "Private")


class Guard:
    """Makes the sockets of a tier, for addresses that it may reach and no others."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self.refused = 0
        self.problem: str | None = None

    def __call__(self, info: Any) -> socket.socket:
        """Return a socket for what getaddrinfo found; raises OSError. The address is the very one connected to."""
        family, kind, protocol, _, where = info
        if not _may(reach(str(where[0])), private=self._private):
            self.refused += 1
            self.problem = "AddressRefused"
            raise PermissionError(errno.EACCES, "the address is not public")
        self.problem = None
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


class Secret:
    """A file with an API key, read again when it changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._value: bytes | None = None
        self.problem: str | None = None

    def read(self) -> bytes | None:
        """Return the key; None when there is none, and `problem` says why unless none is needed."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp != self._stamp:
                self._value = self._parse(self._path.read_bytes() if found.st_size <= KEY_BYTES else b"\0")
                self._stamp = stamp
        except OSError:
            self._stamp = self._value = None
            self.problem = "APIKeyMissing"
        return self._value

    def _parse(self, content: bytes) -> bytes | None:
        key = content.strip()
        self.problem = None if _KEY.fullmatch(key) else "APIKeyInvalid" if key else "APIKeyEmpty"
        return key if self.problem is None else None


class Trust:
    """The certificates that a tier's may be signed with, read again when their file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._context: ssl.SSLContext | None = None
        self.problem: str | None = None

    def load(self) -> None:
        """Read the file if it changed; takes milliseconds, so not in the event loop. A bad one keeps what is in use."""
        if self._path is None:
            self._context = self._context or ssl.create_default_context()
            return
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp != self._stamp:
                self._context = ssl.create_default_context(cafile=str(self._path))
                self._stamp, self.problem = stamp, None
        except (OSError, ValueError):  # an SSLError is an OSError
            self.problem = "CABundleInvalid"

    @property
    def context(self) -> ssl.SSLContext | None:
        """What is in force, if anything was ever good."""
        return self._context


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
        self._base = self._host = ""
        self._port, self._literal = 0, True
        self._fault = base_fault(self.external)
        if self._fault is None:
            self._split()

    def _split(self) -> None:
        found = _BASE.fullmatch(self.external.base_url)
        assert found is not None
        self._host = found[2].strip("[]")
        self._port = int(found[3] or (443 if found[1] == "https" else 80))
        self._base = self.external.base_url.rstrip("/")
        self._addresses[self._host] = Address(self, self._host, self._port)

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
