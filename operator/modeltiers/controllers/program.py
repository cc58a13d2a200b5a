"""Puts the operator together and runs it: session, election, watches, workers, health server; and takes it down in
order.

Every replica watches, so that a standby has the whole picture; only the leader serves keys. A fence in front of
every write asks the election again, so that a leader that was asleep writes nothing after it wakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.api.settings import Settings
from modeltiers.controllers import doorbell, health, metrics
from modeltiers.controllers.autoscaler import Autoscaler
from modeltiers.controllers.bridge import Bridge
from modeltiers.controllers.canary import CanaryCounts
from modeltiers.controllers.children import Children
from modeltiers.controllers.config import Process
from modeltiers.controllers.distilljob import DistillReconciler
from modeltiers.controllers.egress import Egress
from modeltiers.controllers.export import Exporter
from modeltiers.controllers.external import ExternalProbe
from modeltiers.controllers.gateway import Gateways
from modeltiers.controllers.hopkey import HopKeys
from modeltiers.controllers.modeltier import KIND, TierReconciler
from modeltiers.controllers.orders import Orders
from modeltiers.controllers.prerequisites import Prerequisites
from modeltiers.controllers.routers import Routers
from modeltiers.controllers.routingpolicy import PolicyReconciler
from modeltiers.controllers.store import DISTILL, HPA, POLICY, Key, OwnerKey, Store, distill_key, policy_key
from modeltiers.controllers.traffic import Traffic
from modeltiers.controllers.workqueue import RetryAfter, WorkQueue
from modeltiers.domain import catalogue
from modeltiers.kube import errors
from modeltiers.kube.capacity import Capacity
from modeltiers.kube.client import Api
from modeltiers.kube.election import Election
from modeltiers.kube.events import EventRecorder
from modeltiers.kube.refs import KINDS
from modeltiers.kube.session import Connection
from modeltiers.render.network import admitted

log = logging.getLogger(__name__)

LAG_LIMIT: Final = 10.0
STUCK_LIMIT: Final = 600.0
STALE_WATCH: Final = 180.0
EXIT_LIMIT: Final = 8.0


@dataclass(eq=False)
class Operator:
    """The running program."""

    process: Process
    settings: Settings
    connection: Connection

    def __post_init__(self) -> None:
        self.queue: WorkQueue[OwnerKey] = WorkQueue(clock=time.monotonic)
        self.store = Store()
        self.watches = doorbell.Watches(on_relist=self._relisted, on_gone=self._gone)
        self.lag = health.Lag()
        self.synced = asyncio.Event()
        self.stopping = asyncio.Event()
        self.unlisted = "not everything is listed yet"
        self._sweeps: set[asyncio.Task[None]] = set()
        lease_api = Api(self.connection)
        self.prerequisites = Prerequisites(lease_api, KIND, (POLICY, DISTILL))
        self.election = Election(lease_api, self.process.namespace, names.LEASE, self.process.identity)
        self.api = Api(self.connection, fence=self.leading)
        self.events = EventRecorder(self.api, self.process.identity)
        self.see_nodes = not self.settings.watch_namespaces
        self.see_policies = False
        self.see_distills = False
        hop_keys = HopKeys(self.api)
        children = Children(self.api, self.store, hop_keys)
        self.routers = Routers()
        who = admitted(self.settings.network, self.process.namespace)
        self.traffic = Traffic(
            store=self.store,
            routers=self.routers,
            settings=self.settings.facts,
            ring_policy=self._ring_policy,
            leading=self.leading,
            now=_now,
        )
        self.policies = PolicyReconciler(
            api=self.api,
            store=self.store,
            gateways=Gateways(self.store, children, self.settings, who),
            settings=self.settings,
            events=self.events,
            routers=self.routers,
            hop_keys=hop_keys,
            traffic=self.traffic,
            exporter=Exporter(self.api, children, self.settings),
            ring_tier=self.queue.ring,
            ring_policy=self._ring_policy,
            now=_now,
        )
        self.tiers = TierReconciler(
            api=self.api,
            store=self.store,
            children=children,
            admitted=who,
            settings=self.settings,
            catalogue=catalogue.load(),
            capacity=Capacity(self.api),
            events=self.events,
            external=ExternalProbe(self.api),
            bridge=Bridge(self.store, self._ring_policy, _now),
            autoscaler=Autoscaler(self.store, self.routers, self.queue.ring, _now),
            egress=Egress(self.store, self.settings, self.routers, who, self.queue.ring),
            ring=self.queue.ring,
            ring_policy=self._ring_policy,
            now=_now,
            see_nodes=self.see_nodes,
        )

        self.distills = DistillReconciler(
            api=self.api,
            store=self.store,
            children=children,
            orders=Orders(self.store, self.settings, self.tiers.catalogue, self.see_nodes),
            admitted=who,
            settings=self.settings,
            events=self.events,
            routers=self.routers,
            counts=CanaryCounts(self.store, self.routers),
            ring=self.queue.ring,
            now=_now,
        )

    def leading(self) -> bool:
        """Whether this replica may write."""
        return not self.process.elect or self.election.is_leading()

    async def run(self) -> None:
        """Run until told to stop; returns after everything is put away."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        metrics.register(self._facts())
        runner = await health.serve(self.process.host, self.process.port, self._live(), self._ready())
        try:
            async with self._tasks():
                await self.stopping.wait()
                log.info("stopping: no new work, releasing the lease")
        finally:
            await runner.cleanup()
            await self.connection.close()

    @contextlib.asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        """The parts of the program; if one ends, the program ends: the kubelet starts it anew, with a clean head."""
        parts = [
            asyncio.create_task(self.lag.run(), name="lag"),
            asyncio.create_task(self.events.run(), name="events"),
            asyncio.create_task(self._watch(), name="watches"),
            asyncio.create_task(self._watch_over(), name="prerequisites"),
            asyncio.create_task(self._work(), name="workers"),
            asyncio.create_task(self.routers.run(), name="routers"),
            asyncio.create_task(self.traffic.run(), name="traffic"),
        ]
        if self.process.elect:
            parts.append(asyncio.create_task(self.election.run(self.stopping), name="election"))
        for part in parts:
            part.add_done_callback(self._ended)
        try:
            yield
        finally:
            workers = [part for part in parts if part.get_name() not in ("election", "watches")]
            for part in workers:
                part.cancel()
            await asyncio.wait(parts, timeout=EXIT_LIMIT)
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _ended(self, part: asyncio.Task[None]) -> None:
        if not self.stopping.is_set():
            fault = None if part.cancelled() else part.exception()
            log.error("%s ended unexpectedly: %r", part.get_name(), fault, exc_info=fault)
            self.stopping.set()

    # --- watches ------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        await self.prerequisites.wait(self._pause)
        self.see_policies = POLICY in self.prerequisites.served
        self.see_distills = DISTILL in self.prerequisites.served
        await self._first_picture()
        watching = asyncio.Event()
        again = asyncio.create_task(self._own_signals(watching))
        handlers = doorbell.registry(
            self.store,
            self.queue.ring,
            self._ring_policy,
            self.connection.traced,
            self.watches,
            see_nodes=self.see_nodes,
            see_policies=self.see_policies,
            see_distills=self.see_distills,
        )
        await doorbell.watch(handlers, self.settings.watch_namespaces, watching, self.stopping)
        again.cancel()

    def _gone(self, resource: str) -> None:
        if not self.stopping.is_set():
            log.warning("%s are not served any more: ending, to begin anew with what there is", resource)
            self.stopping.set()

    async def _own_signals(self, watching: asyncio.Event) -> None:
        """kopf takes the signals for itself when it starts, and would end the watches first and us after them."""
        await watching.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)

    async def _first_picture(self) -> None:
        """List everything once before the first key is served: a restart finds the whole picture and writes nothing."""
        kinds = [*doorbell.CHILDREN, "Pod", HPA, *(["Node"] if self.see_nodes else []), KIND]
        kinds += [POLICY] if self.see_policies else []
        kinds += [DISTILL] if self.see_distills else []
        while not self.stopping.is_set():
            try:
                for kind in kinds:
                    async for body in self._list(kind):
                        self.store.put(kind, {"kind": kind, "apiVersion": KINDS[kind].api_version, **body})
            except errors.ApiFault as fault:
                self.unlisted = f"cannot list what there is: {fault}"
                log.warning("%s; trying again in 2 s", self.unlisted)
                await self._pause(2)
            else:
                break
        for key in self.store.tiers:
            self.queue.ring(key)
        for key in self.store.policies:
            self._ring_policy(key)
        for key in self.store.distills:
            self.queue.ring(distill_key(key))
        self.synced.set()

    def _ring_policy(self, key: Key) -> None:
        self.queue.ring(policy_key(key))

    async def _pause(self, seconds: float) -> bool:
        """Wait so long, or until the program stops; says whether it does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
        return self.stopping.is_set()

    async def _watch_over(self) -> None:
        """End when the cluster serves kinds of ours that it did not at the start: the kubelet begins anew."""
        await self.synced.wait()
        news = await self.prerequisites.watch_over(self._pause)
        if news:
            log.warning("%s: ending, to begin anew with them", news)
            self.stopping.set()

    def _relisted(self, resource: str) -> None:
        kinds = (KIND, POLICY, DISTILL, HPA, "Pod", "Node", *doorbell.CHILDREN)
        kind = next((kind for kind in kinds if KINDS[kind].plural == resource), None)
        if kind:
            task = asyncio.get_running_loop().create_task(self._sweep(kind), name=f"sweep {kind}")
            self._sweeps.add(task)
            task.add_done_callback(self._sweeps.discard)

    async def _sweep(self, kind: str) -> None:
        """Forget what a fresh list does not have."""
        before = set(self.store.names_of(kind))
        try:
            found = [body["metadata"] async for body in self._list(kind, metadata_only=True)]
        except errors.ApiFault as fault:
            log.warning("could not list %s after its watch broke: %s; asking again in 30 s", kind, fault)
            asyncio.get_running_loop().call_later(30, self._relisted, KINDS[kind].plural)
            return
        living = {(metadata.get("namespace", ""), metadata["name"]) for metadata in found}
        for namespace, name in before - living:
            for policy in self.store.policies_of((namespace, name)) if kind == KIND else ():
                self._ring_policy(policy)
            for distill in self.store.distills_of((namespace, name)) if kind == KIND else ():
                self.queue.ring(distill_key(distill))
            for key in self.store.drop_ghost(kind, namespace, name):
                self.queue.ring(key)

    async def _list(self, kind: str, *, metadata_only: bool = False) -> AsyncIterator[dict[str, Any]]:
        labels = doorbell.OURS if kind not in (KIND, POLICY, DISTILL, HPA, "Node") else None
        everywhere: list[str | None] = [None]
        for namespace in list(self.settings.watch_namespaces) or everywhere:
            async for body in self.api.list(
                KINDS[kind], namespace, labels=labels, limit=doorbell.PAGE, metadata_only=metadata_only
            ):
                yield body

    # --- work ---------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.settings.workers):
                group.create_task(self.queue.work(self._serve))

    async def _serve(self, key: OwnerKey) -> float | None:
        await self._may_work()
        started = time.perf_counter()
        result = "error"
        kind = KIND if len(key) == 2 else key[2]
        try:
            again = await self._reconciler(key)(key[:2])
            result = "ok"
            return again
        except errors.NotLeading:
            result = "fenced"
            raise RetryAfter("not leading any more") from None
        except RetryAfter as fault:
            metrics.ERRORS.labels(kind, _reason(fault)).inc()
            raise
        except errors.ApiFault as fault:
            metrics.ERRORS.labels(kind, type(fault).__name__).inc()
            raise RetryAfter(str(fault), getattr(fault, "retry_after", None)) from fault
        except Exception:
            # A fault of ours in one object must not stop the others; it is loud, and it is tried again later.
            log.exception("reconcile of %s %s/%s failed", kind, *key[:2])
            metrics.ERRORS.labels(kind, "Bug").inc()
            raise RetryAfter("an unexpected fault") from None
        finally:
            metrics.RECONCILES.labels(kind, result).inc()
            metrics.SECONDS.labels(kind).observe(time.perf_counter() - started)
            known = {KIND: self.store.tiers, POLICY: self.store.policies, DISTILL: self.store.distills}
            if key[:2] not in known[kind]:
                self.queue.forget(key)

    def _reconciler(self, key: OwnerKey) -> Callable[[Key], Awaitable[float | None]]:
        if len(key) == 2:
            return self.tiers.serve
        return self.policies.serve if key[2] == POLICY else self.distills.serve

    async def _may_work(self) -> None:
        """Wait for the whole picture and for leadership."""
        await self.synced.wait()
        while not self.leading():
            await self.election.wait_leading()

    # --- health -------------------------------------------------------------------------------------------------------

    def _live(self) -> list[health.Check]:
        return [
            health.Check("loop", lambda: f"{self.lag.now():.1f} s late" if self.lag.now() > LAG_LIMIT else None),
            health.Check("queue", self._stuck),
        ]

    def _stuck(self) -> str | None:
        age = self.queue.oldest_age()
        if self.leading() and self.synced.is_set() and age > STUCK_LIMIT and self.connection.answering():
            return f"a wake-up has waited {age:.0f} s"
        return None

    def _ready(self) -> list[health.Check]:
        return [
            health.Check("cluster", lambda: self.prerequisites.problem),
            health.Check("watches", self._watch_problem),
        ]

    def _watch_problem(self) -> str | None:
        if not self.synced.is_set():
            return self.unlisted
        stale = {name: age for name, age in self.watches.ages().items() if age > STALE_WATCH}
        return ", ".join(f"{name} unheard of for {age:.0f} s" for name, age in sorted(stale.items())) or None

    def _facts(self) -> metrics.Facts:
        plain: dict[str, Callable[[], float]] = {
            metrics.QUEUE_DEPTH: lambda: self.queue.depth,
            metrics.QUEUE_OLDEST: self.queue.oldest_age,
            metrics.LEADING: lambda: float(self.leading()),
            metrics.SYNCED: lambda: float(self.synced.is_set()),
            metrics.LOOP_LAG: self.lag.now,
            metrics.TIERS: lambda: len(self.store.tiers),
            metrics.POLICIES: lambda: len(self.store.policies),
            metrics.DISTILLATIONS: lambda: len(self.store.distills),
            metrics.TRAFFIC_ROUND: lambda: self.traffic.round_seconds,
        }
        return metrics.Facts(plain, self.watches.ages, metrics.Objects(self.store))


def _reason(fault: RetryAfter) -> str:
    cause = fault.__cause__
    return type(cause).__name__ if cause else "Retry"


def _now() -> datetime:
    return datetime.now(UTC)
