"""The external API that this router stands before: whether requests can go there, found without spending anything.

Its name must resolve to an address that may be called, and its key must be there. Whether it answers is the breaker's
to learn, from requests; beside them it is asked for its list of models alone, for what the operator tells of it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from modeltiers.domain.routing.table import External, Tier
from modeltiers.router.addresses import allowed, where
from modeltiers.router.external import ExternalPool
from modeltiers.router.listing import Listing

EVERY: Final = 2.0
"""Seconds between two looks."""
LOOKUP_SECONDS: Final = 5.0
LOST: Final = 5
"""Looks in a row that resolve nothing, after which it is not ready: a name server that hiccups stops no router."""


class Egress:
    """What is known of the way to the API."""

    def __init__(self, name: str, external: External, model: str | None, loop: asyncio.AbstractEventLoop) -> None:
        """`model` is the name that the API has for the tier's model; without it its list is not asked for."""
        self.name = name
        self.pool = ExternalPool(Tier(name=name, external=external, local=True), loop)
        self.state = "Starting"
        """Ready, or in a word why not."""
        self._missed = 0
        self.listing = Listing(self.pool, model) if model is not None else None

    @property
    def ready(self) -> bool:
        """Whether requests can go there."""
        return self.state == "Ready"

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self.listing is not None:
                group.create_task(self.listing.run())
            while True:
                await self.look()
                await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Read key and certificates, and resolve the name."""
        await self.pool.resolve()
        problem = self.pool.problem or await self._resolve()
        self._missed = self._missed + 1 if problem == "NameNotResolved" else 0
        if problem != "NameNotResolved" or not self.ready or self._missed >= LOST:
            self.state = problem or "Ready"

    async def _resolve(self) -> str | None:
        """Return why no address of the name may be called; None when one may."""
        external = self.pool.external
        if external.proxy is not None:
            return None  # the proxy resolves it
        host, port = where(external.base_url)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self.pool.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return "NameNotResolved"
        fine = any(allowed(str(entry[4][0]), private=external.private) for entry in found)
        return None if fine else "AddressRefused"
