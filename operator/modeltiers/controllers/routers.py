"""What the routers say of themselves: asked in the background, the last answer of each kept for whoever reads.

One `GET /status` on the admin port serves every reader: which tables are live, what was counted, what is in flight.
Nobody who reconciles waits for it: a router that does not answer costs two seconds of a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

import aiohttp
import orjson

from modeltiers import names
from modeltiers.controllers import metrics
from modeltiers.domain.policy_keys import Keys
from modeltiers.domain.policy_verdict import RouterFacts
from modeltiers.domain.views import PodView

TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0, connect=1.0)
"""How long, in seconds, one question may take."""
FRESH: Final = 0.5
"""Seconds for which an answer is good where nothing else is asked for."""
KEPT: Final = 600.0
"""Seconds after which an answer is forgotten."""
TRIES: Final = 3
"""After so many failures in a row a router is asked less and less often."""
LONGEST_REST: Final = 120.0
"""Seconds between two tries at most."""
AT_ONCE: Final = 32
LARGEST: Final = 4 * 1024 * 1024

Then = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Said:
    """What a router said last."""

    at: float
    """Monotonic seconds at which it was asked."""
    status: Mapping[str, Any] | None
    """Its /status; None when it could not be asked."""
    ready_since: datetime | None = None
    """Since when its pod was ready."""
    failed: int = 0
    """How often in a row it could not be asked."""

    def rests(self, pod: PodView, now: float) -> bool:
        """Whether it is left alone for a while: it could not be asked again and again, and its pod is as it was.

        A network that keeps us out of a thousand pods must not cost a thousand time-outs a round.
        """
        pause = min(10.0 * 2 ** (self.failed - TRIES), LONGEST_REST) if self.failed >= TRIES else 0.0
        return now - self.at < pause and self.ready_since == pod.ready_since


@dataclass(eq=False)
class Routers:
    """Asks the routers in pods, a few at once, and keeps what each said last."""

    clock: Callable[[], float] = time.monotonic
    _said: dict[str, Said] = field(default_factory=dict)  # by the pod's uid
    _then: dict[str, list[Then]] = field(default_factory=dict)  # who waits for a pod that is asked, or to be asked
    _queue: asyncio.Queue[PodView] = field(default_factory=asyncio.Queue)

    async def run(self) -> None:
        """Ask whoever is to be asked, until cancelled."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(AT_ONCE):
                group.create_task(self._work(session))
            group.create_task(self._forget())

    def last(self, pod: PodView) -> Said | None:
        """Return what a pod's router said last; None when it was never asked."""
        return self._said.get(pod.uid)

    def ask(self, pods: Iterable[PodView], age: float = FRESH, then: Then = lambda: None) -> bool:
        """Have those asked whose last answer is older than `age` seconds; returns whether any are.

        Returns at once. `then` is called once for each that has answered, or has failed to.
        """
        now, any_asked = self.clock(), False
        for pod in pods:
            known = self._said.get(pod.uid)
            if not can_be_asked(pod) or (known is not None and (now - known.at <= age or known.rests(pod, now))):
                continue
            any_asked = True
            waiting = self._then.get(pod.uid)
            if waiting is None:
                self._then[pod.uid] = [then]
                self._queue.put_nowait(pod)
            elif then not in waiting:
                waiting.append(then)
        return any_asked

    async def read(self, pods: Iterable[PodView], age: float = FRESH) -> None:
        """Return when all of them have an answer no older than `age`, or could not be asked, now or again and again."""
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = []
        for pod in pods:
            done: asyncio.Future[None] = loop.create_future()
            if self.ask([pod], age, partial(_settle, done)):
                waiting.append(done)
        await asyncio.gather(*waiting)

    def facts(self, pods: Iterable[PodView], policy: str) -> tuple[RouterFacts, ...] | None:
        """Return what the router of each pod says of a policy's table; None while one was never asked."""
        found = [(pod, self.last(pod)) for pod in pods if can_be_asked(pod)]
        if any(said is None for _, said in found):
            return None
        return tuple(_facts(pod.name, said.status, policy) for pod, said in found if said is not None)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            pod = await self._queue.get()
            asked = self.clock()
            status = await _status(session, pod.ip)
            before = self._said.get(pod.uid)
            failed = 0 if status is not None else 1 + (before.failed if before else 0)
            self._said[pod.uid] = Said(asked, status, pod.ready_since, failed)
            metrics.READS.labels("failed" if status is None else "answered").inc()
            for then in self._then.pop(pod.uid, ()):
                then()

    async def _forget(self) -> None:
        """Let go of what pods said that nobody asks about any more."""
        while True:
            await asyncio.sleep(KEPT / 10)
            since = self.clock() - KEPT
            self._said = {uid: said for uid, said in self._said.items() if said.at > since}


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def can_be_asked(pod: PodView) -> bool:
    """Whether there is somebody to ask: a pod has an address and is not over; one that drains still answers."""
    return bool(pod.ip) and not pod.finished


async def _status(session: aiohttp.ClientSession, ip: str) -> Mapping[str, Any] | None:
    host = f"[{ip}]" if ":" in ip else ip
    url, body = f"http://{host}:{names.ADMIN_PORT}/status", b""
    try:
        async with session.get(url, timeout=TIMEOUT, allow_redirects=False) as reply:
            async for piece in reply.content.iter_any():
                body += piece
                if reply.status != 200 or len(body) > LARGEST:
                    return None
        found = orjson.loads(body)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None  # it cannot be asked: that is a fact, too
    return found if isinstance(found, dict) else None


def _facts(pod: str, status: Mapping[str, Any] | None, policy: str) -> RouterFacts:
    if status is None:
        return RouterFacts(pod, reached=False)
    file = names.table_key(policy)
    tables, refused = status.get("tables"), status.get("refusedTables")
    table = tables.get(file) if isinstance(tables, dict) else None
    version = table.get("version") if isinstance(table, dict) else None
    problem = refused.get(file) if isinstance(refused, dict) else None
    known = version if isinstance(version, str) else None
    return RouterFacts(pod, version=known, refused=str(problem or ""), keys=Keys.of(status, policy))
