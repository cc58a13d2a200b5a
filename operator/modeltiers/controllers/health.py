"""/healthz, /readyz and /metrics on one port, each telling what it knows and nothing more.

`/healthz` asks for a restart only when one would help: the loop lags, or a wake-up has gone unserved for long while
the API answers. `/readyz` says whether this replica has the whole picture; a standby that could take over at once is
ready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@dataclass(frozen=True, slots=True)
class Check:
    """One named question; the answer is None when all is well, else what is wrong."""

    name: str
    ask: Callable[[], str | None]


class Lag:
    """How late the event loop runs: a blocked loop serves nobody."""

    def __init__(self, period: float = 0.5) -> None:
        self._period = period
        self._due = time.monotonic() + period
        self.worst = 0.0

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            self._due = time.monotonic() + self._period
            await asyncio.sleep(self._period)
            self.worst = max(self.worst * 0.9, self.now())

    def now(self) -> float:
        """Seconds the loop is late at this moment."""
        return max(0.0, time.monotonic() - self._due)


async def serve(host: str, port: int, live: Sequence[Check], ready: Sequence[Check]) -> web.AppRunner:
    """Start the server; the caller cleans the runner up."""
    app = web.Application()
    app.router.add_get("/healthz", _asking(live))
    app.router.add_get("/readyz", _asking(ready))
    app.router.add_get("/metrics", _metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def _asking(checks: Sequence[Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        found = [(check.name, check.ask()) for check in checks]
        lines = [f"[-] {name}: {problem}\n" if problem else f"[+] {name}\n" for name, problem in found]
        return web.Response(text="".join(lines), status=503 if any(problem for _, problem in found) else 200)

    return answer


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
