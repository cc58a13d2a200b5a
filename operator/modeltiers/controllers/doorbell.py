"""The doorbell: kopf watches, the store is filled, keys are rung. The only file that names kopf.

No handler here decides anything, and none is of a kind that would make kopf write to an object: no finalizer, no
annotation (docs/adr/0001). kopf's indexes are not used: while it fills them, every object waits for every other one,
which takes minutes with some thousands of them. The first picture is listed before the watches start (`program.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import kopf
from yarl import URL

from modeltiers import names
from modeltiers.controllers.store import HPA, Key, OwnerKey, Store, distill_key, key_of, owner_of

log = logging.getLogger(__name__)

Ring = Callable[..., None]
RingPolicy = Callable[[Key], None]
Session = Callable[[aiohttp.TraceConfig], Awaitable[tuple[str, aiohttp.ClientSession]]]
"""Opens an authenticated session with this tracing; returns the server's URL and the session."""

CHILDREN: Final[Mapping[str, tuple[str, str, str]]] = {
    "Deployment": ("apps", "v1", "deployments"),
    "Service": ("", "v1", "services"),
    "ConfigMap": ("", "v1", "configmaps"),
    "ServiceAccount": ("", "v1", "serviceaccounts"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "Job": ("batch", "v1", "jobs"),
}
PAGE: Final = 100
"""Objects a page of a list: a page is in memory whole, and what is kept of it is a tenth."""
OURS: Final = (
    f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER},{names.LABEL_NAME} in (modeltier,routingpolicy,distilljob)"
)


@dataclass(eq=False)
class Watches:
    """When each watch was answered last, and which were listed anew."""

    clock: Callable[[], float] = time.monotonic
    heard: dict[str, float] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)
    on_relist: Callable[[str], None] = lambda _resource: None
    on_gone: Callable[[str], None] = lambda _resource: None

    def ages(self) -> dict[str, float]:
        """Seconds since each watch was answered, by `resource` or `namespace/resource`; a healthy one begins anew every
        100 s, and within 70 s where it has fallen silent.
        """
        now = self.clock()
        return {resource: now - heard for resource, heard in self.heard.items()}

    def trace(self) -> aiohttp.TraceConfig:
        """Hooks for the session that kopf watches with. What streams in is not to be seen by them, only its start."""
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._answered)
        return trace

    async def _answered(self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        watched, query = _watched(params.url), params.url.query
        if params.response.status == 404:
            # The kind's CRD was deleted. kopf takes that for the end of everything.
            _hush()
            self.on_gone(params.url.name)
            return
        if params.response.status != 200 or params.method != "GET":
            return
        if query.get("watch"):
            self.heard[watched] = self.clock()
        elif "limit" in query and "continue" not in query:
            self.lists[watched] = self.lists.get(watched, 0) + 1
            if self.lists[watched] > 1:
                # kopf lists anew when a watch cannot be continued, and does not notice what was deleted in between.
                self.on_relist(params.url.name)


def _hush() -> None:
    """kopf has many words for its end, and asyncio for what kopf leaves behind."""
    for logger in ("kopf", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)


def _watched(url: URL) -> str:
    """`pods`, or `default/pods` where the watch is of one namespace."""
    parts = url.path.split("/")
    return "/".join(parts[-2:]) if "namespaces" in parts[:-2] else url.name


def registry(
    store: Store,
    ring: Ring,
    ring_policy: RingPolicy,
    login: Session,
    watches: Watches,
    *,
    see_nodes: bool,
    see_policies: bool,
    see_distills: bool,
) -> kopf.OperatorRegistry:
    """The handlers of the operator; nodes and policies are watched where that is possible."""
    handlers = kopf.OperatorRegistry()
    _register_login(handlers, login, watches)
    _register_tiers(handlers, store, ring, ring_policy)
    if see_policies:
        _register_policies(handlers, store, ring, ring_policy)
    if see_distills:
        _register_distills(handlers, store, ring, ring_policy)
    for kind, resource in CHILDREN.items():
        _register_children(handlers, store, ring, kind, resource)
    _register_pods(handlers, store, ring, ring_policy)
    _register_hpas(handlers, store, ring)
    if see_nodes:
        _register_nodes(handlers, store, ring)
    return handlers


def settings() -> kopf.OperatorSettings:
    """kopf's own settings: server-side label selectors, no scanning, no event posting, nothing kept on objects."""
    chosen = kopf.OperatorSettings()
    for group, _, plural in (*CHILDREN.values(), ("", "v1", "pods")):
        chosen.watching.label_selectors[(group, plural) if group else plural] = OURS
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.networking.request_timeout = 30
    # Longer waits would only make us see late that the API server is back. After a minute of refusals a watch fails.
    chosen.networking.error_backoffs = (1, 1, 2, 2, 3, 3, *(5,) * 10)
    # So often is a watch answered anew, which is how we know that it lives (`Watches`).
    chosen.watching.server_timeout = 100
    chosen.watching.chunk_size = PAGE
    # A worker that waits for more events of an object keeps the last one whole.
    chosen.queueing.idle_timeout = 1.0
    # Never written with the handlers we have; set all the same, so that a mistake would at least use our own name.
    chosen.persistence.finalizer = f"{names.GROUP}/operator"
    chosen.persistence.diffbase_storage = _NoDiffBase()
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP, v1=False)
    return chosen


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of an object to compare with: we do not ask what changed. kopf would make one for every event."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ARG002 - kopf's signature
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002 - likewise
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:  # noqa: ARG002 - likewise
        raise AssertionError("no handler of ours makes kopf write to an object")


async def watch(
    handlers: kopf.OperatorRegistry, namespaces: Sequence[str], ready: asyncio.Event, stop: asyncio.Event
) -> None:
    """Run the watches until `stop` is set. One that fails for good sets it: kopf would take long to end the others."""

    def ended(part: asyncio.Task[None]) -> None:
        fault = None if part.cancelled() else part.exception()
        if fault and not stop.is_set():
            log.error("a watch failed: %s: ending, to begin anew", fault)
            _hush()
            stop.set()

    logging.getLogger("kopf").setLevel(logging.WARNING)
    # Left alone it asks for the user's name, and stops where the image does not know the uid. Only peering wants it.
    identity: Any = names.GROUP
    others = asyncio.all_tasks()
    parts = await kopf.spawn_tasks(
        identity=identity,
        registry=handlers,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=ready,
        stop_flag=stop,
    )
    for part in parts:
        part.add_done_callback(ended)
    await kopf.run_tasks(parts, ignored=others)


def _register_login(handlers: kopf.OperatorRegistry, login: Session, watches: Watches) -> None:
    @kopf.on.login(registry=handlers, id="login")
    async def connect(**_: Any) -> kopf.AiohttpSession:
        server, session = await login(watches.trace())
        return kopf.AiohttpSession(server=server, aiohttp_session=session)


def _register_tiers(handlers: kopf.OperatorRegistry, store: Store, ring: Ring, ring_policy: RingPolicy) -> None:
    @kopf.on.event(names.GROUP, names.VERSION, "modeltiers", id="tier", registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body = event["object"]
        if event["type"] == "DELETED":
            key: Key | None = store.drop_tier(body)
            ring(key, urgent=True)
        elif key := store.put_tier(body):
            # What changes the odds of a tier that fails is a new spec, not the echo of somebody's status.
            observed = (body.get("status") or {}).get("observedGeneration")
            ring(key, urgent=observed != body["metadata"].get("generation"))
        for policy in store.policies_of(key) if key else ():
            ring_policy(policy)
        for distill in store.distills_of(key) if key else ():
            ring(distill_key(distill))


def _register_distills(handlers: kopf.OperatorRegistry, store: Store, ring: Ring, ring_policy: RingPolicy) -> None:
    @kopf.on.event(names.GROUP, names.VERSION, "distilljobs", id="distill", registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        key = store.drop_distill(body) if gone else store.put_distill(body)
        if key:
            observed = (body.get("status") or {}).get("observedGeneration")
            ring(distill_key(key), urgent=gone or observed != body["metadata"].get("generation"))
            for tier in store.tiers_after(body):
                ring(tier)
                for policy in store.policies_of(tier):
                    ring_policy(policy)


def _register_policies(handlers: kopf.OperatorRegistry, store: Store, ring: Ring, ring_policy: RingPolicy) -> None:
    @kopf.on.event(names.GROUP, names.VERSION, "routingpolicies", id="policy", registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        crossed = store.drop_policy(body) if gone else store.put_policy(body)
        if crossed is None:
            return
        ring_policy(key_of(body))
        observed = (body.get("status") or {}).get("observedGeneration")
        if gone or observed != body["metadata"].get("generation"):  # not the echo of our own status
            for tier in crossed:
                ring((body["metadata"]["namespace"], tier))


def _register_children(
    handlers: kopf.OperatorRegistry, store: Store, ring: Ring, kind: str, resource: tuple[str, str, str]
) -> None:
    @kopf.on.event(*resource, id=kind.lower(), registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        _ring_some(ring, store.drop_child(kind, body) if gone else store.put_child(kind, body))


def _register_pods(handlers: kopf.OperatorRegistry, store: Store, ring: Ring, ring_policy: RingPolicy) -> None:
    @kopf.on.event("", "v1", "pods", id="pod", registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        owner = owner_of(body)
        if owner is None:
            return
        ready = store.ready_pods(owner)
        _ring_some(ring, store.drop_pod(body) if gone else store.put_pod(body))
        if len(owner) == 2 and store.ready_pods(owner) != ready:
            # Where their requests enter hangs on it, and is not to wait for the tier's own words.
            for policy in store.policies_of(owner):
                ring_policy(policy)


def _register_hpas(handlers: kopf.OperatorRegistry, store: Store, ring: Ring) -> None:
    """Of everybody's: what they scale is known, and ours are children of their policies."""

    @kopf.on.event("autoscaling", "v2", "horizontalpodautoscalers", id="hpa", registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        _ring_some(ring, store.drop_child(HPA, body) if gone else store.put_child(HPA, body))
        for key in store.hpas.drop(key_of(body)) if gone else store.hpas.put(body):
            ring(key)


def _register_nodes(handlers: kopf.OperatorRegistry, store: Store, ring: Ring) -> None:
    @kopf.on.event("", "v1", "nodes", id="node", registry=handlers)
    async def answer(event: Mapping[str, Any], **_: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        if store.drop_node(body) if gone else store.put_node(body):
            # Only tiers that wait for a place, or have no plan yet, look at nodes; the others would find nothing to do.
            for key in tuple(store.waiting_for_nodes):
                ring(key)


def _ring_some(ring: Ring, key: OwnerKey | None) -> None:
    if key:
        ring(key)
