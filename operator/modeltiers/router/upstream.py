"""One tier's addresses: connections that are kept and reused, which address is next, and which is left alone.

Names are resolved again and again, since one name stands for many pods that come and go. Knows nothing of policies, of
JSON or of clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import deque
from typing import Final

from modeltiers.domain.routing.table import Tier
from modeltiers.router.connection import CONNECT, NOBODY, Connection, Head, Sink
from modeltiers.router.familiar import LESSONS, Familiar, learn

EWMA: Final = 0.1
"""The weight of the newest outcome in an address's error rate."""
OUTLIER_RATE: Final = 0.5
OUTLIER_SAMPLES: Final = 20


class Address:
    """One address of a tier: its idle connections, what is in flight, and whether it is left alone for now."""

    __slots__ = (
        "_idle",
        "_lessons",
        "cooling_until",
        "error_rate",
        "failures",
        "familiar",
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
        self.familiar: Familiar | None = None
        """The head that its whole replies have."""
        self._lessons = 0

    def learn(self, data: bytes, head: Head) -> None:
        """Learn from a whole reply how its head is written, unless each is different."""
        if self._lessons < LESSONS:
            self._lessons += 1
            self.familiar = learn(data, head)

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
