"""The engine beside this router: whether it is well, and whether it has said a token since it was started.

An engine can call itself well and die at the first token, or at the first logprob: some compile that part only then. So
it counts as ready after a canary's answer with both. Which requests it gets is not decided here.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec

from modeltiers.domain.routing.table import Tier
from modeltiers.router.probes import fetch
from modeltiers.router.upstream import Address, Pool

EVERY: Final = 1.0
"""Seconds between two looks."""
ASK_SECONDS: Final = 5.0
CANARY_SECONDS: Final = 120.0
"""The first token of an engine whose caches are cold can take this long."""
LOST: Final = 3
"""Looks in a row that find nobody, after which the engine is taken for a new one: its canary is due again."""
State = Literal["Starting", "Canary", "CanaryFailed", "Ready"]
_CANARIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/v1/completions", {"prompt": "1", "max_tokens": 1, "logprobs": 1}),
    ("/v1/completions", {"prompt": "1", "max_tokens": 1}),
    ("/v1/embeddings", {"input": "1"}),
)
"""The next one is for an engine that refuses the one before as a thing it does not do."""


class Engine:
    """What is known of the engine."""

    def __init__(self, name: str, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name, self.address = name, address
        self.pool = Pool(Tier(name=name, address=address, local=True), loop)
        self.state: State = "Starting"
        self.canaries = 0
        """How many canaries were sent."""
        self._missed = 0

    @property
    def ready(self) -> bool:
        """Whether it has answered its canary and was not lost since."""
        return self.state == "Ready"

    async def run(self) -> None:
        """Look at it until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Ask it whether it is well; send the canary when it has just become so."""
        if not self.pool.addresses:
            await self.pool.resolve()
        address = next(iter(self.pool.addresses), None)
        if address is None or not await _well(address):
            self._missed += 1
            if self._missed >= LOST or not self.ready:
                self.state = "Starting"
            return
        self._missed = 0
        if not self.ready:
            self.state = "Canary"
            self.canaries += 1
            self.state = "Ready" if await _sings(address) else "CanaryFailed"


async def _well(address: Address) -> bool:
    try:
        head, _ = await fetch(address, "/health", ASK_SECONDS)
    except (OSError, TimeoutError):
        return False
    return head.status == 200


async def _sings(address: Address) -> bool:
    """Whether it says one token, or one vector if that is what it does."""
    try:
        head, said = await fetch(address, "/v1/models", ASK_SECONDS)
        models = msgspec.json.decode(said).get("data") if head.status == 200 else None
        model = models[0]["id"] if models else None
        for path, asked in _CANARIES:
            body = msgspec.json.encode({"model": model, **asked})
            head, _ = await fetch(address, path, CANARY_SECONDS, body=body)
            if head.status == 200 or head.status >= 500:
                return head.status == 200
    except (OSError, TimeoutError, msgspec.DecodeError, AttributeError, LookupError, TypeError):
        return False
    return False
