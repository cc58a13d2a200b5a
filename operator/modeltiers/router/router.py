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
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from modeltiers.domain.routing.ask import BadRequest, Endpoint, media_urls, read_request
from modeltiers.domain.routing.ask import Request as Fields
from modeltiers.domain.routing.choose import DRAWS, CompiledPolicy, Load, choose
from modeltiers.domain.routing.table import Clamp, Tier
from modeltiers.router.exchange import PATHS, Accepted, Exchange
from modeltiers.router.keys import KeyRing
from modeltiers.router.metrics import Metrics
from modeltiers.router.replies import JSON, Refusal
from modeltiers.router.server import Client
from modeltiers.router.server import Request as HttpRequest
from modeltiers.router.tables import Tables
from modeltiers.router.upstream import Address, Pool, check_health
from modeltiers.router.wire import BadBody, Body

ENDPOINTS: Final[dict[bytes, Endpoint]] = {path: endpoint for endpoint, path in PATHS.items()}
SWEEP: Final = 0.05
RELOAD: Final = 0.25
RETRIES: Final = 10.0
"""The most retries that a tier's budget saves up."""
_PLAIN_URL: Final = re.compile(r"https?://([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?(?:[/?][!-~]*)?", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Headers(Mapping[str, str]):
    """A request's headers as text, decoded when somebody asks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class Router:
    """One process of the data plane."""

    def __init__(self, tables: Tables, keys: KeyRing, loop: asyncio.AbstractEventLoop, resolve_seconds: float) -> None:
        self.tables, self.keys, self.loop = tables, keys, loop
        self.metrics = Metrics()
        self.exchanges: set[Exchange] = set()
        self.draining = self.refusing = False
        self._pools: dict[Tier, Pool] = {}
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
        endpoint = ENDPOINTS.get(request.target)
        if endpoint is None:
            if request.target == b"/v1/models":
                self._models(client, request)
                return None
            raise Refusal(
                404, "there is nothing here; see /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings"
            )
        if request.method != b"POST":
            raise Refusal(405, "use POST")
        if self.refusing:
            raise Refusal(503, "the server is shutting down; ask again", code="draining", retry_after=1)
        exchange = Exchange(self, client, self._judge(endpoint, request))
        exchange.start()
        self.exchanges.add(exchange)
        self.metrics.in_flight += 1
        self.metrics.own.observe(time.monotonic() - exchange.accepted.began)
        return exchange

    def _judge(self, endpoint: Endpoint, request: HttpRequest) -> Accepted:
        began = time.monotonic()  # the loop's own clock counts whole milliseconds
        headers = request.headers
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refusal(415, "send the body as it is, without content-encoding")
        kind = headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
        if kind != JSON:
            raise Refusal(415, "send the header content-type: application/json")
        try:
            body = Body(request.body)
            fields = read_request(endpoint, request.body)
            policy = self.tables.by_model.get(fields.model or "")
            if policy is None:
                raise _unknown(fields.model)
            key = self._key(policy, headers)
            changes = clamp(policy.policy.clamp, fields)
            request_id = self._request_id(headers.get(b"x-request-id"))
            _check_media(policy, fields)
            draw = zlib.crc32((fields.user or request_id).encode()) % DRAWS
            ask = policy.see(endpoint, fields, Headers(headers), draw)
        except BadBody as error:
            raise Refusal(400, str(error)) from None
        except BadRequest as error:
            raise Refusal(400, error.message, param=error.param) from None
        load = Load(tuple(self.pool(tier).usable() for tier in policy.ladder))
        choice = choose(policy, ask, load)
        if choice.refused is not None:
            raise Refusal(choice.status, choice.refused, code=choice.reason)
        return Accepted(request, endpoint, policy, body, fields, choice, changes, key, request_id, began)

    def _key(self, policy: CompiledPolicy, headers: dict[bytes, bytes]) -> str:
        access = policy.policy.access
        if access.mode == "Open":
            return ""
        name = self.keys.check(headers.get(b"authorization"))
        if access.keys and name not in access.keys:
            raise Refusal(403, f"the key {name} may not ask for this model", code="key_not_admitted")
        return name

    def _request_id(self, said: bytes | None) -> str:
        text = said.decode("latin-1") if said is not None else ""
        return text if _ID.fullmatch(text) else f"{self._prefix}-{next(self._ids):x}"

    def _models(self, client: Client, request: HttpRequest) -> None:
        if request.method != b"GET":
            raise Refusal(405, "use GET")
        found = []
        for model, policy in sorted(self.tables.by_model.items()):
            try:
                self._key(policy, request.headers)
            except Refusal:
                continue
            found.append({"id": model, "object": "model", "created": 0, "owned_by": "modeltiers"})
        client.reply(200, [(b"content-type", JSON)], msgspec.json.encode({"object": "list", "data": found}))

    def finished(self, exchange: Exchange) -> None:
        """Forget an exchange that has ended."""
        if exchange in self.exchanges:
            self.exchanges.discard(exchange)
            self.metrics.in_flight -= 1
        for tier in exchange.accepted.policy.ladder[:1]:
            self._earn(tier, exchange.accepted.policy.policy.fallback.retry_share_permille)

    # -- tiers --------------------------------------------------------------------------------------------------------

    def pool(self, tier: Tier) -> Pool:
        """Return the addresses of a tier; a tier that a new table leaves as it was keeps them."""
        found = self._pools.get(tier)
        if found is None:
            found = self._pools[tier] = Pool(tier, self.loop)
            self._background(found.resolve())
        return found

    def _earn(self, tier: Tier, share_permille: int) -> None:
        self._retries[tier.name] = min(RETRIES, self._retries.get(tier.name, 1.0) + share_permille / 1000)

    def retry(self, tier: Tier, share_permille: int) -> bool:
        """Whether the tier's budget allows one more try; takes it from the budget."""
        saved = self._retries.get(tier.name, 1.0)
        if not share_permille or saved < 1:
            return False
        self._retries[tier.name] = saved - 1
        return True

    def pools(self) -> dict[Tier, Pool]:
        """Return the tiers that the tables in force name."""
        named = {tier for loaded in self.tables.loaded.values() for tier in loaded.table.tiers}
        return {tier: self.pool(tier) for tier in named}

    def ready(self) -> bool:
        """Whether requests are welcome: a table serves, each entry tier has an address, and nothing drains."""
        policies = self.tables.by_model.values()
        return not self.draining and bool(policies) and all(self.pool(one.ladder[0]).addresses for one in policies)

    def reload(self) -> None:
        """Take up changed tables and keys; tiers that no table names any more get nothing new."""
        self.keys.reload()
        said = self.tables.reload()
        for _, outcome in said:
            self.metrics.reloads[outcome] += 1
        if said:
            named = self.pools()
            for tier in [tier for tier in self._pools if tier not in named]:
                self._pools.pop(tier).close()

    # -- time -----------------------------------------------------------------------------------------------------

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, sweep_clients: Callable[[float], None]) -> None:
        """Keep time until cancelled: sweeps, reloads, name look-ups, health."""
        reload_at = resolve_at = 0.0
        while True:
            now = self.loop.time()
            sweep_clients(now)
            for pool in list(self._pools.values()):
                pool.sweep(now)
            if now >= reload_at:
                self.reload()
                reload_at = now + RELOAD
            if now >= resolve_at:
                for pool in self._pools.values():
                    self._background(pool.resolve())
                resolve_at = now + self._resolve_seconds
            for tier, pool in self._pools.items():
                if now >= self._checked.get(tier, 0.0):
                    self._checked[tier] = now + tier.health.interval_ms / 1000
                    self._background(check_health(pool, self._health_changed))
            before = self.loop.time()
            await asyncio.sleep(SWEEP)
            self.metrics.loop_lag = max(0.0, self.loop.time() - before - SWEEP)

    def _health_changed(self, address: Address, well: bool) -> None:
        self.metrics.health_changes[address.tier.name, "Healthy" if well else "Unhealthy"] += 1


def clamp(bounds: Clamp, fields: Fields) -> dict[str, bytes]:
    """Return what must change to keep within bounds; raises BadRequest where that would change the meaning."""
    changes: dict[str, bytes] = {}
    for name in ("n", "best_of"):
        value = getattr(fields, name)
        if value is not None and value > bounds.n:
            raise BadRequest(name, f"{name} is at most {bounds.n} here")
    stop = fields.stop if isinstance(fields.stop, list) else []
    if len(stop) > bounds.stop:
        raise BadRequest("stop", f"at most {bounds.stop} stop sequences are taken here")
    lowered: list[tuple[str, int]] = []
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(fields, name)
        if bounds.max_tokens is not None and value is not None and value > bounds.max_tokens:
            lowered.append((name, bounds.max_tokens))
    if fields.top_logprobs is not None and fields.top_logprobs > bounds.logprobs:
        lowered.append(("top_logprobs", bounds.logprobs))
    if fields.logprobs is not None and not isinstance(fields.logprobs, bool) and fields.logprobs > bounds.logprobs:
        lowered.append(("logprobs", bounds.logprobs))
    if lowered and bounds.action == "Refuse":
        name, most = lowered[0]
        raise BadRequest(name, f"{name} is at most {most} here")
    changes |= {name: b"%d" % most for name, most in lowered}
    if bounds.max_tokens is not None and fields.max_tokens is None and fields.max_completion_tokens is None:
        changes |= {"max_tokens": b"%d" % bounds.max_tokens} if not memoryview(fields.input) else {}
    return changes


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
