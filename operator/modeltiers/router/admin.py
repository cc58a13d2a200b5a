"""The admin port: whether the router lives and is ready, what it counts, and its drain. Never open to clients."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from modeltiers.router.egress import Egress
from modeltiers.router.engine import Engine
from modeltiers.router.keys import KeyRing
from modeltiers.router.probes import fetch
from modeltiers.router.replies import JSON, Refusal
from modeltiers.router.requests import Request
from modeltiers.router.router import Router
from modeltiers.router.routes import Route
from modeltiers.router.server import Client, Server
from modeltiers.router.upstream import Pool

TEXT: Final = b"text/plain; charset=utf-8"
PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"
NOTHING: Final = "there is nothing here; see /healthz, /readyz, /metrics, /status, /drain, /engine/health"
LAG: Final = 5.0
"""A loop that is later than this, in seconds, serves nobody: a restart helps."""
ENGINE: Final = {b"/engine/health": "/health", b"/engine/metrics": "/metrics"}


class Later:
    """A reply that takes time; it is given up when nobody waits for it any more."""

    def __init__(self, client: Client, work: Coroutine[Any, Any, tuple[int, bytes, bytes]]) -> None:
        self._client = client
        self._task = asyncio.get_running_loop().create_task(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, tuple[int, bytes, bytes]]) -> None:
        status, kind, body = await work
        self._client.reply(status, b"content-type: %b\r\n" % kind, body)

    def gone(self) -> None:
        """Stop."""
        self._task.cancel()

    def pause(self) -> None:
        """Do nothing: the reply is short."""

    def resume(self) -> None:
        """Do nothing: the reply is short."""


class Admin:
    """Answers on the admin port."""

    def __init__(self, router: Router, serving: Server, drain_seconds: float, settle_seconds: float) -> None:
        self._router, self._serving = router, serving
        self._drain_seconds, self._settle_seconds = drain_seconds, settle_seconds

    def handle(self, client: Client, request: Request) -> Later | None:
        """Answer, at once or later; raises Refusal."""
        path, _, query = request.target.partition(b"?")
        if path == b"/drain" and request.method in (b"GET", b"POST"):
            return Later(client, self._drain(query))
        if request.method != b"GET":
            raise Refusal(405, "use GET")
        if path in ENGINE:
            return Later(client, self._engine(ENGINE[path]))
        status, kind, body = self._at_once(path)
        client.reply(status, b"content-type: %b\r\n" % kind, body)
        return None

    def _at_once(self, path: bytes) -> tuple[int, bytes, bytes]:
        router = self._router
        if path == b"/healthz":
            well = router.metrics.loop_lag < LAG
            return (200, TEXT, b"ok\n") if well else (503, TEXT, b"the event loop is late\n")
        if path == b"/readyz":
            return (200, TEXT, b"ok\n") if router.ready() else (503, TEXT, b"not ready; see /status\n")
        if path == b"/metrics":
            return 200, PROMETHEUS, router.metrics.text()
        if path == b"/status":
            return 200, JSON, msgspec.json.encode(self.status())
        raise Refusal(404, NOTHING)

    def status(self) -> dict[str, Any]:
        """Return which tables serve, which were refused and why, and the state of every address."""
        router, now = self._router, self._router.loop.time()
        tables = {
            name: {"version": loaded.version, "models": sorted(loaded.policies)}
            for name, loaded in router.tables.loaded.items()
        }
        return {
            "ready": router.ready(),
            "draining": router.draining,
            "inFlight": len(router.exchanges),
            "tasks": len(asyncio.all_tasks()),
            "tables": tables,
            "engine": None if router.engine is None else self._engine_status(router.engine),
            "refusedTables": router.tables.errors,
            "keys": len(router.guards.keys.known),
            # Without a policy that asks for keys, nobody misses the file.
            "refusedKeys": router.guards.keys.error if router.guarded else None,
            "signs": router.guards.hop_key.signs,
            "refusedHopKey": router.guards.hop_key.error,
            "policies": {
                route.policy.policy.name: _route_status(route, router.guards.keys) for route in router.routes.values()
            },
            "counters": [_counters(route) for route in router.routes.values()],
            "revisions": _revisions(router.metrics.revisions),
            "waiting": router.guards.gate.waiting(),
            "spool": None if router.guards.spool is None else router.guards.spool.figures(),
            "tiers": {tier.name: _pool_status(pool, now) for tier, pool in router.pools().items()},
            "candidates": {tier.name: _pool_status(pool, now) for tier, pool in router.pools(second=True).items()},
        }

    def _engine_status(self, engine: Engine | Egress) -> dict[str, Any]:
        listing = engine.listing if isinstance(engine, Egress) else None
        return {
            "tier": engine.name,
            "state": engine.state,
            **({} if listing is None else {"models": listing.word}),
            "inFlight": self._router.at_engine(),
            "waiting": self._router.guards.gate.waiting_at(engine.name),
        }

    async def _drain(self, query: bytes) -> tuple[int, bytes, bytes]:
        """Turn readiness off and return when nothing is in flight, or time is up."""
        try:
            given = parse_qs(query.decode("ascii"), strict_parsing=bool(query)).get("seconds")
            seconds = float(given[0]) if given else self._drain_seconds
        except (ValueError, UnicodeDecodeError):
            return 400, TEXT, b"seconds is a number\n"
        left = await self.drain(min(max(seconds, 0.0), 3600.0))
        return 200, JSON, msgspec.json.encode({"drained": left == 0, "inFlight": left})

    async def drain(self, seconds: float) -> int:
        """Drain for so long at most; returns how many requests are left."""
        router, loop = self._router, self._router.loop
        router.draining = self._serving.closing = True
        began = loop.time()
        # Requests that are on their way while endpoints still name this pod are served; then what is in flight may end.
        while (spent := loop.time() - began) < seconds and (router.exchanges or spent < self._settle_seconds):
            router.refusing = spent >= self._settle_seconds
            await asyncio.sleep(0.02)
        router.refusing = True
        return len(router.exchanges)

    async def _engine(self, path: str) -> tuple[int, bytes, bytes]:
        engine = self._router.engine
        pools = self._router.pools()
        local = engine.pool if engine else next((pool for tier, pool in pools.items() if tier.local), None)
        if local is None or not local.addresses:
            return 503, TEXT, b"no tier of the table is local\n"
        try:
            head, body = await fetch(local.addresses[0], path, local.tier.health.timeout_ms / 1000)
        except (OSError, TimeoutError):
            return 503, TEXT, b"the engine does not answer\n"
        return head.status, head.get(b"content-type") or TEXT, body


def _route_status(route: Route, keys: KeyRing) -> dict[str, Any]:
    held = route.policy.score.strong_share_permille is not None
    return {
        "model": route.policy.policy.model,
        "escalatedSharePermille": route.escalated.permille,
        "missingKeys": keys.missing(route.policy.policy.access),
        "thresholdPermille": route.held.threshold_permille if held else None,
        "strongSharePermille": route.held.share_permille if held else None,
    }


def _counters(route: Route) -> dict[str, Any]:
    """What was counted where it was decided; forwarded requests are in the counters of the router they came from."""
    counts, policy = route.counts, route.policy.policy.name
    head = {"policy": policy, "start": counts.start, "seconds": round(counts.seconds(), 3)}
    return {**head, **msgspec.to_builtins(counts.tally)}


def _revisions(counts: Mapping[tuple[str, str, str], int]) -> dict[str, dict[str, dict[str, int]]]:
    """Attempts on tiers that have two revisions: by tier, revision and outcome."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (tier, revision, outcome), count in counts.items():
        found.setdefault(tier, {}).setdefault(revision, {})[outcome] = count
    return found


def _pool_status(pool: Pool, now: float) -> dict[str, Any]:
    return {
        "resolveFailures": pool.resolve_failures,
        "problem": pool.problem,
        "addresses": {
            f"{one.host}:{one.port}": {"state": one.state(now), "inFlight": one.in_flight} for one in pool.addresses
        },
    }
