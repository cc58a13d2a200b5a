"""Asks one address of a tier something aside, past breaker and queue: its health, or what the engine is to say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modeltiers.router.connection import BROKEN, Failure, Head
from modeltiers.router.upstream import Address, Pool


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
