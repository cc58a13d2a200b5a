"""The operator's own metrics. Labels come from fixed sets and names of objects only; `docs/reference/metrics.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from modeltiers import __version__
from modeltiers.controllers.store import DISTILL, POLICY, TIER, Kept, Key, Store
from modeltiers.domain.gauges import GAUGES, Gauge, Sample, samples

RECONCILES = Counter("modeltiers_reconcile", "Reconciles by kind and result", ["kind", "result"])
ERRORS = Counter(
    "modeltiers_reconcile_errors", "Reconciles that ended in a fault, by kind and reason", ["kind", "reason"]
)
SECONDS = Histogram(
    "modeltiers_reconcile_duration_seconds",
    "Time to reconcile one object",
    ["kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
READS = Counter("modeltiers_router_reads", "Routers asked for their status, by result", ["result"])
WRITES = Counter("modeltiers_writes", "Objects written, by kind and what made it necessary", ["kind", "cause"])

QUEUE_DEPTH: Final = "modeltiers_queue_depth"
QUEUE_OLDEST: Final = "modeltiers_queue_oldest_seconds"
LEADING: Final = "modeltiers_leading"
SYNCED: Final = "modeltiers_synced"
LOOP_LAG: Final = "modeltiers_loop_lag_seconds"
TIERS: Final = "modeltiers_tiers"
POLICIES: Final = "modeltiers_policies"
DISTILLATIONS: Final = "modeltiers_distillations"
TRAFFIC_ROUND: Final = "modeltiers_traffic_round_seconds"

PLAIN: Final = {
    QUEUE_DEPTH: "Keys waiting or being served",
    QUEUE_OLDEST: "Age of the oldest wake-up not served yet",
    LEADING: "Whether this replica may write",
    SYNCED: "Whether everything was listed",
    LOOP_LAG: "How late the event loop runs",
    TIERS: "Tiers known",
    POLICIES: "Policies known",
    DISTILLATIONS: "Distillations known",
    TRAFFIC_ROUND: "Time that reading all routers took last",
}
"""Gauges without labels, and what they mean."""
WATCH_AGE: Final = Gauge(
    "modeltiers_watch_age_seconds", "Time since a watch began anew, as it does every 100 s", ("resource",)
)
BUILD: Final = Gauge("modeltiers_build_info", "Version of the operator", ("version",))


class Facts:
    """Gauges that are computed when asked for, so that they cannot be stale."""

    def __init__(
        self, plain: Mapping[str, Callable[[], float]], watch_ages: Callable[[], Mapping[str, float]], objects: Objects
    ) -> None:
        self._plain, self._watch_ages, self._objects = plain, watch_ages, objects

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks a collector for."""
        for name, meaning in PLAIN.items():
            yield GaugeMetricFamily(name, meaning, value=self._plain[name]())
        ages = [Sample(WATCH_AGE, (resource,), age) for resource, age in self._watch_ages().items()]
        yield _family(WATCH_AGE, ages)
        yield _family(BUILD, [Sample(BUILD, (__version__,), 1)])
        found: dict[Gauge, list[Sample]] = {gauge: [] for gauge in GAUGES}
        for sample in self._objects.samples():
            found[sample.gauge].append(sample)
        for gauge, of_it in found.items():
            yield _family(gauge, of_it)


class Objects:
    """What is told of each object, made anew only where the object has changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: dict[tuple[str, Key], tuple[Kept, tuple[Sample, ...]]] = {}

    def samples(self) -> Iterator[Sample]:
        """The samples of every object that is remembered."""
        before, self._made = self._made, {}
        shelves = {TIER: self._store.tiers, POLICY: self._store.policies, DISTILL: self._store.distills}
        for kind, shelf in shelves.items():
            for key, kept in shelf.items():
                made = before.get((kind, key))
                if made is None or made[0] is not kept:
                    made = (kept, tuple(samples(kind, kept.body())))
                self._made[kind, key] = made
                yield from made[1]


def register(facts: Facts, registry: CollectorRegistry = REGISTRY) -> None:
    """Expose the facts beside the counters."""
    registry.register(facts)


def _family(gauge: Gauge, found: list[Sample]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(gauge.name, gauge.meaning, labels=gauge.labels)
    for sample in found:
        family.add_metric(sample.labels, sample.value)
    return family
