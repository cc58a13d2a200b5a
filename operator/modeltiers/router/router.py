"""The router's state and the judgement of a request: which policy, whose key, what is clamped, which tier.

Reads tables and keys as they change, keeps the tiers' addresses fresh, and counts. A request that was accepted is an
exchange's; this file decides only whether it is, and where it goes first.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from modeltiers.domain.routing import revisions
from modeltiers.domain.routing.ask import BadRequest, media_urls, read_request
from modeltiers.domain.routing.ask import Request as Fields
from modeltiers.domain.routing.choose import Choice, CompiledPolicy, choose
from modeltiers.domain.routing.clamp import clamp
from modeltiers.domain.routing.record import encode
from modeltiers.domain.routing.see import see
from modeltiers.domain.routing.table import Tier
from modeltiers.router.accounts import line_of, record_of, used
from modeltiers.router.egress import Egress
from modeltiers.router.engine import Engine
from modeltiers.router.exchange import Ending, Exchange
from modeltiers.router.external import ExternalPool
from modeltiers.router.heads import Facts, read_head
from modeltiers.router.hops import HEADER, Hop, HopKey
from modeltiers.router.keys import KeyRing
from modeltiers.router.limits import Gate, Ticket, Waiting, estimate
from modeltiers.router.logs import Log
from modeltiers.router.metrics import Metrics
from modeltiers.router.outgoing import Accepted
from modeltiers.router.probes import check_health
from modeltiers.router.replies import JSON_LINE, Refusal
from modeltiers.router.requests import Request as HttpRequest
from modeltiers.router.routes import Route
from modeltiers.router.server import Client
from modeltiers.router.spool import Spool
from modeltiers.router.tables import Tables
from modeltiers.router.upstream import Address, Pool
from modeltiers.router.wire import BadBody, Body
from modeltiers.router.workers import Workers

SWEEP: Final = 0.05
RELOAD: Final = 0.25
LOST: Final = 1.0
"""Seconds between two look-ups of a name that stands for nothing yet: a tier that is about to come."""
RETRIES: Final = 10.0
"""The most retries that a tier's budget saves up."""
_PLAIN_URL: Final = re.compile(
    r"https?://([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?(?:[/?][!-~]*)?", re.ASCII | re.IGNORECASE
)


_ESCALATED: Final = ("Escalated", "Abandoned")
LOGGED: Final = ("all", "failed", "none")


class Guards(Struct, frozen=True):
    """What stands between clients and tiers, and what is told of it afterwards."""

    keys: KeyRing
    hop_key: HopKey
    gate: Gate
    workers: Workers
    log: Log
    logged: str = "failed"
    """Which requests get a line in the log: one of LOGGED."""
    spool: Spool | None = None


class Router:
    """One process of the data plane."""

    def __init__(self, tables: Tables, guards: Guards, loop: asyncio.AbstractEventLoop, resolve_seconds: float) -> None:
        self.tables, self.guards, self.loop = tables, guards, loop
        self.metrics = Metrics()
        self.metrics.limited = guards.gate.refused
        self.metrics.dropped_lines = lambda: guards.log.dropped
        if guards.spool is not None:
            self.metrics.spool = guards.spool.figures
        self.metrics.shares = lambda: {
            route.policy.policy.name: route.escalated.permille for route in self.routes.values()
        }
        self.workers = guards.workers
        self.exchanges: set[Exchange] = set()
        self.engine: Engine | Egress | None = None
        """What is behind this router alone, its engine or its API; readiness is then of that."""
        self.draining = self.refusing = False
        self.routes: dict[str, Route] = {}
        """By the model that clients ask for."""
        self.guarded = False
        """Whether any policy asks for keys; then nobody without one learns which models there are."""
        self.locked = False
        """Whether every policy asks for keys; then nobody without one has a body worked on."""
        self._looking: set[Pool] = set()
        self._pools: dict[Tier, Pool] = {}
        self._retired: set[Pool] = set()
        """Tiers of tables that are gone, as long as a request may still come to them."""
        self._retries: dict[str, float] = {}
        self._resolve_seconds = resolve_seconds
        self._checked: dict[Tier, float] = {}
        self._ids = itertools.count()
        self._prefix = os.urandom(6).hex()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- requests ---------------------------------------------------------------------------------------------------

    def handle(self, client: Client, request: HttpRequest) -> Exchange | None:
        """Answer a request or begin an exchange for it; raises Refusal."""
        try:
            return self._handle(client, request)
        except Refusal as refusal:
            self.metrics.refused[str(refusal.status)] += 1
            raise

    def _handle(self, client: Client, request: HttpRequest) -> Exchange | None:
        facts: Facts | None = request.facts
        if facts is None:
            if request.target == b"/v1/models":
                self._models(client, request)
                return None
            facts = request.facts = read_head(request)
        if self.refusing:
            raise Refusal(503, "the server is shutting down; ask again", code="draining", retry_after=1)
        exchange = Exchange(self, client, self._judge(facts, request))
        exchange.start(self._enter(exchange))
        self.exchanges.add(exchange)
        self.metrics.in_flight += 1
        self.metrics.own.observe(time.monotonic() - exchange.accepted.began)
        return exchange

    def _judge(self, facts: Facts, request: HttpRequest) -> Accepted:
        began = time.monotonic()  # the loop's own clock counts whole milliseconds
        headers = request.headers
        hop = self._hop(headers)
        if self.locked and hop is None:
            facts.key_of(self.guards.keys, headers.get(b"authorization"))
        try:
            body = Body(request.body)
            fields = read_request(facts.endpoint, request.body)
            route = self._route_of(hop) if hop is not None else self._route(fields.model, headers)
            key = self._key(route.policy, facts, headers) if hop is None else ""
            changes = clamp(route.policy.policy.clamp, fields) if hop is None else {}
            _check_media(route.policy, fields)
            number = f"{self._prefix}-{next(self._ids):x}"
            request_id = facts.request_id or number
            ask = see(route.policy, fields, facts.texts, request_id)
        except BadBody as error:
            raise Refusal(400, str(error)) from None
        except BadRequest as error:
            raise Refusal(400, error.message, param=error.param) from None
        if key and ask.session is not None:
            ask = msgspec.structs.replace(ask, session=f"{key}:{ask.session}")
        load = route.load(ask, self.loop.time())
        choice = choose(route.policy, ask, load) if hop is None else _here(route)
        if hop is None:
            route.chose(choice)
        accepted = Accepted(  # by place: msgspec looks for each name among all
            request,
            facts.endpoint,
            route,
            body,
            fields,
            ask,
            load,
            choice,
            changes,
            key,
            number,
            request_id,
            facts.trace,
            began,
            int(time.time() * 1000),
            hop.count if hop is not None else 0,
        )
        if choice.refused is not None:
            if self.guards.spool is not None:
                self.guards.spool.append(encode(record_of(accepted)))
            raise Refusal(choice.status, choice.refused, code=choice.reason)
        return accepted

    def _route(self, model: str | None, headers: dict[bytes, bytes]) -> Route:
        found = self.routes.get(model or "")
        if found is None:
            if self.guarded:
                self.guards.keys.check(headers.get(b"authorization"))
            raise _unknown(model)
        return found

    def _hop(self, headers: dict[bytes, bytes]) -> Hop | None:
        value = headers.get(HEADER)
        return None if value is None else self.guards.hop_key.check(value, None, None, time.time())

    def _route_of(self, hop: Hop) -> Route:
        """Return the route that another router judged by; only the engine beside this router serves it."""
        found = next((one for one in self.routes.values() if one.policy.policy.name == hop.policy), None)
        if found is None or found.local is None:
            problem = "names a policy that has no engine beside this router"
            raise Refusal(503, f"the forwarded request {problem}", code="hop_policy", retry_after=1)
        return found

    def _key(self, policy: CompiledPolicy, facts: Facts, headers: dict[bytes, bytes]) -> str:
        if policy.policy.access.mode == "Open":
            return ""
        name = facts.key_of(self.guards.keys, headers.get(b"authorization"))
        if not _admits(policy, name):
            raise Refusal(403, f"the key {name} may not ask for this model", code="key_not_admitted")
        return name

    def _models(self, client: Client, request: HttpRequest) -> None:
        if request.method not in (b"GET", b"HEAD"):
            raise Refusal(405, "use GET", allow=b"GET, HEAD")
        try:
            name = self.guards.keys.check(request.headers.get(b"authorization"))
        except Refusal:
            name = ""
        found = [
            {"id": model, "object": "model", "created": 0, "owned_by": "modeltiers"}
            for model, route in sorted(self.routes.items())
            if route.policy.policy.access.mode == "Open" or (name and _admits(route.policy, name))
        ]
        client.reply(200, JSON_LINE, msgspec.json.encode({"object": "list", "data": found}))

    # -- limits -------------------------------------------------------------------------------------------------------

    def _enter(self, exchange: Exchange) -> Ticket | Waiting:
        """Return leave to go, or a place in line; raises Refusal."""
        accepted = exchange.accepted
        if accepted.hops:
            return self.guards.gate.unlimited
        entered = self.guards.gate.enter(
            accepted.route.policy.policy.model,
            accepted.key,
            accepted.http.peer,
            estimate(accepted.ask),
            self.loop.time(),
            exchange.enter,
        )
        if isinstance(entered, Refusal):
            raise entered
        return entered

    def park(self, exchange: Exchange, tier: str) -> Waiting | Refusal:
        """Return a place in line for room on a tier."""
        accepted, now = exchange.accepted, self.loop.time()
        ticket = exchange.ticket or self.guards.gate.unlimited
        model = accepted.route.policy.policy.model
        return self.guards.gate.park(ticket, model, accepted.http.peer, tier, now, exchange.unpark)

    def freed(self, tier: Tier) -> None:
        """Let the next in line try a tier on which an attempt has ended."""
        self.guards.gate.freed(tier.name)

    def sign(self, accepted: Accepted, tier: Tier) -> bytes | None:
        """Return the header of a forwarded request, for a tier whose addresses are routers; raises Refusal."""
        if not tier.hop:
            return None
        policy, version = accepted.route.policy.policy.name, accepted.route.table
        return self.guards.hop_key.sign(policy, version, accepted.hops + 1, time.time())

    # -- accounts -----------------------------------------------------------------------------------------------------

    def finished(self, exchange: Exchange, ending: Ending) -> None:
        """Take an exchange that has ended to the books."""
        if exchange in self.exchanges:
            self.exchanges.discard(exchange)
            self.metrics.in_flight -= 1
        accepted, attempts, now = exchange.accepted, exchange.attempts, self.loop.time()
        route, answered = accepted.route, ending.outcome == "Answered"
        self._earn(route)
        made = record_of(accepted, attempts, ending.tier if answered else None)
        if exchange.ticket is not None:
            exchange.ticket.leave(used(made), now)
        if not accepted.hops:
            escalated = accepted.choice.cascade and any(one.outcome in _ESCALATED for one in attempts)
            route.ended(accepted.ask, accepted.choice, ending.tier, answered=answered, escalated=escalated, now=now)
            route.counts.tally.count(made)
            if self.guards.spool is not None:
                self.guards.spool.append(encode(made))
        self.metrics.ended(exchange, ending, made)
        if self.guards.logged == "all" or (not answered and self.guards.logged == "failed"):
            self.guards.log.request(line_of(exchange, ending, made))

    # -- tiers --------------------------------------------------------------------------------------------------------

    def pool(self, tier: Tier) -> Pool:
        """Return the addresses of a tier; a tier that a new table leaves as it was keeps them."""
        found = self._pools.get(tier)
        if found is None:
            found = ExternalPool(tier, self.loop) if tier.external is not None else Pool(tier, self.loop)
            self._pools[tier] = found
            self._look_up([found])
        return found

    def _earn(self, route: Route) -> None:
        name = route.policy.names[0]
        share = route.policy.policy.fallback.retry_share_permille
        saved = self._retries.get(name, 1.0)
        if saved < RETRIES:
            self._retries[name] = min(RETRIES, saved + share / 1000)

    def retry(self, tier: Tier, share_permille: int) -> bool:
        """Whether the tier's budget allows one more try; takes it from the budget."""
        saved = self._retries.get(tier.name, 1.0)
        if not share_permille or saved < 1:
            return False
        self._retries[tier.name] = saved - 1
        return True

    def pools(self, *, second: bool = False) -> dict[Tier, Pool]:
        """Return the tiers that the tables in force name, as their first revision or their second."""
        named = {tier for loaded in self.tables.loaded.values() for tier in loaded.table.tiers}
        found = map(revisions.second if second else revisions.first, named)
        return {tier: self.pool(tier) for tier in found if tier is not None}

    def at_engine(self) -> int:
        """Return how many requests the engine beside this router holds, whatever policy sent them."""
        beside = (pool for pool in (*self._pools.values(), *self._retired) if pool.tier.local)
        return sum(address.in_flight for pool in beside for address in pool.addresses)

    def ready(self) -> bool:
        """Whether requests are welcome: nothing drains, and the engine or API behind it is ready.

        With none of its own: a table serves, and each policy has a tier with an address.
        """
        if self.engine is not None:
            # Requests go by what was found of the engine's address, which may be a few seconds older.
            local = (pool for tier, pool in self._pools.items() if tier.local)
            well = all(any(address.healthy for address in pool.addresses) for pool in local)
            return not self.draining and self.engine.ready and well
        reached = all(any(pool.addresses for pool in route.pools) for route in self.routes.values())
        return not self.draining and bool(self.routes) and reached

    def reload(self) -> None:
        """Take up changed tables and keys; tiers that no table names any more get nothing new."""
        now = self.loop.time()
        self.guards.keys.reload()
        self.guards.hop_key.reload(now)
        said = self.tables.reload()
        for table, outcome in said:
            self.metrics.reloads[outcome] += 1
            self.guards.log.say(f"table_{outcome.lower()}", table=table, error=self.tables.errors.get(table))
        if not said:
            return
        named = self.pools() | self.pools(second=True)
        self.routes = {
            model: Route(policy, accept, loaded.version, self.pool, self.routes.get(model))
            for loaded in self.tables.loaded.values()
            for model, (policy, accept) in loaded.policies.items()
        }
        self.metrics.tables = [(name, loaded.version) for name, loaded in self.tables.loaded.items()]
        asks = [route.policy.policy.access.mode == "Keys" for route in self.routes.values()]
        self.guarded, self.locked = any(asks), bool(asks) and all(asks)
        self.guards.gate.update([route.policy.policy for route in self.routes.values()], now)
        for tier in [tier for tier in self._pools if tier not in named]:
            self._checked.pop(tier, None)
            self._retired.add(self._pools.pop(tier))

    # -- time -----------------------------------------------------------------------------------------------------

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, sweep_clients: Callable[[float], None]) -> None:
        """Keep time until cancelled: sweeps, reloads, name look-ups, health."""
        reload_at = resolve_at = lost_at = 0.0
        while True:
            now = self.loop.time()
            sweep_clients(now)
            self.guards.gate.sweep(now)
            for pool in (*self._pools.values(), *self._retired):
                pool.sweep(now)
            if self._retired:
                self._let_go()
            if now >= reload_at:
                self.reload()
                reload_at = now + RELOAD
            if now >= resolve_at:
                self._look_up(self._pools.values())
                resolve_at, lost_at = now + self._resolve_seconds, now + LOST
            elif now >= lost_at:
                self._look_up(pool for pool in self._pools.values() if not pool.addresses)
                lost_at = now + LOST
            self._check_health(now)
            before = self.loop.time()
            await asyncio.sleep(SWEEP)
            self.metrics.loop_lag = max(0.0, self.loop.time() - before - SWEEP)

    def _look_up(self, pools: Iterable[Pool]) -> None:
        """Look names up; not again while an answer is on its way."""
        for pool in pools:
            if pool not in self._looking:
                self._looking.add(pool)
                self._background(self._looked_up(pool))

    async def _looked_up(self, pool: Pool) -> None:
        try:
            await pool.resolve()
        finally:
            self._looking.discard(pool)

    def _let_go(self) -> None:
        """Close the tiers that no request can come to any more."""
        held = {pool for exchange in self.exchanges for pool in exchange.accepted.route.all_pools}
        for pool in self._retired - held:
            self._retired.discard(pool)
            pool.close()

    def _check_health(self, now: float) -> None:
        for tier, pool in self._pools.items():
            if tier.external is None and now >= self._checked.get(tier, 0.0):
                self._checked[tier] = now + tier.health.interval_ms / 1000
                self._background(check_health(pool, self._health_changed))

    def _health_changed(self, address: Address, well: bool) -> None:
        self.metrics.health_changes[address.tier.name, "Healthy" if well else "Unhealthy"] += 1

    async def close(self) -> None:
        """Let go of what other processes and threads hold."""
        for pool in (*self._pools.values(), *self._retired):
            pool.close()
            if isinstance(pool, ExternalPool):
                await pool.wait_closed()
        await self.workers.close()
        if self.guards.spool is not None:
            self.guards.spool.close()
        self.guards.log.close()


def _admits(policy: CompiledPolicy, key: str) -> bool:
    """Whether a key may ask for the policy's model."""
    keys = policy.policy.access.keys
    return not keys or key in keys


def _here(route: Route) -> Choice:
    """Return the choice for a request that another router has judged: the engine beside this one, unjudged."""
    assert route.local is not None
    own = route.policy.ladder[route.policy.place(route.local)].candidate
    return Choice((route.local,), "Hop", candidates=(route.local,) if own is not None and own.local else ())


def _unknown(model: str | None) -> Refusal:
    if not model:
        return Refusal(400, "the field model is missing; see /v1/models", param="model")
    return Refusal(404, f"there is no model {model[:128]!r}; see /v1/models", param="model", code="model_not_found")


def _check_media(policy: CompiledPolicy, fields: Fields) -> None:
    """Refuse URLs that the engine would fetch, unless the policy names their host: they reach where clients cannot."""
    for url in media_urls(fields):
        if url[:5].lower() != "data:" and not _is_on(url, policy.policy.media_hosts):
            raise BadRequest("messages", "media must be data URLs, or lie on a host that the policy names")


def _is_on(url: str, hosts: Sequence[str]) -> bool:
    """Whether a URL lies on one of these hosts for every reader: what parsers read differently is on none."""
    found = _PLAIN_URL.fullmatch(url)
    return found is not None and found[1].lower() in hosts and (not found[2] or 0 < int(found[2]) < 65_536)
