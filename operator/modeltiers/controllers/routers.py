"""Asks routers what they serve: one GET /status on the admin port of each pod, briefly and no more than needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from modeltiers import names
from modeltiers.domain.policy_verdict import RouterFacts
from modeltiers.domain.views import PodView

TIMEOUT: Final = httpx.Timeout(2.0, connect=1.0)
FRESH: Final = 0.5
"""Seconds for which an answer is good: policies of one tier are looked at together."""
AT_ONCE: Final = 32


@dataclass(eq=False)
class RouterProbe:
    """Asks routers, and keeps what they said for a moment."""

    _seen: dict[str, tuple[float, dict[str, Any] | None]] = field(default_factory=dict)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def look(self, pods: Iterable[PodView], policy: str) -> tuple[RouterFacts, ...]:
        """Return what the router of each pod says of a policy's table."""
        asked = [pod for pod in pods if pod.ip and not pod.deleting and not pod.finished]
        now = time.monotonic()
        self._seen = {ip: kept for ip, kept in self._seen.items() if now - kept[0] < FRESH}
        said = await asyncio.gather(*(self._ask(pod.ip) for pod in asked))
        return tuple(_facts(pod.name, status, names.table_key(policy)) for pod, status in zip(asked, said, strict=True))

    async def _ask(self, ip: str) -> dict[str, Any] | None:
        known = self._seen.get(ip)
        if known is not None:
            return known[1]
        host = f"[{ip}]" if ":" in ip else ip
        status: dict[str, Any] | None = None
        async with self._gate:
            try:
                async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
                    reply = await client.get(f"http://{host}:{names.ADMIN_PORT}/status")
                found = reply.json() if reply.status_code == 200 else None
                status = found if isinstance(found, dict) else None
            except (httpx.HTTPError, ValueError):
                status = None  # it cannot be asked: that is a fact, too
        self._seen[ip] = time.monotonic(), status
        return status


def _facts(pod: str, status: dict[str, Any] | None, file: str) -> RouterFacts:
    if status is None:
        return RouterFacts(pod, reached=False)
    tables, refused = status.get("tables"), status.get("refusedTables")
    table = tables.get(file) if isinstance(tables, dict) else None
    version = table.get("version") if isinstance(table, dict) else None
    problem = refused.get(file) if isinstance(refused, dict) else None
    return RouterFacts(pod, version=version if isinstance(version, str) else None, refused=str(problem or ""))
